//! What nix lacks of terminals and their pairs, `ioctl_tty(2)`.

use crate::descriptor;
use nix::Result;
use nix::errno::Errno;
use nix::libc::{self, c_int};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Rows and columns of a terminal.
pub type Size = libc::winsize;

/// The size of a terminal.
pub fn size(terminal: impl AsFd) -> Result<Size> {
    let mut size = Size {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: the kernel writes a winsize that lives over the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Sets the size of a terminal; who runs in its foreground gets WINCH if it is another than before.
pub fn resize(terminal: impl AsFd, size: &Size) -> Result<()> {
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: the kernel reads a winsize that lives over the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const *size) }).map(drop)
}

/// Opens the other side of the pseudo terminal `master`, without a path: none inside can be trusted. Like `TIOCGPTPEER`: Linux 4.13.
pub fn open_peer(master: impl AsFd) -> Result<OwnedFd> {
    let fd = master.as_fd().as_raw_fd();
    let unlocked: c_int = 0;
    // SAFETY: the kernel reads an int that lives over the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCSPTLCK, &raw const unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes flags, makes a descriptor.
    descriptor(unsafe { libc::ioctl(fd, libc::TIOCGPTPEER, flags) }.into())
}

/// Makes `terminal` the controlling one of the session that this process leads.
pub fn control(terminal: impl AsFd) -> Result<()> {
    // SAFETY: takes a number.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })
        .map(drop)
}

/// How many bytes wait in a pipe or terminal to be read.
pub fn waiting(pipe: impl AsFd) -> Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: the kernel writes an int that lives over the call.
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
        // The kernel carries it over in its own time.
        let mut arrived = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut arrived, PollTimeout::from(60_000_u16)), Ok(1));
        assert_eq!(waiting(&peer).unwrap(), 5);
    }
}
