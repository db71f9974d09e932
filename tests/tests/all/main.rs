//! The end-to-end tests, one program: what each promise of the design looks like from outside.

mod life;
mod userns;
