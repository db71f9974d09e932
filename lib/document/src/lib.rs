//! The contract that all stages share: the document that flows through them ([`Document`]), the frame of a filter
//! ([`filter()`]), the state directory of a subhost ([`state`]), its log ([`log`]), and the words of CABLES ([`Cable`]).
#![forbid(unsafe_code)]

mod cable;
mod document;
mod filter;
mod hook;
pub mod log;
pub mod netns;
pub mod printable;
mod process;
mod share;
mod similar;
pub mod state;
pub mod steps;
mod tool;
pub mod tree;
mod trust;

pub use cable::Cable;
pub use document::{Document, Kind, VARIABLES, Variable, confid, is_plan, quote};
pub use filter::{filter, receive, send, undo, undo_together};
pub use hook::Hook;
pub use printable::printable;
pub use share::Share;
pub use similar::{distance, nearest};
pub use tool::{Silent, Tool, Usage, mistyped, sentence};
pub use trust::Trust;
