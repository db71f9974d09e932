//! The caller of a guard: starts the guard, and waits until the subhost is up.

use crate::configured::VARIABLE;
use crate::exit_status;
use crate::guard::Guard;
use crate::notify;
use crate::pipeline::Pipeline;
use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::pipe2;
use ob_document::{Document, Silent, Tool};
use ob_shutdown::block_termination_signals;
use ob_sys::process::{Child, pidfd_signal, spawn};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::process::ExitCode;

/// Runs `pipeline` in a guarded room, and waits until the last stage has printed the document.
///
/// Returns 0 then, and 1 if every process of the room has exited without. With `foreground` it
/// stays until the room has ended. TERM, INT and HUP end the subhost. When the subhost is up, a
/// newline is written to the descriptor `notify`, and READY=1 is sent to the socket of
/// sd_notify(3).
///
/// The document that the first stage prints names the subhost. At the end the guard runs the
/// command `cleanup`.
pub fn run_guarded(
    tool: &Tool,
    pipeline: &Pipeline,
    cleanup: Option<&str>,
    foreground: bool,
    notify: Option<RawFd>,
) -> Result<ExitCode> {
    let (status_rx, status_tx) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let mut guard = Guard::new(tool, cleanup, status_tx)?;
    // Blocked before the guard starts: a signal that ends this process alone would leave the boot
    // without a caller.
    let signals = block_termination_signals(&[])?;
    let child = spawn(0, None, || guard.run(pipeline)).context("start the guard")?;
    drop(guard);

    let mut status = Lines::new(status_rx);
    let state = status.next(&signals, &child)?;
    let state = state.and_then(|line| Document::parse(&line).ok());
    let is_configured = state.as_ref().is_some_and(|state| state.has(VARIABLE));
    let report = |document: &str| {
        if is_configured {
            check_last_stage(document)?;
        }
        let printed = std::io::stdout().write_all(document.as_bytes());
        let printed = printed.context("print the document");
        printed.and_then(|()| notify::ready(notify))
    };
    let outcome = wait_ready(status, &signals, &child, foreground, report);
    match state {
        Some(state) => outcome.context(state.name().to_owned()),
        None => outcome,
    }
}

/// Fails if the last stage of PIPELINE, which may be any program, has started no pid 1.
fn check_last_stage(line: &str) -> Result<()> {
    let document = Document::parse(line).ok();
    ensure!(
        document.is_some_and(|document| document.number("pid").is_ok()),
        "the last stage of PIPELINE printed no pid; end PIPELINE with ob-unshare"
    );
    Ok(())
}

/// Waits until the subhost is up, and calls `report`.
///
/// With `foreground`, or if the boot fails, waits for the guard too.
fn wait_ready(
    mut status: Lines,
    signals: &SignalFd,
    guard: &Child,
    foreground: bool,
    report: impl FnOnce(&str) -> Result<()>,
) -> Result<ExitCode> {
    let document = status.next(signals, guard)?;
    let reported = document.as_deref().map_or(Ok(()), report);
    if reported.is_err() {
        // The caller would not know that the subhost runs.
        let _ = pidfd_signal(&guard.pidfd, Signal::SIGTERM);
    }
    drop(status);
    let is_up = document.is_some();
    if is_up && reported.is_ok() && !foreground {
        return Ok(ExitCode::SUCCESS);
    }
    let end = wait_for_guard(guard, signals)?;
    reported?;
    if is_up {
        return after_run(end);
    }
    Err(why_not_up(end))
}

/// Returns the exit status for a guard that has ended after the subhost was up.
fn after_run(guard: WaitStatus) -> Result<ExitCode> {
    match guard {
        // A stage that a hook has left may be killed at the end.
        WaitStatus::Exited(_, 0 | exit_status::INTERRUPTED | exit_status::STAGE_KILLED) => {
            Ok(ExitCode::SUCCESS)
        }
        WaitStatus::Exited(_, exit_status::LAST_STAGE_FAILED) => {
            bail!("pid 1 has failed; overlay-log prints how it ended")
        }
        WaitStatus::Exited(_, exit_status::LAST_STAGE_KILLED) => bail!("its supervisor was killed"),
        WaitStatus::Signaled(_, signal, _) => bail!("its guard was ended by {}", signal.as_str()),
        _ => bail!("its guard has failed; overlay-log prints why"),
    }
}

/// Returns the error for a guard that has ended before the subhost was up.
fn why_not_up(guard: WaitStatus) -> Error {
    match guard {
        WaitStatus::Exited(_, exit_status::INTERRUPTED) => {
            anyhow!("a signal ended it while it was starting")
        }
        WaitStatus::Exited(_, exit_status::STAGE_KILLED | exit_status::LAST_STAGE_KILLED) => {
            anyhow!("a process of its boot was killed")
        }
        WaitStatus::Signaled(_, signal, _) => {
            anyhow!("its guard was ended by {}", signal.as_str())
        }
        WaitStatus::Exited(_, exit_status::REASON_IN_LOG) => {
            anyhow!("its guard has failed; overlay-log prints why")
        }
        // The process that failed has reported why.
        _ => anyhow!(Silent),
    }
}

/// The lines that the guard and the last stage print.
struct Lines {
    pipe: File,
    read: Vec<u8>,
}

impl Lines {
    fn new(pipe: OwnedFd) -> Self {
        let (pipe, read) = (File::from(pipe), Vec::new());
        Lines { pipe, read }
    }

    /// Reads the next line; returns `None` at the end of the pipe. Meanwhile, TERM, INT and HUP are
    /// sent to the guard.
    fn next(&mut self, signals: &SignalFd, guard: &Child) -> Result<Option<String>> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).collect();
                return Ok(Some(String::from_utf8(line).context("read the document")?));
            }
            if wait_for(&self.pipe, signals, guard)? {
                match self.pipe.read(&mut buffer)? {
                    0 => return Ok(None),
                    length => self.read.extend_from_slice(&buffer[..length]),
                }
            }
        }
    }
}

/// Waits until the guard has exited. Meanwhile, TERM, INT and HUP are sent to it.
fn wait_for_guard(guard: &Child, signals: &SignalFd) -> Result<WaitStatus> {
    while !wait_for(&guard.pidfd, signals, guard)? {}
    Ok(waitid(
        Id::PIDFd(guard.pidfd.as_fd()),
        WaitPidFlag::WEXITED,
    )?)
}

/// Waits until `awaited` is readable, and returns true, or for a signal, which is sent to the guard
/// as TERM.
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
