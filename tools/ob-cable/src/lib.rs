//! The network namespace of a subhost and its cables: what the tool `ob-cable` is made of.
//!
//! [`netlink`] stands by itself, so that it can be tried with any bytes.
#![forbid(unsafe_code)]

pub mod ifupdown;
pub mod links;
pub mod namespace;
pub mod netlink;
pub mod steps;
pub mod unwire;
pub mod wire;
