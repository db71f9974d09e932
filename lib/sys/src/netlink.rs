//! Options of netlink sockets, `netlink(7)`.

use nix::Result;
use nix::errno::Errno;
use nix::libc::{self, c_int, socklen_t};
use std::os::fd::{AsFd, AsRawFd};

/// Has the kernel add a text to each error that it returns on `socket`, `NETLINK_EXT_ACK`.
///
/// # Errors
/// `ENOPROTOOPT`: the kernel is older than Linux 4.12.
pub fn enable_error_texts(socket: impl AsFd) -> Result<()> {
    let yes: c_int = 1;
    let size = socklen_t::try_from(size_of_val(&yes)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads an int that is valid during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_EXT_ACK,
            (&raw const yes).cast(),
            size,
        )
    };
    Errno::result(result).map(drop)
}
