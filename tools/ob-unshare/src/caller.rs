//! Who asks for a guarded room: waits for the document, and returns.

use crate::guard::{Guard, INTERRUPTED, KILLED, take_signals};
use crate::notify;
use crate::pipeline::Pipeline;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::pipe2;
use ob_document::{Document, Silent};
use ob_sys::process::{Child, pidfd_signal, spawn};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::process::ExitCode;

/// Runs `pipeline` in a guarded room. Returns when it has printed the document (0), or when it has ended without and nothing is left
/// of it (1). With `foreground` it stays until the room has ended, passing on the signals that ask for that. Whoever waits at
/// `notify`, or at the socket of sd_notify(3), is told when it is up.
///
/// The subhost is the one of the document that the first stage prints.
pub fn guard(
    pipeline: &Pipeline,
    then: &str,
    foreground: bool,
    notify: Option<RawFd>,
) -> Result<ExitCode> {
    let (news, teller) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let mut guard = Guard::new(then, teller)?;
    // Before there is anything to end, so that none of them ends us alone and leaves the boot to itself.
    let signals = take_signals(&[])?;
    let child = spawn(0, None, || guard.run(pipeline)).context("start the guard")?;
    drop(guard);

    let mut news = Lines::new(news);
    let state = news.next(&signals, &child)?;
    let name = state.and_then(|line| Document::parse(&line).ok());
    let name = name.map(|document| document.name().to_owned());
    let outcome = wait(news, &signals, &child, foreground, notify);
    match name {
        Some(name) => outcome.context(name),
        None => outcome,
    }
}

/// Waits until the subhost is up, and announces that; with `foreground`, or if there is none,
/// until its guard has ended.
fn wait(
    mut news: Lines,
    signals: &SignalFd,
    guard: &Child,
    foreground: bool,
    notify: Option<RawFd>,
) -> Result<ExitCode> {
    let document = news.next(signals, guard)?;
    let announced = document.as_ref().map_or(Ok(()), |document| {
        let printed = std::io::stdout().write_all(document.as_bytes());
        let printed = printed.context("print the document");
        printed.and_then(|()| notify::ready(notify))
    });
    if announced.is_err() {
        // A subhost that cannot be announced would be one that nothing knows of.
        let _ = pidfd_signal(&guard.pidfd, Signal::SIGTERM);
    }
    drop(news);
    let up = document.is_some();
    if up && announced.is_ok() && !foreground {
        return Ok(ExitCode::SUCCESS);
    }
    let end = stay(guard, signals)?;
    announced?;
    if up {
        return Ok(ExitCode::SUCCESS);
    }
    match end {
        WaitStatus::Exited(_, INTERRUPTED) => bail!("told to end while it was starting"),
        WaitStatus::Exited(_, KILLED) => bail!("a process of its boot was killed"),
        WaitStatus::Signaled(_, signal, _) => {
            bail!("its guard was ended by {}", signal.as_str())
        }
        // The process that failed has reported why.
        _ => bail!(Silent),
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

    /// Reads the next line; none at the end. Meanwhile passes TERM, INT and HUP on to the guard,
    /// which then ends.
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
