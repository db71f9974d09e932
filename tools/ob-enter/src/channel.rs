//! Bytes on their way from one descriptor to another.

use nix::errno::Errno;
use nix::unistd::{read, write};
use std::os::fd::OwnedFd;

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
    bytes: Vec<u8>,
    /// Why writing has failed, if not because the reader has gone.
    pub failure: Option<Errno>,
}

impl Channel {
    pub fn new(from: OwnedFd, to: OwnedFd) -> Self {
        Channel {
            from: Some(from),
            to: Some(to),
            bytes: Vec::new(),
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

    /// Writes what it takes at once. When nobody takes it any more both ends are closed, so that the sender gets to know.
    pub fn send(&mut self) {
        let Some(to) = self.target() else { return };
        match write(to, &self.bytes) {
            Ok(length) => drop(self.bytes.drain(..length)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => {
                if error != Errno::EPIPE && error != Errno::EIO {
                    self.failure = Some(error);
                }
                self.close();
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

    fn settle(&mut self) {
        if self.from.is_none() && self.bytes.is_empty() {
            self.to = None;
        }
    }
}
