//! The end-to-end tests, one program: what each promise of the design looks like from outside.

mod bad_input;
mod cables;
mod compose;
mod enter;
mod life;
mod paths;
mod protect;
mod sudo;
mod userns;
