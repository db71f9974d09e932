//! Ordinary administration, which must work as far as the level permits.
//!
//! Most entries use programs of the subhost, as an administrator does: see `shell`.

use crate::Entry;

mod files;
mod mounts;
mod network;
mod packages;
mod processes;
mod services;
mod shell;
mod users;

/// All entries of administration.
pub const SUBJECTS: &[&[Entry]] = &[
    files::ENTRIES,
    users::ENTRIES,
    packages::ENTRIES,
    processes::ENTRIES,
    mounts::ENTRIES,
    network::ENTRIES,
    services::ENTRIES,
];
