//! Ends the children of this process.

use nix::poll::PollTimeout;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// Sends TERM once to each child, also to children that appear later, and KILL after a timeout.
pub struct ChildTerminator {
    deadline: Instant,
    signalled: Vec<Pid>,
}

impl ChildTerminator {
    /// Starts the timeout; sends nothing yet.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        ChildTerminator {
            deadline: Instant::now() + timeout,
            signalled: Vec::new(),
        }
    }

    /// Signals the children that there are now. Returns how long to wait before the next call.
    pub fn poll(&mut self) -> PollTimeout {
        let is_late = Instant::now() >= self.deadline;
        for child in children() {
            // The kernel does not reuse the pid of a child that has not been waited for.
            if is_late {
                let _ = kill(child, Signal::SIGKILL);
            } else if !self.signalled.contains(&child) {
                let _ = kill(child, Signal::SIGTERM);
                self.signalled.push(child);
            }
        }
        PollTimeout::from(50_u8)
    }
}

/// Lists the children of the main thread, proc_tid_children(5).
#[must_use]
pub fn children() -> Vec<Pid> {
    let list = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
        .collect()
}
