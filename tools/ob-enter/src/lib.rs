//! What stands between the caller's descriptors and those of a command that is not to touch them: [`Streams`] looks at the
//! caller's, makes those of the command, and a [`Proxy`] carries bytes, signals and the window's size over while it runs.
#![forbid(unsafe_code)]

mod channel;
mod proxy;
mod signals;
mod streams;
mod terminal;

pub use proxy::{End, Proxy};
pub use streams::{Inside, Streams};
