//! The fd store: descriptors that outlive the process which opened them.
//!
//! They are queued in a socket, `unix(7)` `SCM_RIGHTS`, that all processes of a room inherit. The
//! kernel closes them when a process has drained the store, or when the last process of the room
//! has exited.

use crate::process::dup_inherited;
use nix::Result;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The environment variable with the descriptors of the two ends of the socket: `IN:OUT`.
pub const VARIABLE: &str = "OB_FDSTORE";

/// How many descriptors can be pushed at once.
pub const MAX_PUSHED: usize = 8;

/// The fd store of a room.
pub struct FdStore {
    input: OwnedFd,
    output: OwnedFd,
}

impl FdStore {
    /// Creates an empty store, which the programs that this process executes inherit.
    ///
    /// # Errors
    /// The errors of `socketpair(2)`.
    pub fn new() -> Result<Self> {
        let (input, output) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::empty(),
        )?;
        Ok(FdStore { input, output })
    }

    /// Returns the value of [`VARIABLE`] for this store.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.input.as_raw_fd(), self.output.as_raw_fd())
    }

    /// Returns the descriptors that [`VARIABLE`] names, for a process that closes the rest.
    #[must_use]
    pub fn numbers() -> Vec<RawFd> {
        let address = std::env::var(VARIABLE).unwrap_or_default();
        let numbers = address.split(':');
        numbers.filter_map(|number| number.parse().ok()).collect()
    }

    /// Opens the store that [`VARIABLE`] names. Returns None if the variable is not set.
    ///
    /// # Errors
    /// `EBADF`: a parent process has closed the descriptors. `EINVAL`: the value is malformed.
    pub fn from_environment() -> Result<Option<Self>> {
        let Ok(address) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        let (input, output) = address.split_once(':').ok_or(Errno::EINVAL)?;
        let open = |number: &str| dup_inherited(number.parse().map_err(|_| Errno::EINVAL)?);
        Ok(Some(FdStore {
            input: open(input)?,
            output: open(output)?,
        }))
    }

    /// Adds a duplicate of `descriptor` to the store.
    ///
    /// # Errors
    /// The errors of `sendmsg(2)`; `EAGAIN` if the queue of the socket is full.
    pub fn push(&self, descriptor: impl AsFd) -> Result<()> {
        send(self.input.as_raw_fd(), &[descriptor.as_fd()])
    }

    /// Adds duplicates of up to [`MAX_PUSHED`] descriptors to the store of the room.
    ///
    /// Returns whether this process is in a room.
    ///
    /// # Errors
    /// The errors of `sendmsg(2)`; `EINVAL` if the environment variable is malformed.
    pub fn push_in_room(descriptors: &[BorrowedFd]) -> Result<bool> {
        let Ok(address) = std::env::var(VARIABLE) else {
            return Ok(false);
        };
        let input = address
            .split(':')
            .next()
            .and_then(|input| input.parse().ok());
        send(input.ok_or(Errno::EINVAL)?, descriptors).map(|()| true)
    }

    /// Removes all descriptors from the store and returns them, in the order of [`FdStore::push`].
    ///
    /// # Errors
    /// The errors of `recvmsg(2)`.
    pub fn drain(&self) -> Result<Vec<OwnedFd>> {
        let mut drained = Vec::new();
        loop {
            let mut byte = [0];
            let mut data = [IoSliceMut::new(&mut byte)];
            let mut space = nix::cmsg_space!([libc::c_int; MAX_PUSHED]);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let output = self.output.as_raw_fd();
            let message = match recvmsg::<UnixAddr>(output, &mut data, Some(&mut space), flags) {
                Err(Errno::EAGAIN) => return Ok(drained),
                message => message?,
            };
            if message.bytes == 0 {
                return Ok(drained);
            }
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = control {
                    drained.extend(
                        numbers
                            .iter()
                            // SAFETY: the kernel has just opened this descriptor, so it has no
                            // other owner.
                            .map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }),
                    );
                }
            }
        }
    }
}

fn send(input: RawFd, descriptors: &[BorrowedFd]) -> Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    sendmsg::<UnixAddr>(
        input,
        &[IoSlice::new(b"k")],
        &[ControlMessage::ScmRights(&numbers)],
        MsgFlags::MSG_DONTWAIT,
        None,
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_descriptors_are_returned() {
        let store = FdStore::new().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        store.push(&file).unwrap();
        send(store.input.as_raw_fd(), &[file.as_fd(); MAX_PUSHED]).unwrap();
        assert_eq!(store.drain().unwrap().len(), 1 + MAX_PUSHED);
        assert_eq!(store.drain().unwrap().len(), 0);
    }
}
