//! Reaping: collects the exit status of dead children, so that the kernel can free their entries.

use crate::sys::{self, Status, Wait};

/// Maximum number of children reaped before signals are looked at again.
///
/// Children that die as fast as they are reaped must not delay a SIGTERM.
const BATCH: usize = 256;

/// The children that are left after [`reap`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// There is no child.
    None,
    /// All children are running.
    Running,
    /// There may be more zombies.
    Unknown,
}

/// Reaps children that have exited, and calls `reaped` with the pid and status of each.
///
/// One SIGCHLD may stand for several children, `signal(7)`, so the loop ends only when the kernel
/// has no zombie left, or after [`BATCH`] children.
pub fn reap(mut reaped: impl FnMut(i32, Status)) -> Children {
    for _ in 0..BATCH {
        match sys::try_wait() {
            Wait::Reaped(pid, status) => reaped(pid, status),
            Wait::AllRunning => return Children::Running,
            Wait::NoChild => return Children::None,
        }
    }
    Children::Unknown
}
