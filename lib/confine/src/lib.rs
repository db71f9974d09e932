//! What a subhost may do: the level of protection and the variables beside it ([`protect`]), the filter of system calls
//! ([`seccomp`]), its user namespace ([`userns`]) and the limits of its control group ([`cgroup_limits`]).
#![forbid(unsafe_code)]

mod capabilities;
pub mod cgroup_limits;
pub mod protect;
pub mod seccomp;
mod syscalls;
pub mod userns;
