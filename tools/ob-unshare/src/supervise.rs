//! The stage: starts pid 1, tells of it, and stays: to keep the log, to end the subhost when told to, to pass on its end.

use crate::cgroup_events::LimitEvents;
use crate::confine::Confinement;
use crate::facts::Facts;
use crate::init::{REAPER_FD, Reaper, stop_timeout, text};
use crate::inside::{self, NAMESPACES, Plan};
use crate::logger::Logger;
use crate::relay::Relay;
use crate::{cgroup, userns};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2};
use ob_document::state::{self, Lock, StateDir};
use ob_document::{Document, Tool, netns, receive, send};
use ob_shutdown::{FACTS, ending::end_pid1};
use ob_sys::fdstore::FdStore;
use ob_sys::process::{Child, Namespaces, pidfd_open, pidfd_signal, spawn};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

/// Where programs are looked for inside.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A subhost that has just begun.
struct Subhost {
    child: Child,
    /// What it prints, the reading end; none if that is copied to the supervisor's own output.
    output: Option<File>,
    relay: Option<Relay>,
    logger: Logger,
}

/// Starts the subhost of the document on stdin, and supervises it until its end. With a `command` that is pid 1, and its status
/// is ours.
pub fn start(tool: &Tool, command: &[OsString]) -> Result<ExitCode> {
    // Before the document, which the stages before us are still at work on.
    let reaper = Reaper::provide();
    let mut document = receive()?;
    document.forget(FACTS);
    let name = document.name().to_owned();
    let held = Held::of(&document).with_context(|| name.clone())?;
    let home = StateDir::of(&name);
    let begun = reaper
        .and_then(|reaper| begin(&mut document, command, &reaper, held.is_guarded()))
        .and_then(|subhost| subhost.unless(home.write(&document)))
        .or_else(|error| ob_document::log::failure(tool, &document, error));
    let subhost = match begun {
        Ok(subhost) => subhost,
        Err(error) => {
            held.clean_up(&document, &home)?;
            let status = error.downcast_ref::<NotBegun>().map(|error| error.status);
            let error = error.context(name);
            return match status.filter(|_| !command.is_empty()) {
                None => Err(error),
                Some(status) => {
                    tool.complain(&error);
                    Ok(ExitCode::from(status))
                }
            };
        }
    };
    let mut subhost = subhost.unless(step_back(&held, &document, command.is_empty()))?;
    let relay = subhost.relay.take();
    let status = supervise(&document, subhost)?;
    held.clean_up(&document, &home)?;
    relay.as_ref().map_or(Ok(()), Relay::finish)?;
    Ok(if command.is_empty() {
        ExitCode::SUCCESS
    } else {
        status
    })
}

/// Leaves the room, and with `ready` tells that the subhost is up.
fn step_back(held: &Held, document: &Document, ready: bool) -> Result<()> {
    if let Some(host) = &held.host {
        // The kernel takes back the mounts of the room, now that the subhost has its own.
        setns(host, CloneFlags::CLONE_NEWNS).context("leave the room")?;
    }
    if ready {
        send(document)?;
        let_go_of_the_caller()?;
    }
    Ok(())
}

impl Subhost {
    /// Goes on with it, unless that has failed for which it was started: then ends it, for nobody would.
    fn unless(self, outcome: Result<()>) -> Result<Self> {
        match outcome {
            Ok(()) => Ok(self),
            Err(error) => {
                let _ = pidfd_signal(&self.child.pidfd, Signal::SIGKILL);
                let _ = waitid(Id::PIDFd(self.child.pidfd.as_fd()), WaitPidFlag::WEXITED);
                Err(error)
            }
        }
    }
}

/// What the supervisor holds as long as it lives.
struct Held {
    /// The way out of the room.
    host: Option<OwnedFd>,
    /// The locks that the room has kept: on the name, on LIVE and UPPER.
    _kept: Vec<OwnedFd>,
    /// The lock on the name, if no guard has taken it: then the state is ours to remove.
    own: Option<Lock>,
}

impl Held {
    fn of(document: &Document) -> Result<Self> {
        let store = FdStore::from_environment().context("open the fd store of the room")?;
        let mut kept = match store {
            Some(store) => store.drain().context("drain the fd store of the room")?,
            None => Vec::new(),
        };
        let host = (!kept.is_empty()).then(|| kept.remove(0));
        let home = StateDir::of(document.name());
        let own = if kept.iter().any(|lock| home.is_lock(lock)) {
            None
        } else {
            Some(home.lock()?.with_context(|| home.in_use_message())?)
        };
        Ok(Held {
            host,
            _kept: kept,
            own,
        })
    }

    /// Whether a guard has the lock on the name too, and cleans up.
    fn is_guarded(&self) -> bool {
        self.own.is_none()
    }

    /// Removes the control group, and the state if no guard does. A group that is still busy needs
    /// the state, by which it is found again.
    fn clean_up(&self, document: &Document, home: &StateDir) -> Result<()> {
        if ob_shutdown::cgroup::remove(document).is_ok() && !self.is_guarded() {
            home.remove()?;
        }
        Ok(())
    }
}

/// Why pid 1 is not what it was to become, and its status, that of env(1).
#[derive(Debug)]
struct NotBegun {
    status: u8,
    why: String,
}

impl std::fmt::Display for NotBegun {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for NotBegun {}

/// Starts pid 1 and notes it in the document. Returns once it has become what it is to be.
fn begin(
    document: &mut Document,
    command: &[OsString],
    reaper: &Reaper,
    guarded: bool,
) -> Result<Subhost> {
    let Facts { ids, net } = Facts::of(document)?;
    let words = if command.is_empty() {
        let text = text(document, &reaper.path)?;
        vec![c"/bin/sh".into(), c"-c".into(), CString::new(text)?]
    } else {
        let words = command.iter().cloned().map(OsString::into_vec);
        words.map(CString::new).collect::<Result<_, _>>()?
    };
    let logger = Logger::open(document)?;
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
    let (news, teller) = high_pipe()?;
    let confinement = Confinement::of(document, ids.is_some())?;
    let mut relay = (!command.is_empty()).then(Relay::new).transpose()?;
    let plan = Plan {
        supervisor: pidfd_open(Pid::this()).context("open ourselves")?,
        root: document.path("root")?.to_owned(),
        net,
        ids,
        command: words,
        environment: environment(document, reaper, &confinement)?,
        confinement,
        output: relay.as_ref().map_or([writing.as_fd(); 2], Relay::ends),
        reaper: reaper.copy.as_ref().map(|copy| (copy.as_fd(), REAPER_FD)),
    };
    if !guarded {
        mark_network(document)?;
    }
    let group = cgroup::make(document)?;
    let run = || {
        let (status, error) = inside::become_pid_1(&plan);
        let message = ob_document::one_line(&error);
        let _ = File::from(teller.try_clone().expect("a descriptor")).write_all(message.as_bytes());
        status
    };
    let child = match plan.ids {
        None => in_namespaces(0, group.as_ref(), run),
        Some(ids) => userns::start(ids, &plan, group.as_ref(), run),
    }?;
    drop((teller, writing));
    relay.iter_mut().for_each(Relay::close_ends);
    // Exec closes the teller: nothing to read means that the shell has begun.
    let mut message = String::new();
    File::from(news).read_to_string(&mut message)?;
    if !message.is_empty() {
        let status = match waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)? {
            WaitStatus::Exited(_, status) => u8::try_from(status).unwrap_or(125),
            _ => 125,
        };
        bail!(NotBegun {
            status,
            why: message
        });
    }
    let pid = child.pid.as_raw();
    match state::identify(pid) {
        Ok((pidns, start)) => {
            document.set("pidns", pidns);
            document.set("start", start);
        }
        // So short was its life that the supervisor only has to tell of its end.
        Err(error) => drop(error),
    }
    document.set("pid", pid);
    // What the guard has written stays true.
    if let Some(state) = StateDir::of(document.name()).document()?
        && guarded
    {
        document.take_over(&state, &["guard", "guardstart", "netfound"]);
    }
    let output = command.is_empty().then(|| File::from(reading));
    Ok(Subhost {
        child,
        output,
        relay,
        logger,
    })
}

/// Marks the name of the network namespace as made for this subhost, if the stage that has noted it
/// does not say that it was there before. A guard knows that by itself.
fn mark_network(document: &Document) -> Result<()> {
    let name = document.name();
    let is_named = document
        .path("net")
        .is_ok_and(|net| net == netns::path(name));
    if is_named && !document.has("netfound") {
        netns::mark(name)?;
    }
    Ok(())
}

/// A pipe above the numbers that pid 1 is given, so that it can still tell of an exec that has failed.
fn high_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut low = Vec::new();
    loop {
        let pipe = pipe2(OFlag::O_CLOEXEC)?;
        if pipe.0.as_raw_fd().min(pipe.1.as_raw_fd()) > REAPER_FD {
            return Ok(pipe);
        }
        low.push(pipe);
    }
}

/// Makes a child in the new namespaces that pid 1 has, and `more`.
pub fn in_namespaces(
    more: Namespaces,
    group: Option<&File>,
    run: impl Fn() -> u8,
) -> Result<Child> {
    let namespaces = NAMESPACES | more;
    let group = group.map(AsFd::as_fd);
    match spawn(namespaces, group, &run) {
        // A kernel built without time namespaces.
        Err(Errno::EINVAL) => spawn(namespaces & !libc::CLONE_NEWTIME, group, &run),
        child => child,
    }
    .context("start pid 1 in new namespaces")
}

/// All that pid 1 finds in its environment: nothing of the caller's but its language, and what the configuration sets.
fn environment(
    document: &Document,
    reaper: &Reaper,
    confinement: &Confinement,
) -> Result<Vec<CString>> {
    let mut variables = vec![
        format!("PATH={PATH}"),
        "HOME=/root".to_owned(),
        "container=overlay-boot".to_owned(),
        format!("NAME={}", document.name()),
    ];
    if document.has("INIT") {
        variables.push(format!("REAPER={}", reaper.path));
        variables.push(format!("STOP_TIMEOUT={}", stop_timeout(document)));
    }
    for name in ["LANG", "TERM", "TZ"] {
        if let Ok(value) = std::env::var(name) {
            variables.push(format!("{name}={value}"));
        }
    }
    confinement.extend(&mut variables);
    variables
        .into_iter()
        .map(|variable| CString::new(variable).map_err(|_| anyhow!("a zero byte in a variable")))
        .collect()
}

/// Whoever waits for us to close what we have from the caller has waited long enough: the subhost is up.
fn let_go_of_the_caller() -> Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(nix::unistd::chdir("/")?)
}

/// Waits for the end of pid 1, copying what the subhost prints; told to end, ends it.
fn supervise(document: &Document, mut subhost: Subhost) -> Result<ExitCode> {
    let mask: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect();
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    subhost
        .logger
        .say(&format!("pid 1 has started, as {}", subhost.child.pid));
    let mut watch = LimitEvents::of(document)?;
    loop {
        let mut events = vec![
            PollFd::new(subhost.child.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        let limits = watch.files();
        events.extend(limits.map(|file| PollFd::new(file, PollFlags::POLLPRI)));
        let output = events.len();
        if let Some(output) = &subhost.output {
            events.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut events, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled.context("wait")?,
        };
        let ready: Vec<bool> = events
            .iter()
            .map(|event| event.revents().is_some_and(|events| !events.is_empty()))
            .collect();
        if ready.get(output) == Some(&true) {
            copy(&mut subhost);
        }
        if ready[2..output].contains(&true) {
            tell(&mut watch, &mut subhost.logger, false);
        }
        if ready[0] {
            break;
        }
        if ready[1] && signals.read_signal()?.is_some() {
            subhost.logger.say("told to end");
            let pid_1 = subhost.child.pidfd.try_clone()?;
            if let Err(error) = end_pid1(document, pid_1) {
                subhost.logger.say(&ob_document::one_line(&error));
            }
        }
    }
    // All that it printed is in the pipe, and nobody is left to write more.
    while copy(&mut subhost) {}
    tell(&mut watch, &mut subhost.logger, true);
    let status = waitid(Id::PIDFd(subhost.child.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    let (code, text) = match status {
        WaitStatus::Signaled(_, signal, _) => (
            128 + signal as i32,
            format!("pid 1 was ended by {}", signal.as_str()),
        ),
        WaitStatus::Exited(_, code) => (code, format!("pid 1 has ended with status {code}")),
        other => (125, format!("pid 1 has ended: {other:?}")),
    };
    subhost.logger.say(&text);
    subhost.logger.flush();
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)))
}

fn tell(watch: &mut LimitEvents, logger: &mut Logger, end: bool) {
    for news in watch.news(end) {
        logger.say(&news);
    }
}

/// Copies what is in the pipe; tells whether there was anything. At its end, it is closed.
fn copy(subhost: &mut Subhost) -> bool {
    let Some(output) = &mut subhost.output else {
        return false;
    };
    let mut waiting = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
    if poll(&mut waiting, PollTimeout::ZERO) == Ok(0) {
        return false;
    }
    let mut buffer = [0; 4096];
    match output.read(&mut buffer) {
        Ok(0) | Err(_) => {
            subhost.output = None;
            false
        }
        Ok(length) => {
            subhost.logger.take(&buffer[..length]);
            true
        }
    }
}
