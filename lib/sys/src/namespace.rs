//! What namespaces tell of each other.

use nix::Result;
use nix::libc;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `_IO(0xb7, 1)`; see `ioctl_ns(2)`.
const NS_GET_USERNS: libc::Ioctl = 0xb701;

/// Opens the user namespace that owns the namespace behind `descriptor`. Like `ioctl_ns(2)`: Linux 4.9; `EPERM` if it lies outside
/// of our own.
pub fn owner(descriptor: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: this request takes no argument, and makes a descriptor (close-on-exec from birth).
    let result = unsafe { libc::ioctl(descriptor.as_fd().as_raw_fd(), NS_GET_USERNS) };
    crate::fd::descriptor(result.into())
}
