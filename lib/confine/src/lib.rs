//! What a subhost may do.
//!
//! - [`protect`]: the protection level, and the variables that change single parts of it.
//! - [`seccomp`]: system call filters.
//! - [`userns`]: the user namespace.
//! - [`cgroup_limits`]: the limits of the control group.
#![forbid(unsafe_code)]

mod capabilities;
pub mod cgroup_limits;
pub mod protect;
pub mod seccomp;
mod syscalls;
pub mod userns;
