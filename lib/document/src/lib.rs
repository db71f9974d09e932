//! The contract that all stages share: the document that flows through them ([`Document`]), the frame of a filter
//! ([`filter()`]), the state directory of a subhost ([`state`]), its log ([`log`]), and the words of CABLES ([`Cable`]).
#![forbid(unsafe_code)]

mod cable;
mod document;
mod filter;
mod hook;
pub mod inside;
pub mod log;
pub mod netns;
mod ownership;
pub mod printable;
mod process;
mod share;
pub mod state;
pub mod steps;
mod suggest;
mod tool;
pub mod tree;

pub use cable::Cable;
pub use document::{Document, Kind, VARIABLES, Variable, confid, is_plan, quote};
pub use filter::{filter, receive, send, undo, undo_together};
pub use hook::Hook;
pub use ownership::{Trust, closed};
pub use printable::printable;
pub use share::Share;
pub use suggest::{closest, distance};
pub use tool::{Silent, Tool, Usage, one_line, unknown_option};
