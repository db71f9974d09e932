//! The configuration of a subhost, subhost.conf(5): its syntax ([`conf`]), its evaluation
//! ([`evaluation`]), and its problems ([`check`]).
#![forbid(unsafe_code)]

pub mod check;
pub mod conf;
pub mod evaluation;
mod findings;
mod insecure;
mod lines;
mod misspelt;
pub mod problem;
mod services;
mod stages;
