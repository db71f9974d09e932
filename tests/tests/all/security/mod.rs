//! Attacks from the other sides: the pipeline, the configuration, the state, the caller and the
//! neighbours. The name of each test begins with the number of the attack in docs/security.md.

mod callers;
mod commands;
mod facts;
mod layers;
mod mounts;
mod streams;
