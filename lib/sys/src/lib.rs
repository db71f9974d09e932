//! The system calls that nix does not have, each in a small safe wrapper.
//!
//! This crate is the one home of `unsafe` among the tools (`ob-reaper`, which has no standard library, aside): every other
//! crate forbids it. A wrapper does no more than its system call; what a subhost is stands in `ob_document` and in the tools.

pub mod credentials;
pub mod file;
pub mod identity;
pub mod keep;
pub mod lock;
pub mod memfd;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod process;
pub mod terminal;

use nix::errno::Errno;
use nix::libc;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes the result of a system call that returns a new descriptor.
fn descriptor(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just given us this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
