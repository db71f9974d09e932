//! Copies bytes from one descriptor to another.

use crate::descriptor::is_socket;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, tee};
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{read, write};
use ob_sys::terminal::waiting;
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// The most bytes that a channel holds: the capacity of a pipe, `pipe(7)`.
const CAPACITY: usize = 64 * 1024;

/// The most bytes that are read after the command has ended: more than pipes and terminals hold.
/// The limit ends the reading from a background process that continues to write.
const LAST: usize = 256 * 1024;

/// One direction. An end is `None` when it is closed: after the end of the data, or if the reader
/// is gone.
pub struct Channel {
    /// The source.
    pub from: Option<OwnedFd>,
    /// The target.
    pub to: Option<OwnedFd>,
    bytes: VecDeque<u8>,
    /// Whether the target is a socket; that is shut down at the end of the data, `shutdown(2)`.
    is_socket: bool,
    /// The error of a write, except EPIPE and EIO: then the reader is gone.
    pub failure: Option<Errno>,
}

impl Channel {
    /// Returns a channel without data.
    pub fn new(from: OwnedFd, to: OwnedFd) -> Self {
        Channel {
            from: Some(from),
            is_socket: is_socket(&to),
            to: Some(to),
            bytes: VecDeque::new(),
            failure: None,
        }
    }

    /// Returns the source, unless it is closed or the channel is full.
    pub fn source(&self) -> Option<&OwnedFd> {
        let has_space = self.to.is_some() && self.bytes.len() < CAPACITY;
        self.from.as_ref().filter(|_| has_space)
    }

    /// Returns the target, if there are bytes to write.
    pub fn target(&self) -> Option<&OwnedFd> {
        self.to.as_ref().filter(|_| !self.bytes.is_empty())
    }

    /// Returns the number of bytes that were read and not written.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes that do not come from the source.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Reads from the source.
    ///
    /// Returns the number of bytes, 0 at the end of the data, or `None` if a read would block. Does
    /// not close the source.
    pub fn receive(&mut self) -> Option<usize> {
        let from = self.from.as_ref()?;
        let mut buffer = [0; 16 * 1024];
        match read(from, &mut buffer) {
            Ok(length) => {
                self.bytes.extend(&buffer[..length]);
                Some(length)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // EIO: the other side of a terminal is closed. Any other error, such as EISDIR, is an
            // end of the data, too.
            Err(_) => Some(0),
        }
    }

    /// Writes until the target is full. If the reader is gone, closes both ends, so that the sender
    /// gets EPIPE.
    ///
    /// The descriptor of the caller may be blocking. So no write exceeds `PIPE_BUF` bytes, which
    /// fit into a pipe that `poll(2)` reports as writable.
    pub fn send(&mut self) {
        while let Some(to) = self.target().filter(|to| is_writable(to.as_fd())) {
            let (first, _) = self.bytes.as_slices();
            match write(to, &first[..first.len().min(PIPE_BUF)]) {
                Ok(length) => drop(self.bytes.drain(..length)),
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(error) => {
                    if error != Errno::EPIPE && error != Errno::EIO {
                        self.failure = Some(error);
                    }
                    self.close();
                }
            }
        }
        self.settle();
    }

    /// Closes the source, and closes the target when all bytes are written.
    pub fn finish(&mut self) {
        self.from = None;
        self.settle();
    }

    /// Reads the bytes that are left in the source, and closes it as [`Channel::finish`] does.
    pub fn take_last(&mut self) {
        let limit = self.bytes.len() + LAST;
        while self.bytes.len() < limit && self.receive().is_some_and(|length| length > 0) {}
        self.finish();
    }

    /// Like [`Channel::take_last`], for a source that a [`crate::relay::Relay`] writes: its end is
    /// the end of the data. Waits until `deadline` for it.
    pub fn take_relayed(&mut self, deadline: Instant) {
        let limit = self.bytes.len() + LAST;
        while let Some(from) = self.from.as_ref().filter(|_| self.bytes.len() < limit) {
            let rest = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::ZERO);
            let mut event = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
            let is_readable = poll(&mut event, timeout).is_ok_and(|ready| ready > 0);
            if !is_readable || self.receive() == Some(0) {
                break;
            }
        }
        self.finish();
    }

    /// Closes both ends, and drops the bytes that were not written.
    pub fn close(&mut self) {
        self.from = None;
        self.to = None;
        self.bytes.clear();
    }

    /// Returns whether the target is a socket that must be shut down: all data is written.
    pub fn is_half_closed(&self) -> bool {
        self.is_socket && self.from.is_none() && self.bytes.is_empty() && self.to.is_some()
    }

    /// Shuts down the sending side of the target.
    ///
    /// Closing it here would not do that, because the caller has the socket open.
    pub fn shut_down(&mut self) {
        if let Some(to) = self.to.take() {
            let _ = shutdown(to.as_raw_fd(), Shutdown::Write);
        }
    }

    fn settle(&mut self) {
        if self.from.is_none() && self.bytes.is_empty() && !self.is_socket {
            self.to = None;
        }
    }
}

/// Copies a pipe of the caller to the command with `tee(2)`, which does not consume the data.
///
/// So data that the command does not read is left in the pipe for the next command of the caller.
/// The copy is a pipe with one buffer, which `poll(2)` reports as either empty or full. Data that
/// the command has read from it is then read from the source.
pub struct Feed {
    from: OwnedFd,
    to: Option<OwnedFd>,
    /// The capacity of the copy, and the number of bytes in it.
    capacity: usize,
    copied: usize,
}

impl Feed {
    /// Returns a feed from the pipe `from` to the pipe `to`. Fails if `fcntl(2)` does.
    pub fn new(from: OwnedFd, to: OwnedFd) -> nix::Result<Self> {
        let capacity = fcntl(&to, FcntlArg::F_SETPIPE_SZ(1))?;
        Ok(Feed {
            from,
            to: Some(to),
            capacity: usize::try_from(capacity).unwrap_or(PIPE_BUF),
            copied: 0,
        })
    }

    /// Returns the event to wait for: data in the source if the copy is empty, else space in it.
    pub fn event(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let to = self.to.as_ref()?;
        Some(match self.copied {
            0 => (self.from.as_fd(), PollFlags::POLLIN),
            _ => (to.as_fd(), PollFlags::POLLOUT),
        })
    }

    /// Continues after the event: consumes the data that was read, and copies the next.
    pub fn copy(&mut self) {
        self.consume(self.copied);
        let Some(to) = &self.to else { return };
        match tee(
            &self.from,
            to,
            self.capacity,
            SpliceFFlags::SPLICE_F_NONBLOCK,
        ) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // The end of the data, or EBADF: the descriptor was opened for writing only.
            Ok(0) | Err(_) => self.to = None,
            Ok(length) => self.copied = length,
        }
    }

    /// Consumes the data that the command has read; `unread` bytes are left in the copy.
    pub fn finish(&mut self, unread: usize) {
        self.consume(self.copied.saturating_sub(unread));
        self.to = None;
    }

    fn consume(&mut self, mut length: usize) {
        self.copied = 0;
        let mut buffer = [0; PIPE_BUF];
        // If another process reads the same pipe, it may be empty, and a read would block.
        while length > 0 && waiting(&self.from).is_ok_and(|there| there > 0) {
            let part = length.min(buffer.len());
            match read(&self.from, &mut buffer[..part]) {
                Ok(taken @ 1..) => length -= taken,
                Err(Errno::EINTR) => {}
                _ => break,
            }
        }
    }
}

/// Returns whether a write does not block, because there is space or because it fails.
fn is_writable(fd: BorrowedFd) -> bool {
    !poll_now(fd, PollFlags::POLLOUT).is_empty()
}

/// Returns the events that `poll(2)` reports for the descriptor now.
pub fn poll_now(fd: BorrowedFd, flags: PollFlags) -> PollFlags {
    let mut event = [PollFd::new(fd, flags)];
    let _ = poll(&mut event, PollTimeout::ZERO);
    event[0].revents().unwrap_or(PollFlags::empty())
}
