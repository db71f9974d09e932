//! The end-to-end tests, one program: what each promise of the design looks like from outside.

mod attacks;
mod bad_input;
mod budget;
mod cables;
mod compose;
mod enter;
mod examples;
mod faults;
mod guard;
mod hazards;
mod install;
mod life;
mod lifecycle;
mod migration;
mod pages;
mod paths;
mod printed;
mod prompt;
mod protect;
mod races;
mod reaper_timeout;
mod security;
mod sigchld;
mod sudo;
mod userns;
