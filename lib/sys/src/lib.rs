//! System calls that the crate nix does not have, each in a small safe wrapper.
//!
//! Apart from `ob-reaper`, which has no standard library, this is the only crate with `unsafe`. A
//! wrapper does no more than its system call; the crate `ob_document` and the tools define what a
//! subhost is.

pub mod credentials;
pub mod device;
mod fd;
pub mod fdstore;
pub mod file;
pub mod identity;
pub mod lock;
pub mod memfd;
pub mod mount;
pub mod mountinfo;
pub mod namespace;
pub mod netlink;
pub mod process;
pub mod terminal;
