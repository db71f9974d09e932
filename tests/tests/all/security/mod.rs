//! One test for each attack from the other sides: the pipeline, the configuration, the state, the caller and the neighbours.
//! Each is named by the number that docs/security.md has for it.

mod callers;
mod commands;
mod facts;
mod layers;
mod mounts;
mod streams;
