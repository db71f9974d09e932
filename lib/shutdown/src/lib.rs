//! Ends subhosts, for `ob-unshare` and `ob-room`: TERM to every process ([`ending`]), with help
//! from a process in the pid namespace ([`terminator`]), then KILL; finds and cancels guards
//! ([`guards`]); removes control groups ([`cgroup`]).
#![forbid(unsafe_code)]

pub mod cgroup;
mod child_terminator;
pub mod ending;
pub mod guards;
mod request;
mod signals;
pub mod terminator;
mod timeout;

pub use child_terminator::{ChildTerminator, children};
pub use signals::block_termination_signals;
pub use timeout::{KILL_TIMEOUT, STAGE_GRACE, end_timeout, stop_timeout};

/// The facts that `ob-unshare` and the guard write. They are removed when the subhost has ended.
pub const FACTS: &[&str] = &["pid", "pidns", "start", "cgroup", "guard", "guardstart"];
