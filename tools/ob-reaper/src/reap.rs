//! Reaping: taking the status of the dead so that the kernel can forget them.

use crate::sys::{self, Status, Wait};

/// How many are reaped before signals are looked at again: children that die as fast as they are reaped must not keep a
/// TERM waiting.
const AT_ONCE: usize = 256;

/// Who is left after reaping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// No child, dead or alive.
    Nobody,
    /// Living children only.
    Living,
    /// Perhaps more of the dead.
    Dead,
}

/// Reaps those that have ended, telling `seen` of each.
///
/// One SIGCHLD may stand for any number of them, so the kernel is asked until it has no more.
pub fn reap(mut seen: impl FnMut(i32, Status)) -> Left {
    for _ in 0..AT_ONCE {
        match sys::wait() {
            Wait::Ended(pid, status) => seen(pid, status),
            Wait::NotYet => return Left::Living,
            Wait::NoChild => return Left::Nobody,
        }
    }
    Left::Dead
}
