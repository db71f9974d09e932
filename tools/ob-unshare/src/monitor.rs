//! Watches a running subhost: writes its log, ends it on a signal, waits for the exit of pid 1.

use crate::cgroup_events::LimitEvents;
use crate::logger::Logger;
use crate::start::Subhost;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use ob_document::Document;
use ob_document::state::StateDir;
use ob_shutdown::ending::Ending;
use ob_shutdown::{block_termination_signals, guards};
use std::io::Read;
use std::os::fd::AsFd;

/// How often a subhost that ends is looked at. The exit of pid 1 is noticed at once.
const ENDING_POLL: u16 = 20;

/// How a subhost has ended.
pub struct End {
    /// The exit status of pid 1; 128 plus the number of a signal that has killed it.
    pub status: u8,
    /// 1 if pid 1 has failed, and no process had asked it to end.
    pub status_of_stage: u8,
}

/// Waits until pid 1 has exited, and meanwhile writes its output to the log. TERM, INT and HUP end
/// the subhost.
pub fn wait(document: &Document, mut subhost: Subhost) -> Result<End> {
    let signals = block_termination_signals(&[])?;
    let started = format!("pid 1 has started, as {}", subhost.child.pid);
    subhost.logger.say(&started);
    let mut limits = LimitEvents::of(document)?;
    let mut is_asked = false;
    let mut ending: Option<Ending> = None;
    loop {
        let timeout = ending.as_ref().map(|_| PollTimeout::from(ENDING_POLL));
        let ready = poll_all(&subhost, &signals, &limits, timeout)?;
        if ready.output {
            copy_output(&mut subhost);
        }
        if ready.console {
            copy_console(&mut subhost);
        }
        if ready.limits {
            log_limit_events(&mut limits, &mut subhost.logger, false);
        }
        if ready.pid1 {
            break;
        }
        if ready.signals && signals.read_signal()?.is_some() && ending.is_none() {
            subhost.logger.say("ending the subhost after a signal");
            is_asked = true;
            let pid1 = subhost.child.pidfd.try_clone()?;
            ending = Some(Ending::of_pid1(document, pid1));
        }
        ending.take_if(Ending::has_ended);
        if let Some(overdue) = ending.take_if(|ending| ending.is_overdue()) {
            subhost.logger.say(&overdue.message(document));
        }
    }
    // The kernel has killed every writer, so the rest of the output is in the pipe.
    while copy_output(&mut subhost) {}
    while copy_console(&mut subhost) {}
    log_limit_events(&mut limits, &mut subhost.logger, true);
    let status = waitid(Id::PIDFd(subhost.child.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    is_asked |= guards::is_being_stopped(&StateDir::of(document.name()));
    let (code, text) = describe(status);
    subhost.logger.say(&text);
    subhost.logger.flush();
    Ok(End {
        status: u8::try_from(code).unwrap_or(125),
        status_of_stage: u8::from(!is_asked && has_failed(status)),
    })
}

/// Returns whether pid 1 has failed. The kernel ends pid 1 with INT or HUP after reboot(2) inside,
/// which is no failure.
fn has_failed(status: WaitStatus) -> bool {
    let by_reboot = |signal| matches!(signal, Signal::SIGINT | Signal::SIGHUP);
    match status {
        WaitStatus::Exited(_, code) => code != 0,
        WaitStatus::Signaled(_, signal, _) => !by_reboot(signal),
        _ => true,
    }
}

/// Which descriptors poll(2) has reported.
struct Ready {
    pid1: bool,
    signals: bool,
    limits: bool,
    output: bool,
    console: bool,
}

/// Waits for the exit of pid 1, a signal, a limit that was reached, output, or until `timeout`.
fn poll_all(
    subhost: &Subhost,
    signals: &SignalFd,
    limits: &LimitEvents,
    timeout: Option<PollTimeout>,
) -> Result<Ready> {
    let mut events = vec![
        PollFd::new(subhost.child.pidfd.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    let output = add(&mut events, subhost.output.as_ref());
    let console = add(&mut events, subhost.console.as_ref());
    let first_limit = events.len();
    let limits = limits.files();
    events.extend(limits.map(|file| PollFd::new(file, PollFlags::POLLPRI)));
    while let Err(error) = poll(&mut events, timeout.unwrap_or(PollTimeout::NONE)) {
        if error != Errno::EINTR {
            return Err(error).context("wait");
        }
    }
    let is_ready = |event: &PollFd| event.revents().is_some_and(|events| !events.is_empty());
    Ok(Ready {
        pid1: is_ready(&events[0]),
        signals: is_ready(&events[1]),
        output: output.is_some_and(|number| is_ready(&events[number])),
        console: console.is_some_and(|number| is_ready(&events[number])),
        limits: events[first_limit..].iter().any(is_ready),
    })
}

/// Adds the descriptor to `events`, and returns its index.
fn add<'a>(events: &mut Vec<PollFd<'a>>, fd: Option<&'a impl AsFd>) -> Option<usize> {
    events.push(PollFd::new(fd?.as_fd(), PollFlags::POLLIN));
    Some(events.len() - 1)
}

/// Returns the exit status for `status`, and the line for the log.
fn describe(status: WaitStatus) -> (i32, String) {
    match status {
        WaitStatus::Signaled(_, signal, _) => (
            128 + signal as i32,
            format!("pid 1 was ended by {}", signal.as_str()),
        ),
        WaitStatus::Exited(_, code) => (code, format!("pid 1 has ended with status {code}")),
        other => (125, format!("pid 1 has ended: {other:?}")),
    }
}

fn log_limit_events(limits: &mut LimitEvents, logger: &mut Logger, is_last: bool) {
    for line in limits.lines(is_last) {
        logger.say(&line);
    }
}

/// Copies available output to the log, and returns whether there was any. Closes the pipe at its
/// end.
fn copy_output(subhost: &mut Subhost) -> bool {
    let Some(output) = &mut subhost.output else {
        return false;
    };
    if !has_input(output) {
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

/// Copies available output of the console to the log, and returns whether there was any.
fn copy_console(subhost: &mut Subhost) -> bool {
    let Some(console) = subhost
        .console
        .as_mut()
        .filter(|console| has_input(*console))
    else {
        return false;
    };
    let mut buffer = [0; 4096];
    let Ok(length) = console.read(&mut buffer) else {
        // poll(2) would report the hangup again and again.
        subhost.console = None;
        return false;
    };
    // The terminal adds a carriage return to each line.
    let text: Vec<u8> = buffer[..length]
        .iter()
        .copied()
        .filter(|byte| *byte != b'\r')
        .collect();
    subhost.logger.take(&text);
    length > 0
}

fn has_input(file: &impl AsFd) -> bool {
    let mut event = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    poll(&mut event, PollTimeout::ZERO) != Ok(0)
}
