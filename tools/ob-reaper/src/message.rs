//! Messages: one line on standard error, formatted without allocating.

use crate::sys;

/// Maximum length of a line, more than any message with a path that an administrator types.
const MAX_LINE: usize = 512;

/// Prints `ob-reaper: ` and the pieces as one line on standard error, in one write.
///
/// Truncates a longer line. Ignores a failed write: there is no other place to report it.
pub fn report(pieces: &[&[u8]]) {
    let mut line = [0; MAX_LINE];
    let bytes = [b"ob-reaper: ".as_slice()]
        .into_iter()
        .chain(pieces.iter().copied())
        .flatten();
    let mut length = 0;
    for (target, &byte) in line[..MAX_LINE - 1].iter_mut().zip(bytes) {
        // A newline in an argument must not forge a second message.
        *target = if byte < b' ' { b'?' } else { byte };
        length += 1;
    }
    line[length] = b'\n';
    let _ = sys::write_all(2, &line[..=length]);
}

/// A failed operation, its object and the reason.
pub struct Failure<'a> {
    pub what: &'static str,
    pub object: &'a [u8],
    pub why: sys::Errno,
}

impl Failure<'_> {
    /// Prints the failure as one line on standard error.
    pub fn report(&self) {
        let why = self.why.text();
        report(&[self.what.as_bytes(), b" ", self.object, b": ", why]);
    }
}
