//! Attacks by a hostile root inside a subhost, and the work of an honest one: a table of small
//! programs.
//!
//! An [`Entry`] is one program: its description, its expected result at each [`Level`] of
//! protection, and a function that runs inside the subhost. Some entries need an accomplice
//! outside, such as an administrator who enters: that part is in the end-to-end tests
//! (`attacks.rs`). These run all entries in real subhosts and compare the results with the
//! expectations and with the record in `results/`. docs/security.md shows the results as a table.
//!
//! No entry may harm the machine if the attack succeeds: it opens a file for writing and does not
//! write, or writes the present value; it makes a call with arguments that the kernel rejects after
//! the permission check. Files of the host that an attack must reach are canaries.

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
