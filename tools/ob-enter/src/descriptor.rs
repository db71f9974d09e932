//! The types and flags of descriptors.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, SFlag, fstat};
use std::os::fd::AsFd;

/// Returns the file type of a status, `S_IFREG` and so on.
pub(crate) fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

/// Returns whether the descriptor is a socket.
pub(crate) fn is_socket(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|status| kind(&status) == SFlag::S_IFSOCK)
}

/// Sets `O_NONBLOCK`.
///
/// Only for descriptors that this process has opened: the flag belongs to the open file
/// description, so all duplicates share it.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}
