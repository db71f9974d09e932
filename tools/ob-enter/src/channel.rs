//! Bytes on their way from one descriptor to another.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, tee};
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{read, write};
use ob_sys::terminal::waiting;
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// How much is under way at most; as much as a pipe holds.
const ROOM: usize = 64 * 1024;

/// How much of what was written last is taken along when the command has ended: more than pipes and terminals hold. Without an
/// end to it, something left behind that goes on writing would keep us.
const LAST: usize = 256 * 1024;

/// One direction. Either end is closed (and none) when there is no more to come, or nobody to take it.
pub struct Channel {
    /// Where bytes come from.
    pub from: Option<OwnedFd>,
    /// Where they go.
    pub to: Option<OwnedFd>,
    bytes: VecDeque<u8>,
    /// Whether the target is a socket, whose sending side must be shut down when there is no more
    /// to come.
    is_socket: bool,
    /// Why writing has failed, if not because the reader has gone.
    pub failure: Option<Errno>,
}

impl Channel {
    pub fn new(from: OwnedFd, to: OwnedFd) -> Self {
        Channel {
            from: Some(from),
            is_socket: super::streams::is_socket(&to),
            to: Some(to),
            bytes: VecDeque::new(),
            failure: None,
        }
    }

    /// Whether there is something to read from, and room for it.
    pub fn source(&self) -> Option<&OwnedFd> {
        let room = self.to.is_some() && self.bytes.len() < ROOM;
        self.from.as_ref().filter(|_| room)
    }

    /// Where to write, while there is something to be written.
    pub fn target(&self) -> Option<&OwnedFd> {
        self.to.as_ref().filter(|_| !self.bytes.is_empty())
    }

    /// How many bytes have been read and not been written.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes that nobody has sent.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Reads what is there; returns its length, 0 at the end (at which the source is not closed), none if there is nothing yet.
    pub fn receive(&mut self) -> Option<usize> {
        let from = self.from.as_ref()?;
        let mut buffer = [0; 16 * 1024];
        match read(from, &mut buffer) {
            Ok(length) => {
                self.bytes.extend(&buffer[..length]);
                Some(length)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // EIO: a terminal without another side. EISDIR and the like: nothing to be had.
            Err(_) => Some(0),
        }
    }

    /// Writes what the target takes at once. If its reader is gone, both ends are closed, so that
    /// the sender gets EPIPE.
    ///
    /// The descriptor is the caller's and may block: `poll(2)` promises of a pipe only that
    /// `PIPE_BUF` bytes fit.
    pub fn send(&mut self) {
        while let Some(to) = self.target().filter(|to| can_take(to.as_fd())) {
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

    /// Nothing more is to come: closes the source, and the target when all has been written.
    pub fn finish(&mut self) {
        self.from = None;
        self.settle();
    }

    /// Takes what the sender has left behind, and finishes.
    pub fn take_last(&mut self) {
        let limit = self.bytes.len() + LAST;
        while self.bytes.len() < limit && self.receive().is_some_and(|length| length > 0) {}
        self.finish();
    }

    /// Closes both ends, and forgets what is under way.
    pub fn close(&mut self) {
        self.from = None;
        self.to = None;
        self.bytes.clear();
    }

    /// Whether the sender has closed its end and the peer of the target, a socket, does not know
    /// yet.
    pub fn is_half_closed(&self) -> bool {
        self.is_socket && self.from.is_none() && self.bytes.is_empty() && self.to.is_some()
    }

    /// Shuts down the sending side of the target. Closing our duplicate would not: the caller has
    /// the socket open as well.
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

/// Copies a pipe of the caller to the command without reading it: what the command leaves is there
/// for the caller's next command, as if both had the pipe itself.
///
/// The copy has room for one buffer, so that it is either empty or full for `poll(2)`. Only what
/// the command has read from it is then taken out of the source.
pub struct Feed {
    from: OwnedFd,
    to: Option<OwnedFd>,
    /// How much fits, and how much of the source is in the copy.
    room: usize,
    copied: usize,
}

impl Feed {
    pub fn new(from: OwnedFd, to: OwnedFd) -> nix::Result<Self> {
        let room = fcntl(&to, FcntlArg::F_SETPIPE_SZ(1))?;
        Ok(Feed {
            from,
            to: Some(to),
            room: usize::try_from(room).unwrap_or(PIPE_BUF),
            copied: 0,
        })
    }

    /// Returns what to wait for: input while the copy is empty, else the command to read it.
    pub fn event(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let to = self.to.as_ref()?;
        Some(match self.copied {
            0 => (self.from.as_fd(), PollFlags::POLLIN),
            _ => (to.as_fd(), PollFlags::POLLOUT),
        })
    }

    /// Goes on after the event: takes out what was read, copies what is there.
    pub fn carry(&mut self) {
        self.take_out(self.copied);
        let Some(to) = &self.to else { return };
        match tee(&self.from, to, self.room, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // At its end; or it was opened for writing alone.
            Ok(0) | Err(_) => self.to = None,
            Ok(length) => self.copied = length,
        }
    }

    /// Takes out what the command has read, of which `unread` bytes are left in the copy.
    pub fn finish(&mut self, unread: usize) {
        self.take_out(self.copied.saturating_sub(unread));
        self.to = None;
    }

    fn take_out(&mut self, mut length: usize) {
        self.copied = 0;
        let mut buffer = [0; PIPE_BUF];
        // Where another process reads the same pipe it may be empty by now, and a read would wait.
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

/// Whether a write would not wait: because it fits, or fails at once.
fn can_take(fd: BorrowedFd) -> bool {
    !asked(fd, PollFlags::POLLOUT).is_empty()
}

/// What `poll(2)` says of the descriptor now.
pub fn asked(fd: BorrowedFd, flags: PollFlags) -> PollFlags {
    let mut event = [PollFd::new(fd, flags)];
    let _ = poll(&mut event, PollTimeout::ZERO);
    event[0].revents().unwrap_or(PollFlags::empty())
}
