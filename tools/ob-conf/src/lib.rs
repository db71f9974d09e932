//! The contract that all stages share: the configuration ([`conf`]), the document that flows through them ([`Document`]), the frame of a filter
//! ([`filter`]), the document at rest ([`state`]), and what the words in it mean ([`Cable`]).
#![forbid(unsafe_code)]

mod cable;
pub mod check;
pub mod conf;
mod document;
mod filter;
mod hook;
pub mod limits;
pub mod log;
pub mod netns;
pub mod protect;
pub mod seccomp;
mod similar;
pub mod state;
pub mod steps;
mod syscalls;
mod tool;
mod trust;
pub mod userns;

pub use cable::Cable;
pub use document::{Document, Kind, VARIABLES, Variable, quote};
pub use filter::{filter, receive, send, undo, undo_together};
pub use hook::Hook;
pub use similar::nearest;
pub use tool::{Silent, Tool, Usage, mistyped, sentence};
pub use trust::doubt;
