//! The configuration, subhost.conf(5): its syntax and what its variables come to ([`conf`]), and all that can be wrong with it
//! ([`check`]).
#![forbid(unsafe_code)]

pub mod check;
pub mod conf;
mod misspelt;
