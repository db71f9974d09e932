//! Connects a command to its caller without passing it any descriptor of the caller.
//!
//! [`CallerStdio`] examines the standard descriptors of the caller and creates [`ChildStdio`] for
//! the command. A [`Proxy`] copies bytes, and forwards signals and the window size, while the
//! command runs.
#![forbid(unsafe_code)]

mod channel;
mod descriptor;
mod end;
mod event;
mod proxy;
mod relay;
mod signals;
mod stdio;
mod suspend;
mod terminal;

pub use end::End;
pub use proxy::Proxy;
pub use stdio::{CallerStdio, ChildStdio};
