//! The command line of this process.

use super::errno::Errno;
use core::ffi::{CStr, c_char};

/// The argument vector that the kernel made, argument 0 included.
pub struct Args {
    vector: *mut *mut c_char,
    count: usize,
}

impl Args {
    /// Wraps the argument vector that `main` received.
    ///
    /// # Safety
    /// `vector` is the argument vector of the process. It ends in a null pointer, and no other
    /// code uses it.
    #[cfg(not(test))]
    // SAFETY: the caller guarantees the conditions above.
    pub unsafe fn new(vector: *mut *mut c_char) -> Args {
        let mut count = 0;
        // SAFETY: the caller guarantees a null pointer at the end.
        while unsafe { !(*vector.add(count)).is_null() } {
            count += 1;
        }
        Args { vector, count }
    }

    /// Returns the argument with this index, without its terminating zero.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.get_c(index).map(CStr::to_bytes)
    }

    /// Returns the argument with this index as a C string.
    pub fn get_c(&self, index: usize) -> Option<&CStr> {
        if index >= self.count {
            return None;
        }
        // SAFETY: it is one of the `count` strings of the vector. Only `set_title` changes them,
        // and it borrows `self` mutably.
        Some(unsafe { CStr::from_ptr(*self.vector.add(index)) })
    }

    /// Executes the command that starts at argument `first`, searched on PATH.
    ///
    /// Returns only if `execvp(3)` fails, with the reason.
    pub fn exec(&self, first: usize) -> Errno {
        if first >= self.count {
            return Errno::NO_SUCH_FILE;
        }
        // SAFETY: `first` is an index of the vector, which ends in a null pointer.
        unsafe {
            libc::execvp(
                *self.vector.add(first),
                self.vector.add(first).cast_const().cast(),
            )
        };
        Errno::last()
    }

    /// Replaces the first `count` arguments by `title`, which `ps(1)` then shows.
    ///
    /// `/proc/PID/cmdline` is this memory, `proc(5)`. A title that is longer than the arguments is
    /// truncated.
    pub fn set_title(&mut self, title: &[u8], count: usize) {
        let Some(start) = self.get(0).map(<[u8]>::as_ptr) else {
            return;
        };
        let mut length = 0;
        for index in 0..count {
            let Some(argument) = self.get(index) else {
                break;
            };
            // execve stores the strings back to back, each with its terminating zero. If a dynamic
            // loader was run as a command, it has removed its arguments from the vector.
            if argument.as_ptr() != start.wrapping_add(length) {
                break;
            }
            length += argument.len() + 1;
        }
        // SAFETY: these bytes are the strings found above. They belong to this process and are
        // writable, and `&mut self` excludes other readers. The last zero is not overwritten.
        let memory = unsafe { core::slice::from_raw_parts_mut(*self.vector.cast(), length - 1) };
        let padded = title.iter().copied().chain(core::iter::repeat(0));
        memory
            .iter_mut()
            .zip(padded)
            .for_each(|(target, byte)| *target = byte);
    }
}
