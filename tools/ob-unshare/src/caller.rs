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
use ob_document::{Silent, Usage};
use ob_sys::process::{Child, pidfd_signal, spawn};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::process::ExitCode;

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
