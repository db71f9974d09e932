//! What a hostile root tries inside a subhost, and what an honest one does there all day: a table of small programs.
//!
//! An [`Entry`] is one of them: its words, what is expected of it at each [`Level`] of protection, and a function that does it
//! from where it is run, inside. Some need somebody outside as well, such as an administrator who enters: that part is in the
//! end-to-end tests (`attacks.rs`), which run all entries in real subhosts and hold the outcomes against what is expected, and
//! against what was measured before (`results/`). docs/security.md shows the results as a table.
//!
//! None of them may harm the machine where it gets through: a file is opened for writing and not written to, or gets the value
//! that it had; a call is made with arguments that are refused after the permission was looked at. Files of the host's that are
//! to be reached are canaries.

pub mod administration;
mod calls;
mod cgroups;
mod devices;
mod entering;
mod failed;
mod files;
mod foreign;
mod mounts;
mod network;
mod places;
mod processes;
mod procfs;
pub mod results;
mod sides;
mod sysfs;
mod system;
mod table;
mod terminal;
mod users;

pub use failed::{Failed, Refused, Try, not_here, refused};
pub use table::{Ends, Entry, Kind, LEVELS, Level, Part, find, table};
