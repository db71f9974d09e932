//! Reads an output of the command in a thread, because a read can block although there is data.

use crate::descriptor::set_nonblocking;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

/// A pipe from the command, and a second pipe to which a thread copies its data for the proxy.
///
/// `sendfile(2)` from a terminal to a pipe waits for keys while it has the lock of the pipe
/// (`splice_file_to_pipe` in the kernel); cat(1) of busybox does this. A read of the pipe then
/// waits for that lock, although `poll(2)` reports data. If the proxy read the first pipe, it
/// would wait for keys that only the proxy passes on.
pub struct Relay {
    from: OwnedFd,
    to: File,
}

impl Relay {
    /// Returns a relay, the end of the first pipe for the command, and that of the second for the
    /// proxy. Fails if `pipe2(2)` does.
    pub fn new() -> nix::Result<(Self, OwnedFd, OwnedFd)> {
        let (from, writing) = pipe2(OFlag::O_CLOEXEC)?;
        let (reading, to) = pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(&from)?;
        set_nonblocking(&reading)?;
        let to = File::from(to);
        Ok((Relay { from, to }, writing, reading))
    }

    /// Copies until the command has closed the first pipe, until the proxy has closed the second,
    /// or until the other end of the pipe `stop` is closed and all data is copied.
    fn copy(self, stop: &OwnedFd) {
        let mut buffer = [0; 16 * 1024];
        while let Some(is_stopped) = self.wait(stop) {
            match read(&self.from, &mut buffer) {
                Ok(length @ 1..) if (&self.to).write_all(&buffer[..length]).is_ok() => {}
                // Another process has opened the pipe, and has read the data.
                Err(Errno::EAGAIN) if !is_stopped => {}
                _ => break,
            }
        }
    }

    /// Waits for data or the stop, and returns whether it is stopped; `None` if the proxy has
    /// closed the second pipe.
    fn wait(&self, stop: &OwnedFd) -> Option<bool> {
        let mut events = [
            PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.to.as_fd(), PollFlags::empty()),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        // No signal interrupts this: all that are handled are blocked.
        let _ = poll(&mut events, PollTimeout::NONE);
        let has_event = |number: usize| events[number].any().unwrap_or(false);
        (!has_event(1)).then(|| has_event(2))
    }
}

/// All relays of a proxy.
#[derive(Default)]
pub struct Relays {
    relays: Vec<Relay>,
    started: usize,
    stop: Option<OwnedFd>,
}

impl Relays {
    /// Adds a relay that is not started.
    pub fn add(&mut self, relay: Relay) {
        self.relays.push(relay);
    }

    /// Starts the threads. Must be called after the fork of the command, which is single-threaded.
    ///
    /// Fails if `pipe2(2)` or `clone(2)` does.
    pub fn start(&mut self) -> std::io::Result<()> {
        if self.relays.is_empty() {
            return Ok(());
        }
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
        self.started = self.relays.len();
        for relay in self.relays.drain(..) {
            let stop = reading.try_clone()?;
            thread::Builder::new().spawn(move || relay.copy(&stop))?;
        }
        self.stop = Some(writing);
        Ok(())
    }

    /// Lets the threads end when all data is copied. Returns their number.
    pub fn stop(&mut self) -> usize {
        self.stop = None;
        self.started
    }
}
