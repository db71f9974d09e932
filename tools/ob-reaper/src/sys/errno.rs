//! Error numbers, `errno(3)`.

use core::ffi::{CStr, c_int};

/// The reason that the kernel gives for a failed system call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub(super) c_int);

impl Errno {
    pub const NO_CHILD: Errno = Errno(libc::ECHILD);
    pub const NO_SUCH_FILE: Errno = Errno(libc::ENOENT);
    pub const NO_SUCH_PROCESS: Errno = Errno(libc::ESRCH);

    /// Returns the error of the last system call that failed.
    pub(super) fn last() -> Errno {
        // SAFETY: the C library returns the address of a valid int.
        Errno(unsafe { *libc::__errno_location() })
    }

    /// Converts the result of a system call, where -1 is a failure.
    pub(super) fn check(result: c_int) -> Result<c_int, Errno> {
        if result == -1 {
            Err(Errno::last())
        } else {
            Ok(result)
        }
    }

    /// Returns the description that `strerror(3)` has for the error.
    pub fn text(self) -> &'static [u8] {
        // SAFETY: strerror returns a terminated string. It is valid until the next call, which
        // only this thread can make, after it has printed the text.
        unsafe { CStr::from_ptr(libc::strerror(self.0)) }.to_bytes()
    }
}
