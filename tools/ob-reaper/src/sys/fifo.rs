//! The FIFO that ends the placeholder, `fifo(7)`.

use super::errno::Errno;
use core::ffi::{CStr, c_int};
use core::mem::MaybeUninit;

/// An open FIFO that sends SIGIO to this process when data arrives.
pub struct Fifo<'a> {
    path: &'a CStr,
    fd: c_int,
    created: bool,
}

impl Fifo<'_> {
    /// Opens the FIFO `path`. Creates it with mode 0600 if the path does not exist.
    ///
    /// # Errors
    /// `EEXIST`: the path is not a FIFO. `ELOOP`: it is a symbolic link, which could lead to a file
    /// of another user. Otherwise the reason why it cannot be created or opened.
    pub fn open(path: &CStr) -> Result<Fifo<'_>, Errno> {
        // SAFETY: touches no memory. The mode of the FIFO must not depend on the inherited umask.
        unsafe { libc::umask(0o077) };
        // SAFETY: reads a terminated string.
        let created = match Errno::check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }) {
            Ok(_) => true,
            Err(Errno(libc::EEXIST)) => false,
            Err(why) => return Err(why),
        };
        // O_RDWR makes this process a writer too: open does not wait for one, and poll never
        // reports the end of the file.
        let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: reads a terminated string.
        let fd = Errno::check(unsafe { libc::open(path.as_ptr(), flags) })?;
        let fifo = Fifo { path, fd, created };
        if fifo.status()?.st_mode & libc::S_IFMT != libc::S_IFIFO {
            return Err(Errno(libc::EEXIST));
        }
        // SAFETY: both calls change flags of the descriptor alone.
        unsafe {
            Errno::check(libc::fcntl(fd, libc::F_SETOWN, libc::getpid()))?;
            Errno::check(libc::fcntl(
                fd,
                libc::F_SETFL,
                libc::O_NONBLOCK | libc::O_ASYNC,
            ))?;
        }
        Ok(fifo)
    }

    /// Returns whether data has been written to the FIFO.
    ///
    /// Polls and does not read: the kernel also sends SIGIO after a read, so a loop of SIGIO and
    /// read would never wait.
    pub fn has_data(&self) -> bool {
        let mut fifo = libc::pollfd {
            fd: self.fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the kernel writes one structure, which is valid during the call. Zero: no wait.
        unsafe { libc::poll(&raw mut fifo, 1, 0) == 1 && fifo.revents & libc::POLLIN != 0 }
    }

    /// Removes the FIFO if [`Fifo::open`] created it and the path still names it.
    pub fn remove_if_created(self) {
        let mut found = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: reads a terminated string. The kernel fills the structure if the call succeeds.
        let found = unsafe {
            if libc::lstat(self.path.as_ptr(), found.as_mut_ptr()) == -1 {
                return;
            }
            found.assume_init()
        };
        let same = self
            .status()
            .is_ok_and(|own| (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino));
        if self.created && same {
            // SAFETY: reads a terminated string.
            unsafe { libc::unlink(self.path.as_ptr()) };
        }
    }

    fn status(&self) -> Result<libc::stat, Errno> {
        let mut status = MaybeUninit::uninit();
        // SAFETY: the kernel fills the structure if the call succeeds.
        unsafe {
            Errno::check(libc::fstat(self.fd, status.as_mut_ptr()))?;
            Ok(status.assume_init())
        }
    }
}
