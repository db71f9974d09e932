//! The fifo that ends the stand-in.

use super::Errno;
use core::ffi::{CStr, c_int};
use core::mem::MaybeUninit;

/// A named pipe that tells by the signal IO that something was written to it.
pub struct Fifo<'a> {
    path: &'a CStr,
    fd: c_int,
    made: bool,
}

impl Fifo<'_> {
    /// Opens the one at `path`, made for nobody but our user if there is nothing there.
    ///
    /// # Errors
    /// It cannot be made or opened, or is something else, or a symbolic link.
    pub fn at(path: &CStr) -> Result<Fifo<'_>, Errno> {
        // SAFETY: touches no memory. What we make shall have just the mode that we say.
        unsafe { libc::umask(0o077) };
        // SAFETY: reads a string with an end.
        let made = match Errno::check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }) {
            Ok(_) => true,
            Err(Errno(libc::EEXIST)) => false,
            Err(why) => return Err(why),
        };
        // For reading and writing, so that it has a writer always: no waiting for one here, and no end of file later.
        let how = libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: reads a string with an end.
        let fd = Errno::check(unsafe { libc::open(path.as_ptr(), how) })?;
        let fifo = Fifo { path, fd, made };
        if fifo.status()?.st_mode & libc::S_IFMT != libc::S_IFIFO {
            return Err(Errno(libc::EEXIST));
        }
        // SAFETY: both only change how this descriptor tells of what comes.
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

    /// Whether something was written.
    ///
    /// Looks, but does not read: a read by somebody who could write too is told by IO as well, and we would never rest.
    pub fn is_written(&self) -> bool {
        let mut fifo = libc::pollfd {
            fd: self.fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure, which the kernel fills; it does not wait.
        unsafe { libc::poll(&raw mut fifo, 1, 0) == 1 && fifo.revents & libc::POLLIN != 0 }
    }

    /// Removes it, if we have made it and it is still the one there.
    pub fn remove_if_made(self) {
        let mut there = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: reads a string with an end, and the kernel fills the structure if it succeeds.
        let there = unsafe {
            if libc::lstat(self.path.as_ptr(), there.as_mut_ptr()) == -1 {
                return;
            }
            there.assume_init()
        };
        let ours = self
            .status()
            .is_ok_and(|own| (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino));
        if self.made && ours {
            // SAFETY: reads a string with an end.
            unsafe { libc::unlink(self.path.as_ptr()) };
        }
    }

    fn status(&self) -> Result<libc::stat, Errno> {
        let mut status = MaybeUninit::uninit();
        // SAFETY: the kernel fills the structure if it succeeds.
        unsafe {
            Errno::check(libc::fstat(self.fd, status.as_mut_ptr()))?;
            Ok(status.assume_init())
        }
    }
}
