//! The guard: stays outside the room of one subhost, in the background, and cleans up when the room has ended, however it did.
//!
//! The caller waits for the document and returns; the guard, its child, is the reaper of all that happens in the room; the
//! room's first process, a child of the guard, starts the stages beside itself and becomes the last one.

use crate::hurry::Hurry;
use crate::pipeline::Pipeline;
use crate::supervise::running;
use crate::title::show_as;
use crate::{TOOL, end, room};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use ob_document::state::{Home, Lock, identify, prove};
use ob_document::{Document, log, sentence};
use ob_sys::keep::Keep;
use ob_sys::process::{pidfd_open, pidfd_signal, spawn};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long what a hook has left running in the room may take to end when the subhost has.
const LEFT_OVER: Duration = Duration::from_secs(2);

/// How long the stages may take to end when they are told to, above what the subhost itself may.
pub const CANCELLED: Duration = Duration::from_secs(15);

/// The guard's statuses where no process of the boot could tell why there is no subhost.
pub const INTERRUPTED: i32 = 2;
pub const KILLED: i32 = 3;

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
pub struct Guard<'a> {
    /// Where the subhost's state lies.
    pub home: Home,
    name: &'a str,
    then: &'a str,
    keep: Keep,
    log: Option<File>,
    _lock: Lock,
}

impl<'a> Guard<'a> {
    /// Takes the lock of the subhost, cleans up after a predecessor that was killed, begins the log, and lays down a document
    /// that tells who we are: from here on the subhost is starting.
    pub fn new(name: &'a str, then: &'a str) -> Result<Self> {
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
                TOOL.warn(&format!(
                    "{name}: cleaned up what a killed predecessor had left"
                ));
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
    pub fn run(&self, pipeline: &Pipeline, teller: impl AsFd) -> u8 {
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
        for variable in ["CONFIG", "LOG", "confid"] {
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

/// Blocks the signals that ask us to end, and `more`, for a descriptor that tells of them.
pub fn take_signals(more: &[Signal]) -> Result<SignalFd> {
    let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let mask: SigSet = ending.iter().chain(more).copied().collect();
    mask.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&mask, flags).context("wait for signals")
}
