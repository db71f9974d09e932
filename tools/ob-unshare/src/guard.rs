//! The guard: stays outside the room of one subhost, in the background, and cleans up when the room has ended, however it did.
//!
//! The caller waits for the document and returns; the guard, its child, is the reaper of all that happens in the room; the
//! room's first process, a child of the guard, starts the stages beside itself and becomes the last one.

use crate::hurry::Hurry;
use crate::pipeline::{Cut, Pipeline};
use crate::supervise::running;
use crate::title::show_as;
use crate::{TOOL, end, room};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};
use ob_document::state::{Lock, StateDir, identify, open_pid1};
use ob_document::{Document, log, netns, one_line};
use ob_sys::fdstore::FdStore;
use ob_sys::mount::Depth;
use ob_sys::process::{pidfd_open, pidfd_signal, spawn};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long what a hook has left running in the room may take to end when the subhost has.
const LEFT_OVER: Duration = Duration::from_secs(2);

/// How long the stages may take to end when they are told to, above what the subhost itself may.
pub const CANCELLED: Duration = Duration::from_secs(15);

/// The guard's statuses where no process of the boot could tell why there is no subhost.
pub const INTERRUPTED: i32 = 2;
pub const KILLED: i32 = 3;

/// The guard's status where it has reported itself why there is no subhost.
const REPORTED: i32 = 1;

/// What a pipe holds as it is made, pipe(7).
const PIPE_SIZE: usize = 65536;

/// Ends the guard of a subhost that has not begun, and with it the boot. A process that has not the
/// lock of the subhost is no guard of it, whatever the document says.
pub fn cancel(document: &Document) {
    let home = StateDir::of(document.name());
    let pid = document.number("guard").ok();
    let is_guard = |pid| i32::try_from(pid).is_ok_and(|pid| home.is_held_by(pid));
    if let Some(guard) = find(document).filter(|_| pid.is_some_and(is_guard)) {
        let _ = pidfd_signal(guard, Signal::SIGTERM);
    }
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
pub fn is_gone(home: &StateDir, document: &Document) -> bool {
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
fn is_being_stopped(home: &StateDir) -> bool {
    let mark = File::open(home.file("stopping"));
    mark.is_ok_and(|mark| mark.try_lock_shared().is_err())
}

/// The guard of one room, before and after its subhost is known.
pub struct Guard<'a> {
    then: &'a str,
    store: FdStore,
    /// Where the caller reads: the document as it is admitted, then as the last stage prints it.
    news: Option<OwnedFd>,
    /// The document, as far as the first stage has printed it.
    printed: Option<(File, Vec<u8>)>,
    /// Where the second stage waits for it.
    admitted: Option<OwnedFd>,
    subhost: Option<Subhost>,
}

/// What the guard holds of its subhost, from the moment when the document is admitted.
struct Subhost {
    home: StateDir,
    name: String,
    log: Option<File>,
    _lock: Lock,
}

impl<'a> Guard<'a> {
    /// Makes a guard that runs the line `then` at the end, and reports to `news`.
    pub fn new(then: &'a str, news: OwnedFd) -> Result<Self> {
        Ok(Guard {
            then,
            store: room::make_fd_store()?,
            news: Some(news),
            printed: None,
            admitted: None,
            subhost: None,
        })
    }

    /// The guard's life, in a process of its own. From the moment when the subhost is admitted its
    /// messages go to the log.
    pub fn run(&mut self, pipeline: &Pipeline) -> u8 {
        let reaped = self
            .start_room(pipeline)
            .and_then(|signals| self.reap(&signals));
        let outcome = self.clean_up().and(reaped);
        if let Err(error) = &outcome {
            self.report(error);
        }
        outcome.unwrap_or(1)
    }

    /// Starts the first process of the room; returns what reports signals.
    fn start_room(&mut self, pipeline: &Pipeline) -> Result<SignalFd> {
        // Nothing that happens to the caller's terminal is to happen to the subhost.
        let _ = setsid();
        // Whatever outlives its parent in the room becomes our child: the room has ended when we have none.
        set_child_subreaper(true).context("become the reaper of the room")?;
        let signals = take_signals(&[Signal::SIGCHLD])?;
        let (reading, printed) = pipe2(OFlag::O_CLOEXEC)?;
        let (admitted, writing) = pipe2(OFlag::O_CLOEXEC)?;
        let cut = Cut { printed, admitted };
        let (store, news) = (&self.store, &self.news);
        let child = spawn(0, None, || {
            let error = enter_room(pipeline, store, cut, news);
            TOOL.complain(&error);
            1
        });
        child.context("start the room")?;
        self.printed = Some((File::from(reading), Vec::new()));
        self.admitted = Some(writing);
        Ok(signals)
    }

    /// Reads what there is of the document, and admits the subhost when it is complete. A first
    /// stage that prints nothing has reported why.
    fn read_document(&mut self) -> Result<()> {
        let Some((file, line)) = &mut self.printed else {
            return Ok(());
        };
        let mut buffer = [0; 4096];
        let length = file.read(&mut buffer).context("read the document")?;
        line.extend_from_slice(&buffer[..length]);
        if length > 0 && !line.ends_with(b"\n") {
            return Ok(());
        }
        let line = std::mem::take(line);
        self.printed = None;
        let Some(second_stage) = self.admitted.take().filter(|_| !line.is_empty()) else {
            return Ok(());
        };
        self.admit(&line)?;
        hand_over(&second_stage, &line).context("hand the document to the next stage")
    }

    /// Takes the lock of the subhost, cleans up after a predecessor that was killed, begins the
    /// log, and writes a state file that names this guard: from here on the subhost is starting.
    fn admit(&mut self, line: &[u8]) -> Result<()> {
        let line = std::str::from_utf8(line).context("the document is not UTF-8")?;
        let document = Document::parse(line)?;
        let subhost = Subhost::lock(&document, self.then, &self.store);
        let subhost = subhost.with_context(|| document.name().to_owned())?;
        let begun = subhost
            .write_state(&document)
            .and_then(|state| self.let_go_of_caller(&subhost, &document, &state));
        if let Err(error) = begun {
            let _ = subhost.home.remove();
            return Err(error.context(subhost.name));
        }
        self.subhost = Some(subhost);
        Ok(())
    }

    /// Tells the caller which subhost it is, and lets go of all that the caller's own caller may
    /// wait for; shows in `ps` what this process stands for.
    fn let_go_of_caller(
        &mut self,
        subhost: &Subhost,
        document: &Document,
        state: &Document,
    ) -> Result<()> {
        if let Some(news) = self.news.take() {
            // A caller that is gone needs no news.
            let _ = File::from(news).write_all(state.line().as_bytes());
        }
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        match &subhost.log {
            Some(log) => dup2_stderr(log)?,
            None => dup2_stderr(&null)?,
        }
        std::env::set_current_dir("/")?;
        if let Some(conf) = document.optional("CONFIG") {
            let _ = show_as(&format!("overlay-boot {conf}"));
        }
        Ok(())
    }

    /// Waits until no process of the room is left. When a signal asks for it, or when the subhost
    /// has ended, ends what is left. Returns the guard's status.
    fn reap(&mut self, signals: &SignalFd) -> Result<u8> {
        let mut hurry: Option<Hurry> = None;
        let mut status = 0;
        loop {
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Err(Errno::ECHILD) => return Ok(u8::try_from(status)?),
                    Ok(WaitStatus::StillAlive) => break,
                    // SIGPIPE: the next stage failed and has already said why.
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
            if self.wait(signals, timeout)
                && let Err(error) = self.read_document()
            {
                self.report(&error);
                self.printed = None;
                self.admitted = None;
                status = status.max(REPORTED);
            }
            while let Some(signal) = signals.read_signal()? {
                if signal.ssi_signo != Signal::SIGCHLD as u32 && hurry.is_none() {
                    hurry = Some(Hurry::within(self.patience() + CANCELLED));
                    status = INTERRUPTED;
                }
            }
        }
    }

    /// Waits for a signal, the document, or the end of `timeout`. Returns whether there is
    /// something to read of the document.
    fn wait(&self, signals: &SignalFd, timeout: PollTimeout) -> bool {
        let mut events = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let document = self.printed.as_ref();
        events.extend(document.map(|(file, _)| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        let _ = poll(&mut events, timeout);
        events.get(1).is_some_and(|event| event.any() == Some(true))
    }

    /// Whether there was a pid 1 that is gone.
    fn subhost_has_ended(&self) -> bool {
        let document = self.state();
        document.is_some_and(|document| document.has("pid") && open_pid1(&document).is_none())
    }

    fn patience(&self) -> Duration {
        let document = self.state();
        document.map_or(Duration::from_secs(10), |document| end::patience(&document))
    }

    /// The state file of the subhost.
    fn state(&self) -> Option<Document> {
        self.subhost.as_ref()?.home.document().ok().flatten()
    }

    /// Runs the line on what is left, unless the process that stops the subhost does so.
    fn clean_up(&self) -> Result<()> {
        let Some(subhost) = &self.subhost else {
            return Ok(());
        };
        if is_being_stopped(&subhost.home) {
            return Ok(());
        }
        let document = self.state();
        let document = document.map_or_else(|| Document::new(&subhost.name), Ok)?;
        end::clean_up(&[&document], self.then)
    }

    /// Reports an error to the caller, as long as there is one; then to the log.
    fn report(&self, error: &anyhow::Error) {
        let Some(subhost) = &self.subhost else {
            return TOOL.complain(error);
        };
        if let Some(log) = &subhost.log
            && let Ok(mut log) = log.try_clone()
        {
            log::line(&mut log, &format!("{}: {}", TOOL.name, one_line(error)));
        }
    }
}

impl Subhost {
    /// Takes the lock of the document's subhost and pushes it to `store`; begins the log.
    fn lock(document: &Document, then: &str, store: &FdStore) -> Result<Self> {
        let name = document.name();
        let home = StateDir::of(name);
        let lock = loop {
            let lock = home.lock()?.with_context(|| running(&home))?;
            // Cleaning up removes the directory, and with it the file that we hold the lock on.
            let stopping = is_being_stopped(&home);
            if !end::clean_up_after(&home, name, then).context("clean up after a predecessor")? {
                break lock;
            }
            // If it was being stopped, overlay-stop would have cleaned up; we got the lock first. Nothing to report.
            if !stopping {
                TOOL.warn(&format!(
                    "{name}: cleaned up what a killed predecessor had left"
                ));
            }
        };
        let log = document.has("LOG").then(|| document.path("LOG"));
        let log = log
            .transpose()
            .and_then(|path| path.map(log::begin).transpose());
        let begun = log.and_then(|log| {
            store.push(&lock).context("store the lock")?;
            Ok(log)
        });
        let log = begun.inspect_err(|_| {
            let _ = home.remove();
        })?;
        Ok(Subhost {
            home,
            name: name.to_owned(),
            log,
            _lock: lock,
        })
    }

    /// Writes the first state file: whose subhost it is, and which guard it has.
    fn write_state(&self, document: &Document) -> Result<Document> {
        let mut state = Document::new(&self.name)?;
        for variable in ["CONFIG", "LOG", "confid"] {
            if let Some(value) = document.optional(variable) {
                state.set(variable, value);
            }
        }
        let pid = std::process::id();
        state.set("guard", pid);
        state.set("guardstart", identify(i32::try_from(pid)?)?.1);
        // Before the second stage runs, so a namespace that is there now is none of this boot.
        if netns::is_foreign(&self.name)? {
            state.set("netfound", true);
        }
        self.home.write(&state)?;
        Ok(state)
    }
}

/// The first process of the room: enters it and becomes the pipeline, printing to the caller.
/// Returns why it could not.
fn enter_room(
    pipeline: &Pipeline,
    store: &FdStore,
    cut: Cut,
    news: &Option<OwnedFd>,
) -> anyhow::Error {
    let entered = (|| {
        let _ = SigSet::empty().thread_set_mask();
        if let Some(news) = news {
            dup2_stdout(news)?;
        }
        // NAME is not known yet: ob-cable finds a namespace of that name through this guard.
        room::enter(Depth::One)
    })();
    match entered {
        Ok(()) => pipeline.run(store, cut),
        Err(error) => error,
    }
}

/// Writes the document to the pipe of the second stage without waiting for its reader: as much as
/// it is long the pipe holds.
fn hand_over(pipe: &OwnedFd, line: &[u8]) -> Result<()> {
    if line.len() > PIPE_SIZE {
        let size = i32::try_from(line.len())?;
        fcntl(pipe, FcntlArg::F_SETPIPE_SZ(size))?;
    }
    match nix::unistd::write(pipe, line) {
        // It has failed, and has reported why.
        Err(Errno::EPIPE) => Ok(()),
        written => Ok(written.map(drop)?),
    }
}

/// Blocks the signals that ask us to end, and `more`, for a descriptor that tells of them.
pub fn take_signals(more: &[Signal]) -> Result<SignalFd> {
    let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let mask: SigSet = ending.iter().chain(more).copied().collect();
    mask.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&mask, flags).context("wait for signals")
}
