//! The end of our children.

use nix::poll::PollTimeout;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// The end of processes that do not end by themselves: TERM, once to each, and KILL when the time is up.
pub struct Hurry {
    deadline: Instant,
    told: Vec<Pid>,
}

impl Hurry {
    pub fn within(time: Duration) -> Self {
        Hurry {
            deadline: Instant::now() + time,
            told: Vec::new(),
        }
    }

    /// Tells all our children that have not been told; says how long to wait before the next look.
    pub fn press(&mut self) -> PollTimeout {
        let late = Instant::now() >= self.deadline;
        for child in children() {
            // A child of ours is ours until we have reaped it, so its number cannot be another's.
            if late {
                let _ = kill(child, Signal::SIGKILL);
            } else if !self.told.contains(&child) {
                let _ = kill(child, Signal::SIGTERM);
                self.told.push(child);
            }
        }
        PollTimeout::from(50_u8)
    }
}

/// Our children, as the kernel lists them.
pub fn children() -> Vec<Pid> {
    let list = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
        .collect()
}
