//! Relations of namespaces, `ioctl_ns(2)`.

use nix::Result;
use nix::libc;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `_IO(0xb7, 1)` of `linux/nsfs.h`.
const NS_GET_USERNS: libc::Ioctl = 0xb701;

/// Opens the user namespace that owns the namespace `descriptor`. Linux 4.9.
///
/// # Errors
/// `EPERM`: the owner is neither the user namespace of this process nor a descendant of it.
pub fn owner(descriptor: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: this request takes no argument and returns a close-on-exec descriptor.
    let result = unsafe { libc::ioctl(descriptor.as_fd().as_raw_fd(), NS_GET_USERNS) };
    crate::fd::descriptor(result.into())
}
