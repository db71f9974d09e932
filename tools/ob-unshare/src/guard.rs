//! The guard: stays outside the room of one subhost, in the background, and cleans up when the room has ended, however it did.
//!
//! The caller waits for the document and returns; the guard, its child, is the reaper of all that happens in the room; the
//! room's first process, a child of the guard, starts the stages beside itself and becomes the last one.

use crate::pipeline::Pipeline;
use crate::supervise::running;
use crate::{TOOL, end, notify, room};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};
use ob_conf::state::{Home, Lock, identify, prove};
use ob_conf::{Document, Silent, Usage, log, sentence};
use ob_sys::keep::Keep;
use ob_sys::process::{Child, pidfd_open, pidfd_signal, spawn};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long what a hook has left running in the room may take to end when the subhost has.
const LEFT_OVER: Duration = Duration::from_secs(2);

/// How long the stages may take to end when they are told to, above what the subhost itself may.
pub const CANCELLED: Duration = Duration::from_secs(15);

/// Runs `pipeline` in a guarded room. Returns when it has printed the document (0), or when it has ended without and nothing is left
/// of it (1). With `foreground` it stays until the room has ended, passing on the signals that ask for that. Whoever waits at
/// `notify`, or at the socket of sd_notify(3), is told when it is up.
///
/// The subhost is the one that NAME in the environment names; LOG and CONFIG are used where they are there.
pub fn guard(
    pipeline: &Pipeline,
    then: &str,
    foreground: bool,
    notify: Option<RawFd>,
) -> Result<ExitCode> {
    let name = std::env::var("NAME").map_err(|_| {
        Usage("--room with --then wants NAME in the environment, as ob-conf --env prints it".into())
    })?;
    let (mut news, teller) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let guard = Guard::new(&name, then).with_context(|| name.clone())?;
    // Before there is anything to end, so that none of them ends us alone and leaves the boot to itself.
    let signals = take_signals(&[])?;
    let child = spawn(0, None, || guard.run(pipeline, teller.as_fd()));
    let child = child.context("start the guard").inspect_err(|_| {
        let _ = guard.home.remove();
    })?;
    drop((guard, teller));

    let mut document = Vec::new();
    let up = wait_for_line(&mut news, &mut document, &signals, &child)?;
    let told = if up {
        let printed = std::io::stdout().write_all(&document);
        let printed = printed.context("print the document");
        printed.and_then(|()| notify::ready(notify))
    } else {
        Ok(())
    };
    if told.is_err() {
        // Whoever cannot be told of a subhost gets none.
        let _ = pidfd_signal(&child.pidfd, Signal::SIGTERM);
    }
    drop(news);
    if up && told.is_ok() && !foreground {
        return Ok(ExitCode::SUCCESS);
    }
    let end = stay(&child, &signals)?;
    told?;
    if up {
        return Ok(ExitCode::SUCCESS);
    }
    match end {
        WaitStatus::Exited(_, INTERRUPTED) => bail!("{name}: told to end while it was starting"),
        WaitStatus::Exited(_, KILLED) => bail!("{name}: a process of its boot was killed"),
        WaitStatus::Signaled(_, signal, _) => {
            bail!("{name}: its guard was ended by {}", signal.as_str())
        }
        // Who has failed has told why.
        _ => bail!(Silent),
    }
}

/// The guard's statuses where no process of the boot could tell why there is no subhost.
const INTERRUPTED: i32 = 2;
const KILLED: i32 = 3;

/// Reads one line, and tells whether there was one. Meanwhile passes TERM, INT and HUP on to the guard, which then ends.
fn wait_for_line(
    news: &mut OwnedFd,
    line: &mut Vec<u8>,
    signals: &SignalFd,
    guard: &Child,
) -> Result<bool> {
    let mut news = File::from(news.try_clone()?);
    let mut buffer = [0; 4096];
    while !line.ends_with(b"\n") {
        if wait_for(&news, signals, guard)? {
            match news.read(&mut buffer)? {
                0 => return Ok(false),
                length => line.extend_from_slice(&buffer[..length]),
            }
        }
    }
    Ok(true)
}

/// Waits for the guard's end, and passes TERM, INT and HUP on to it.
fn stay(guard: &Child, signals: &SignalFd) -> Result<WaitStatus> {
    while !wait_for(&guard.pidfd, signals, guard)? {}
    Ok(waitid(
        Id::PIDFd(guard.pidfd.as_fd()),
        WaitPidFlag::WEXITED,
    )?)
}

/// Waits until there is something at `awaited`: true; or a signal, which is passed on to the guard: false.
fn wait_for(awaited: impl AsFd, signals: &SignalFd, guard: &Child) -> Result<bool> {
    let mut events = [
        PollFd::new(awaited.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut events, PollTimeout::NONE) {
        Err(Errno::EINTR) => return Ok(false),
        polled => polled?,
    };
    if signals.read_signal()?.is_some() {
        let _ = pidfd_signal(&guard.pidfd, Signal::SIGTERM);
    }
    Ok(events[0].any() == Some(true))
}

/// Ends the guard of a subhost that has not begun, and with it the boot.
pub fn cancel(document: &Document) -> Result<()> {
    if let Some(guard) = find(document) {
        let _ = pidfd_signal(guard, Signal::SIGTERM);
    }
    Ok(())
}

/// The guard that the document notes; none if it has ended, even if its number is now another's.
pub fn find(document: &Document) -> Option<OwnedFd> {
    let start = document.number("guardstart").ok()?;
    let pid = i32::try_from(document.number("guard").ok()?).ok()?;
    let pidfd = pidfd_open(Pid::from_raw(pid)).ok()?;
    identify(pid)
        .is_ok_and(|(_, found)| found == start)
        .then_some(pidfd)
}

/// Whether the guard of `document` has cleaned up and is gone, as what lies at rest tells: nothing, or another guard's document.
/// Of one without a guard nothing can be said.
pub fn is_gone(home: &Home, document: &Document) -> bool {
    let identity = |document: &Document| {
        let guard = document.number("guard").ok()?;
        Some((guard, document.number("guardstart").ok()?))
    };
    let Some(ours) = identity(document) else {
        return false;
    };
    match home.document() {
        Ok(Some(resting)) => identity(&resting).is_some_and(|other| other != ours),
        Ok(None) => !home.file("lock").exists(),
        Err(_) => false,
    }
}

/// Whether somebody is there who stops the subhost, and will clean up.
fn is_being_stopped(home: &Home) -> bool {
    let mark = File::open(home.file("stopping"));
    mark.is_ok_and(|mark| mark.try_lock_shared().is_err())
}

/// What the guard holds.
struct Guard<'a> {
    home: Home,
    name: &'a str,
    then: &'a str,
    keep: Keep,
    log: Option<File>,
    _lock: Lock,
}

impl<'a> Guard<'a> {
    /// Takes the lock of the subhost, cleans up after a predecessor that was killed, begins the log, and lays down a document
    /// that tells who we are: from here on the subhost is starting.
    fn new(name: &'a str, then: &'a str) -> Result<Self> {
        Document::new(name)?;
        let home = Home::of(name);
        let lock = loop {
            let lock = home.lock()?.with_context(|| running(&home))?;
            // Cleaning up removes the directory, and with it the file that we hold the lock on.
            let stopping = is_being_stopped(&home);
            if !end::clean_up_after(&home, name, then).context("clean up after a predecessor")? {
                break lock;
            }
            // One that is being stopped has left it to who stops it, whom we were quicker than.
            if !stopping {
                eprintln!(
                    "{}: {name}: cleaned up what a killed predecessor had left",
                    TOOL.name
                );
            }
        };
        let made = (|| {
            let log = std::env::var_os("LOG");
            let log = log.map(|path| log::begin(Path::new(&path))).transpose()?;
            let keep = room::keep()?;
            keep.put(&lock).context("keep the lock")?;
            anyhow::Ok((log, keep))
        })();
        let (log, keep) = made.inspect_err(|_| {
            let _ = home.remove();
        })?;
        Ok(Guard {
            home,
            name,
            then,
            keep,
            log,
            _lock: lock,
        })
    }

    /// The guard's life, in a process of its own. What it has to say once the room is there goes to the log.
    fn run(&self, pipeline: &Pipeline, teller: impl AsFd) -> u8 {
        let signals = match self.start_room(pipeline, &teller) {
            Ok(signals) => signals,
            Err(error) => {
                let error = error.context(self.name.to_owned());
                self.note(&sentence(&error));
                TOOL.complain(&error);
                let _ = self.home.remove();
                return 1;
            }
        };
        if let Err(error) = self.step_back() {
            self.note(&sentence(&error));
            let _ = kill(Pid::this(), Signal::SIGTERM); // which we take as being told to end
        }
        let reaped = self.reap(&signals);
        let outcome = self.clean_up().and(reaped);
        if let Err(error) = &outcome {
            self.note(&sentence(error));
        }
        outcome.unwrap_or(1)
    }

    /// Starts the room's first process; returns what tells of signals.
    fn start_room(&self, pipeline: &Pipeline, teller: impl AsFd) -> Result<SignalFd> {
        // Nothing that happens to the caller's terminal is to happen to the subhost.
        let _ = setsid();
        // Whatever outlives its parent in the room becomes our child: the room has ended when we have none.
        set_child_subreaper(true).context("become the reaper of the room")?;
        self.lay_down_document()?;
        let signals = take_signals(&[Signal::SIGCHLD])?;
        let child = spawn(0, None, || {
            let error = self.enter_room(pipeline, &teller);
            TOOL.complain(&error.context(self.name.to_owned()));
            1
        });
        child.context("start the room")?;
        Ok(signals)
    }

    fn lay_down_document(&self) -> Result<()> {
        let mut document = Document::new(self.name)?;
        for variable in ["CONFIG", "LOG"] {
            if let Ok(value) = std::env::var(variable) {
                document.set(variable, value);
            }
        }
        let pid = std::process::id();
        document.set("guard", pid);
        document.set("guardstart", identify(i32::try_from(pid)?)?.1);
        self.home.write(&document)
    }

    /// The room's first process: becomes the pipeline, printing to who waits for the document. Returns why it could not.
    fn enter_room(&self, pipeline: &Pipeline, teller: impl AsFd) -> anyhow::Error {
        let entered = (|| {
            let _ = SigSet::empty().thread_set_mask();
            dup2_stdout(teller)?;
            room::enter(Some(self.name))
        })();
        match entered {
            Ok(()) => pipeline.run(self.name, &self.keep),
            Err(error) => error,
        }
    }

    /// Lets go of all that the caller waits for, and shows in `ps` what this process stands for.
    fn step_back(&self) -> Result<()> {
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        match &self.log {
            Some(log) => dup2_stderr(log)?,
            None => dup2_stderr(&null)?,
        }
        std::env::set_current_dir("/")?;
        if let Ok(conf) = std::env::var("CONFIG") {
            let _ = show_as(&format!("overlay-boot {conf}"));
        }
        Ok(())
    }

    /// Waits until no process of the room is left. Told to end, or when the subhost has ended, it hurries them. Returns the guard's
    /// status.
    fn reap(&self, signals: &SignalFd) -> Result<u8> {
        let mut hurry: Option<Hurry> = None;
        let mut status = 0;
        loop {
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Err(Errno::ECHILD) => return Ok(u8::try_from(status)?),
                    Ok(WaitStatus::StillAlive) => break,
                    // By SIGPIPE one ends whose successor has failed, and told so.
                    Ok(WaitStatus::Signaled(_, signal, _)) if signal != Signal::SIGPIPE => {
                        status = status.max(if hurry.is_none() { KILLED } else { 0 });
                    }
                    _ => {}
                }
            }
            if hurry.is_none() && self.subhost_has_ended() {
                hurry = Some(Hurry::within(LEFT_OVER));
            }
            let timeout = hurry
                .as_mut()
                .map_or(PollTimeout::NONE, |hurry| hurry.press());
            let mut events = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut events, timeout);
            while let Some(signal) = signals.read_signal()? {
                if signal.ssi_signo != Signal::SIGCHLD as u32 && hurry.is_none() {
                    hurry = Some(Hurry::within(self.patience() + CANCELLED));
                    status = INTERRUPTED;
                }
            }
        }
    }

    /// Whether there was a pid 1 that is gone.
    fn subhost_has_ended(&self) -> bool {
        let document = self.home.document().ok().flatten();
        document.is_some_and(|document| document.has("pid") && prove(&document).is_none())
    }

    fn patience(&self) -> Duration {
        let document = self.home.document().ok().flatten();
        document.map_or(Duration::from_secs(10), |document| end::patience(&document))
    }

    /// Runs the line on what is left, unless somebody is there who stops the subhost and will do so.
    fn clean_up(&self) -> Result<()> {
        if is_being_stopped(&self.home) {
            return Ok(());
        }
        let document = self.home.document().ok().flatten();
        let document = document.map_or_else(|| Document::new(self.name), Ok)?;
        end::clean_up(&[&document], self.then)
    }

    fn note(&self, text: &str) {
        if let Some(log) = &self.log
            && let Ok(mut log) = log.try_clone()
        {
            log::line(&mut log, &format!("{}: {text}", TOOL.name));
        }
    }
}

/// The end of processes that do not end by themselves: TERM, once to each, and KILL when the time is up.
struct Hurry {
    deadline: Instant,
    told: Vec<Pid>,
}

impl Hurry {
    fn within(time: Duration) -> Self {
        Hurry {
            deadline: Instant::now() + time,
            told: Vec::new(),
        }
    }

    /// Tells all our children that have not been told; says how long to wait before the next look.
    fn press(&mut self) -> PollTimeout {
        let late = Instant::now() >= self.deadline;
        for child in children() {
            // A child of ours is ours until we have reaped it, so its number cannot be another's.
            if late {
                let _ = kill(child, Signal::SIGKILL);
            } else if !self.told.contains(&child) {
                let _ = kill(child, Signal::SIGTERM);
                self.told.push(child);
            }
        }
        PollTimeout::from(50_u8)
    }
}

/// Our children, as the kernel lists them.
pub fn children() -> Vec<Pid> {
    let list = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
        .collect()
}

/// Blocks the signals that ask us to end, and `more`, for a descriptor that tells of them.
fn take_signals(more: &[Signal]) -> Result<SignalFd> {
    let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let mask: SigSet = ending.iter().chain(more).copied().collect();
    mask.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&mask, flags).context("wait for signals")
}

/// Writes `title` over our own command line, which is where `ps` reads it.
fn show_as(title: &str) -> Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .context("stat")?
        .1
        .split(' ')
        .collect();
    // Fields 48 and 49, of which the third was the first after the name.
    let (start, end): (u64, u64) = match fields.get(45..47) {
        Some([start, end]) => (start.parse()?, end.parse()?),
        _ => bail!("stat"),
    };
    let length = usize::try_from(end - start)?;
    let mut line = title.as_bytes().to_vec();
    line.resize(length, 0);
    line[length - 1] = 0;
    let mut memory = File::options().write(true).open("/proc/self/mem")?;
    memory.seek(SeekFrom::Start(start))?;
    Ok(memory.write_all(&line)?)
}
