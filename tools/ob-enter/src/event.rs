//! The events that a proxy waits for.

use crate::channel::Channel;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// An event; a channel is given by its index.
#[derive(Clone, Copy)]
pub enum Event {
    /// The command has ended.
    Child,
    /// A signal is pending.
    Signal,
    /// The feed can continue.
    Feed,
    /// A channel to the command can be read from or written to.
    Input(usize),
    /// A channel from the command can be read from or written to.
    Output(usize),
}

/// The descriptors to poll, and the event that each reports.
#[derive(Default)]
pub struct Events<'a>(Vec<(Event, BorrowedFd<'a>, PollFlags)>);

impl<'a> Events<'a> {
    /// Adds a descriptor.
    pub fn add(&mut self, event: Event, fd: BorrowedFd<'a>, flags: PollFlags) {
        self.0.push((event, fd, flags));
    }

    /// Adds the source of a channel.
    pub fn add_source(&mut self, event: Event, channel: &'a Channel) {
        if let Some(fd) = channel.source() {
            self.add(event, fd.as_fd(), PollFlags::POLLIN);
        }
    }

    /// Adds the target of a channel.
    pub fn add_target(&mut self, event: Event, channel: &'a Channel) {
        if let Some(fd) = channel.target() {
            self.add(event, fd.as_fd(), PollFlags::POLLOUT);
        }
    }

    /// Waits for events until `limit`, and returns them. Fails if `poll(2)` does.
    pub fn wait(self, limit: Option<Instant>) -> Result<Vec<Event>> {
        let fds = self.0.iter();
        let mut fds: Vec<PollFd> = fds.map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        match poll(&mut fds, timeout(limit)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("wait for the command"),
        }
        let events = self.0.iter().zip(&fds);
        let happened = events.filter(|(_, fd)| fd.any() != Some(false));
        Ok(happened.map(|((event, ..), _)| *event).collect())
    }
}

fn timeout(limit: Option<Instant>) -> PollTimeout {
    let left = |limit: Instant| limit.saturating_duration_since(Instant::now());
    match limit.map(left).as_ref().map(Duration::as_millis) {
        None => PollTimeout::NONE,
        // poll(2) takes milliseconds; without the rounding up it would return before `limit`.
        Some(time) => PollTimeout::from(u16::try_from(time + 1).unwrap_or(u16::MAX)),
    }
}
