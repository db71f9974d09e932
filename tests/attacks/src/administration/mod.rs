//! Ordinary administration: what must work, as far as the level allows.
//!
//! Most of it is done as an administrator does it, with the subhost's own programs: see `shell`.

use crate::Entry;

mod files;
mod mounts;
mod network;
mod packages;
mod processes;
mod services;
mod shell;
mod users;

/// What root does all day.
pub const SUBJECTS: &[&[Entry]] = &[
    files::ENTRIES,
    users::ENTRIES,
    packages::ENTRIES,
    processes::ENTRIES,
    mounts::ENTRIES,
    network::ENTRIES,
    services::ENTRIES,
];
