//! The contract of the stages: the document that they pass on ([`Document`]), the frame of a stage
//! ([`filter()`]), the state directory ([`state`]) and the log ([`log`]) of a subhost, and the
//! words of CABLES ([`Cable`]).
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
pub mod signal;
pub mod state;
pub mod steps;
mod suggest;
mod tool;
pub mod tree;
mod variables;

pub use cable::{Cable, NamedCable};
pub use document::{Document, STEPS, confid, is_plan, quote};
pub use filter::{filter, receive, send, undo, undo_together};
pub use hook::Hook;
pub use ownership::{Ownership, closed};
pub use printable::printable;
pub use share::{Share, hidden_by};
pub use suggest::{closest, distance};
pub use tool::{Silent, Tool, Usage, one_line, unknown_option};
pub use variables::{FREE, Kind, VARIABLES, Variable, remedy_of_missing};
