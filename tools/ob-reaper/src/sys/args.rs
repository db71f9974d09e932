//! The command line.

use super::Errno;
use core::ffi::{CStr, c_char};

/// The command line: the vector that the kernel made.
pub struct Args {
    vector: *mut *mut c_char,
    count: usize,
}

impl Args {
    /// Takes what `main` was given.
    ///
    /// # Safety
    /// `vector` is the argument vector of the process, ends in a null pointer, and is used by nobody else.
    #[cfg(not(test))]
    // SAFETY is for the caller to show: see above.
    pub unsafe fn new(vector: *mut *mut c_char) -> Args {
        let mut count = 0;
        // SAFETY: the caller promises a null pointer at its end.
        while unsafe { !(*vector.add(count)).is_null() } {
            count += 1;
        }
        Args { vector, count }
    }

    /// The argument with this number; 0 is our own name.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        self.get_c(number).map(CStr::to_bytes)
    }

    /// The same, as C has it.
    pub fn get_c(&self, number: usize) -> Option<&CStr> {
        if number >= self.count {
            return None;
        }
        // SAFETY: it is one of the `count` strings of the vector. They change only by `rename`, which borrows us mutably.
        Some(unsafe { CStr::from_ptr(*self.vector.add(number)) })
    }

    /// Becomes the command that begins at this argument, found by PATH; returns only if it cannot.
    pub fn exec(&self, at: usize) -> Errno {
        if at >= self.count {
            return Errno::NO_SUCH_FILE;
        }
        // SAFETY: the vector has an argument there and a null pointer at its end.
        unsafe {
            libc::execvp(
                *self.vector.add(at),
                self.vector.add(at).cast_const().cast(),
            )
        };
        Errno::last()
    }

    /// Makes `ps` show `name` in place of the first `count` words of the command line, which are lost. A name that is longer
    /// than they are is cut.
    pub fn rename(&mut self, name: &[u8], count: usize) {
        let Some(first) = self.get(0).map(<[u8]>::as_ptr) else {
            return;
        };
        let mut length = 0;
        for number in 0..count {
            let Some(argument) = self.get(number) else {
                break;
            };
            // The kernel lays them out one after the other, with one null byte between; but a loader may have taken some away.
            if argument.as_ptr() != first.wrapping_add(length) {
                break;
            }
            length += argument.len() + 1;
        }
        // SAFETY: these bytes are the strings that were just walked over. They are ours to write to, and `&mut self` says that
        // nobody reads them meanwhile. The last null byte stays as it is.
        let place = unsafe { core::slice::from_raw_parts_mut(*self.vector.cast(), length - 1) };
        let letters = name.iter().copied().chain(core::iter::repeat(0));
        place
            .iter_mut()
            .zip(letters)
            .for_each(|(byte, letter)| *byte = letter);
    }
}
