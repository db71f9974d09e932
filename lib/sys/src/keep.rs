//! Descriptors that outlive the process which opened them: they lie in the queue of a socket (`unix(7)`, `SCM_RIGHTS`) that
//! all processes of a room have inherited, until one takes them out or the last of the room is gone.

use crate::process::inherited;
use nix::Result;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The name of the variable that tells a room's processes the numbers of the two ends: `IN:OUT`.
pub const VARIABLE: &str = "OB_ROOM";

/// How many descriptors may be put into a keep at once.
pub const MOST: usize = 8;

/// Where the descriptors of a room are kept.
pub struct Keep {
    input: OwnedFd,
    output: OwnedFd,
}

impl Keep {
    /// Makes an empty keep, open to the programs that this process will exec.
    pub fn new() -> Result<Self> {
        let (input, output) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::empty(),
        )?;
        Ok(Keep { input, output })
    }

    /// The value of [`VARIABLE`] for it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.input.as_raw_fd(), self.output.as_raw_fd())
    }

    /// The numbers of the descriptors that lead to the room's keep.
    #[must_use]
    pub fn numbers() -> Vec<RawFd> {
        let address = std::env::var(VARIABLE).unwrap_or_default();
        let numbers = address.split(':');
        numbers.filter_map(|number| number.parse().ok()).collect()
    }

    /// The keep of the room that this process is in; none if it is in no room. `EBADF` if the room's descriptors were closed.
    pub fn of_room() -> Result<Option<Self>> {
        let Ok(address) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        let (input, output) = address.split_once(':').ok_or(Errno::EINVAL)?;
        let open = |number: &str| inherited(number.parse().map_err(|_| Errno::EINVAL)?);
        Ok(Some(Keep {
            input: open(input)?,
            output: open(output)?,
        }))
    }

    /// Puts a duplicate of `descriptor` into the keep.
    pub fn put(&self, descriptor: impl AsFd) -> Result<()> {
        send(self.input.as_raw_fd(), &[descriptor.as_fd()])
    }

    /// Puts duplicates of up to [`MOST`] descriptors into the keep of the room that this process is
    /// in. Returns whether it is in a room.
    pub fn put_in_room(descriptors: &[BorrowedFd]) -> Result<bool> {
        let Ok(address) = std::env::var(VARIABLE) else {
            return Ok(false);
        };
        let input = address
            .split(':')
            .next()
            .and_then(|input| input.parse().ok());
        send(input.ok_or(Errno::EINVAL)?, descriptors).map(|()| true)
    }

    /// Takes everything out of it.
    pub fn take(&self) -> Result<Vec<OwnedFd>> {
        let mut taken = Vec::new();
        loop {
            let mut byte = [0];
            let mut data = [IoSliceMut::new(&mut byte)];
            let mut space = nix::cmsg_space!([libc::c_int; MOST]);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let output = self.output.as_raw_fd();
            let message = match recvmsg::<UnixAddr>(output, &mut data, Some(&mut space), flags) {
                Err(Errno::EAGAIN) => return Ok(taken),
                message => message?,
            };
            if message.bytes == 0 {
                return Ok(taken);
            }
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = control {
                    // SAFETY: the kernel has just opened these descriptors for us.
                    taken.extend(
                        numbers
                            .iter()
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
    fn what_was_put_comes_out() {
        let keep = Keep::new().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        keep.put(&file).unwrap();
        send(keep.input.as_raw_fd(), &[file.as_fd(); MOST]).unwrap();
        assert_eq!(keep.take().unwrap().len(), 1 + MOST);
        assert_eq!(keep.take().unwrap().len(), 0);
    }
}
