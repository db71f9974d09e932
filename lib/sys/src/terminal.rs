//! Terminals and pseudoterminals, `ioctl_tty(2)`.

use crate::fd::descriptor;
use nix::Result;
use nix::errno::Errno;
use nix::libc::{self, c_int};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The number of rows and columns of a terminal.
pub type Size = libc::winsize;

/// Returns the size of a terminal.
pub fn size(terminal: impl AsFd) -> Result<Size> {
    let mut size = Size {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: the kernel writes a winsize that is valid during the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Sets the size of a terminal. If it changes, the foreground process group gets SIGWINCH.
pub fn resize(terminal: impl AsFd, size: &Size) -> Result<()> {
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: the kernel reads a winsize that is valid during the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const *size) }).map(drop)
}

/// Opens the other side of the pseudoterminal `master`, `TIOCGPTPEER`. Linux 4.13.
///
/// It needs no path: root inside the subhost could have replaced /dev/pts.
pub fn open_peer(master: impl AsFd) -> Result<OwnedFd> {
    let fd = master.as_fd().as_raw_fd();
    let unlocked: c_int = 0;
    // SAFETY: the kernel reads an int that is valid during the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCSPTLCK, &raw const unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes flags and returns a descriptor.
    descriptor(unsafe { libc::ioctl(fd, libc::TIOCGPTPEER, flags) }.into())
}

/// Makes `terminal` the controlling terminal of the session that this process leads.
pub fn set_controlling(terminal: impl AsFd) -> Result<()> {
    // SAFETY: takes a number.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })
        .map(drop)
}

/// Returns the number of bytes that can be read from a pipe or terminal, `FIONREAD`.
pub fn waiting(pipe: impl AsFd) -> Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: the kernel writes an int that is valid during the call.
    Errno::result(unsafe {
        libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count)
    })?;
    usize::try_from(count).map_err(|_| Errno::ERANGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::pty::posix_openpt;
    use std::io::Write;

    #[test]
    fn terminal_pair_shares_one_size() {
        let mut master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
        let peer = open_peer(&master).unwrap();
        let mut wanted = size(&peer).unwrap();
        (wanted.ws_row, wanted.ws_col) = (33, 77);
        resize(&master, &wanted).unwrap();
        let seen = size(&peer).unwrap();
        assert_eq!((seen.ws_row, seen.ws_col), (33, 77));
        master.write_all(b"line\n").unwrap();
        // The kernel passes the line on asynchronously.
        let mut arrived = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut arrived, PollTimeout::from(60_000_u16)), Ok(1));
        assert_eq!(waiting(&peer).unwrap(), 5);
    }
}
