//! Ordinary administration: what must work, as far as the level allows.

use crate::Ends::Works;
use crate::{Entry, Refused, Try};
use nix::unistd::{Gid, Uid};
use std::fs;

/// What root does all day.
pub const ENTRIES: &[Entry] = &[Entry::work(
    "chown",
    "give a file to somebody else",
    [Works, Works, Works],
    chown,
)];

fn chown() -> Try {
    let file = "/file-of-an-administrator";
    fs::write(file, "").refused("write")?;
    let given = nix::unistd::chown(file, Some(Uid::from_raw(33)), Some(Gid::from_raw(33)));
    let _ = fs::remove_file(file);
    given.refused("chown")
}
