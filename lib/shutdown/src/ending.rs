//! Ends any number of subhosts at the same time: a request to pid 1, TERM to every process, a
//! bounded wait, KILL.

use crate::request::{Answer, ask};
use crate::{KILL_TIMEOUT, guards, stop_timeout, terminator};
use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use ob_document::Document;
use ob_document::state::{StateDir, open_own_pid1};
use ob_sys::process::{Child, pidfd_signal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long pid 1 may take to exit when it is the last process.
const PID1_ALONE_GRACE: Duration = Duration::from_millis(200);

/// How long pid 1 may take to end the subhost by itself, as the reaper does, before the shutdown
/// helper is started. The helper takes longer than all the rest.
const PID1_GRACE: Duration = Duration::from_millis(20);

/// How often the command that asks pid 1 is looked at: std has no pidfd of it.
const REQUEST_POLL: Duration = Duration::from_millis(50);

/// The open files of a process that ends subhosts, and those for each subhost: pid 1, the shutdown
/// helper, the guard, two locks, and files that are open for a moment.
const OPEN_FILES_ALONE: u64 = 64;
const OPEN_FILES_EACH: u64 = 8;

/// The facts that differ between two boots of a subhost.
const BOOT_FACTS: [&str; 5] = ["guard", "guardstart", "pid", "pidns", "start"];

/// A subhost whose pid 1 was asked to end it.
pub struct Ending {
    pid1: OwnedFd,
    /// The command that asks pid 1.
    request: Option<std::process::Child>,
    /// When the shutdown helper signals every process; `None` as soon as it was started.
    signal_all_at: Option<Instant>,
    /// The shutdown helper. It exits with 0 when pid 1 is alone.
    terminator: Option<Child>,
    /// When pid 1 is killed, and then, when this process gives up.
    deadline: Instant,
    is_killed: bool,
}

/// Replaces the documents of subhosts that have ended by `None`.
///
/// A subhost has ended if the state file belongs to another boot than the document.
#[must_use]
pub fn current(documents: &[Document]) -> Vec<Option<&Document>> {
    let documents = documents.iter();
    documents
        .map(|document| Some(document).filter(|document| !is_of_another_boot(document)))
        .collect()
}

fn is_of_another_boot(document: &Document) -> bool {
    let state = StateDir::of(document.name()).document().ok().flatten();
    let differs = |state: &Document, fact| {
        document.has(fact) && document.number(fact).ok() != state.number(fact).ok()
    };
    state.is_some_and(|state| BOOT_FACTS.iter().any(|fact| differs(&state, fact)))
}

/// Ends the subhosts, also if they are starting. Their guards clean up. Returns a result for each
/// document.
#[must_use]
pub fn end(documents: &[Document]) -> Vec<Result<()>> {
    raise_open_files(documents.len());
    let documents = current(documents);
    let endings = begin(&documents);
    wait_for_exit(&documents, endings)
}

/// Raises the limit of open files of this process for the end of `count` subhosts.
pub fn raise_open_files(count: usize) {
    let needed = OPEN_FILES_ALONE + OPEN_FILES_EACH * count as u64;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if soft < needed {
            // Only a process with CAP_SYS_RESOURCE may raise the hard limit.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))
                .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
        }
    }
}

/// Ends the subhost of this pid 1.
pub fn end_pid1(document: &Document, pid1: OwnedFd) -> Result<()> {
    let mut ending = [Some(Ending::of_pid1(document, pid1))];
    wait_for_pid1s(&mut ending);
    result(document, &ending[0])
}

/// Asks pid 1 of each subhost to end it. The result is `None` for a subhost that does not run.
#[must_use]
pub fn begin(documents: &[Option<&Document>]) -> Vec<Result<Option<Ending>>> {
    // The more subhosts end at the same time, the longer each of them takes.
    let factor = u32::try_from(1 + documents.len() / 10).unwrap_or(u32::MAX);
    let grace = PID1_GRACE.saturating_mul(factor);
    let begun = documents.iter().map(|document| {
        let Some(document) = document else {
            return Ok(None);
        };
        let pid1 = open_own_pid1(document)?;
        Ok(pid1.map(|pid1| Ending::begin(document, pid1, grace)))
    });
    begun.collect()
}

/// Waits until the subhosts have ended, and cancels the boot of subhosts without a pid 1.
///
/// `begun` are the results of [`begin`] for `documents`. Returns a result for each document.
#[must_use]
pub fn wait_for_exit(
    documents: &[Option<&Document>],
    begun: Vec<Result<Option<Ending>>>,
) -> Vec<Result<()>> {
    let mut endings = Vec::new();
    let mut errors = Vec::new();
    for outcome in begun {
        let (ending, error) = outcome.map_or_else(|error| (None, Err(error)), |it| (it, Ok(())));
        endings.push(ending);
        errors.push(error);
    }
    wait_for_pid1s(&mut endings);
    let ended = documents.iter().zip(&endings).zip(errors);
    let ended = ended.map(|((document, ending), error)| {
        let Some(document) = document else {
            return Ok(());
        };
        error?;
        result(document, ending)?;
        if open_own_pid1(document)?.is_none() {
            guards::cancel(document);
        }
        Ok(())
    });
    ended.collect()
}

/// Waits until each pid 1 has exited or is overdue. The `endings` that are finished become `None`.
fn wait_for_pid1s(endings: &mut [Option<Ending>]) {
    while endings.iter().flatten().any(|ending| !ending.is_overdue()) {
        wait(endings);
        for ending in &mut *endings {
            ending.take_if(Ending::has_ended);
        }
    }
}

fn result(document: &Document, ending: &Option<Ending>) -> Result<()> {
    ending
        .as_ref()
        .map_or(Ok(()), |ending| bail!(ending.message(document)))
}

impl Ending {
    /// Asks this pid 1 to end its subhost.
    #[must_use]
    pub fn of_pid1(document: &Document, pid1: OwnedFd) -> Self {
        Ending::begin(document, pid1, PID1_GRACE)
    }

    /// Asks pid 1 to end the subhost. A custom pid 1 has STOP_TIMEOUT for that,
    /// ob-reaper has `grace`.
    /// After that, all other processes get TERM, and STOP_TIMEOUT until pid 1 is killed.
    fn begin(document: &Document, pid1: OwnedFd, grace: Duration) -> Self {
        let timeout = stop_timeout(document);
        let (request, respite) = match ask(document, &pid1) {
            Answer::Default => (None, Duration::ZERO),
            Answer::Handled => (None, timeout),
            Answer::Running(command) => (Some(command), timeout),
        };
        let now = Instant::now();
        Ending {
            pid1,
            request,
            signal_all_at: Some(now + grace.max(respite)),
            terminator: None,
            deadline: now + respite + timeout,
            is_killed: false,
        }
    }

    /// Returns whether pid 1 has exited. Kills it if it is alone, or if the time is up.
    ///
    /// Must be called every few milliseconds, or when a helper has exited.
    pub fn has_ended(&mut self) -> bool {
        if is_readable(&self.pid1) {
            self.kill_helpers();
            return true;
        }
        if self.request_has_failed() {
            let _ = pidfd_signal(&self.pid1, Signal::SIGTERM);
            self.signal_all_at = self.signal_all_at.map(|due| due.min(Instant::now()));
        }
        if self.signal_all_at.is_some_and(|due| Instant::now() >= due) {
            self.signal_all_at = None;
            self.terminator = terminator::start(&self.pid1).ok();
        }
        // The kernel does not end pid 1 before each process of its pid namespace has been waited
        // for, see zap_pid_ns_processes(); a child of the terminator is one of these.
        if let Some(child) = self.terminator.take_if(|child| is_readable(&child.pidfd)) {
            let ended = waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED);
            if matches!(ended, Ok(WaitStatus::Exited(_, 0))) {
                self.deadline = self.deadline.min(Instant::now() + PID1_ALONE_GRACE);
            }
        }
        if Instant::now() >= self.deadline && !self.is_killed {
            let _ = pidfd_signal(&self.pid1, Signal::SIGKILL);
            self.is_killed = true;
            self.deadline = Instant::now() + KILL_TIMEOUT;
        }
        false
    }

    /// Returns true once if the command that asks pid 1 has failed.
    fn request_has_failed(&mut self) -> bool {
        let exited = self.request.as_mut().map(std::process::Child::try_wait);
        let Some(Ok(Some(status))) = exited else {
            return false;
        };
        self.request = None;
        !status.success()
    }

    /// Ends the shutdown helper and the command. Their children inside have exited with pid 1.
    fn kill_helpers(&mut self) {
        if let Some(mut command) = self.request.take() {
            let _ = command.kill();
        }
        if let Some(child) = self.terminator.take() {
            let _ = pidfd_signal(&child.pidfd, Signal::SIGKILL);
            let _ = waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED);
        }
    }

    /// Returns whether pid 1 has been killed for [`KILL_TIMEOUT`], and has not exited.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.is_killed && Instant::now() >= self.deadline
    }

    /// Returns the error for a subhost that is overdue.
    #[must_use]
    pub fn message(&self, document: &Document) -> String {
        let pid = document.number("pid").unwrap_or_default();
        format!("pid 1, {pid}, does not exit after SIGKILL: it waits in the kernel")
    }

    /// Returns the time until [`Ending::has_ended`] must be called again.
    fn until_due(&self) -> Duration {
        let due = self
            .signal_all_at
            .unwrap_or(self.deadline)
            .min(self.deadline);
        let left = due.saturating_duration_since(Instant::now());
        if self.request.is_some() {
            left.min(REQUEST_POLL)
        } else {
            left
        }
    }
}

/// Waits until a pid 1 or a helper has exited, or for the next deadline.
fn wait(endings: &[Option<Ending>]) {
    let mut events = Vec::new();
    let mut next = Duration::from_secs(1);
    for ending in endings.iter().flatten().filter(|it| !it.is_overdue()) {
        events.push(PollFd::new(ending.pid1.as_fd(), PollFlags::POLLIN));
        if let Some(child) = &ending.terminator {
            events.push(PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN));
        }
        next = next.min(ending.until_due());
    }
    let milliseconds = u16::try_from(next.as_millis() + 1).unwrap_or(1000);
    let _ = poll(&mut events, PollTimeout::from(milliseconds));
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut event = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut event, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
