//! Device nodes in a subhost, whose root can replace each of them.

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc::dev_t;
use nix::sys::stat::{SFlag, fstat, makedev};
use std::os::fd::{AsFd, OwnedFd};

/// The device number of /dev/null.
pub const NULL: dev_t = makedev(1, 3);

/// The device number of /dev/ptmx.
pub const PTMX: dev_t = makedev(5, 2);

/// Opens the character device `path` below the directory `root`, for reading and writing.
///
/// A symbolic link does not lead out of `root`.
///
/// # Errors
/// The errors of `openat2(2)`. `ENODEV`: the file there is not `device`.
pub fn open_in(root: impl AsFd, path: &str, device: dev_t) -> Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let opened = openat2(root, path, how)?;
    let status = fstat(&opened)?;
    let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFCHR || status.st_rdev != device {
        return Err(Errno::ENODEV);
    }
    Ok(opened)
}
