//! /proc: what is the whole machine's in it.

use crate::Ends::{Falls, Stands};
use crate::{Entry, Refused, Try};
use std::fs;

/// What has to do with /proc.
pub const ENTRIES: &[Entry] = &[
    Entry::inside(
        9,
        "core-pattern",
        "write kernel.core_pattern: a program of the attacker's for each crash on the host",
        [Falls, Stands, Stands],
        || write_same("/proc/sys/kernel/core_pattern"),
    ),
    Entry::inside(
        9,
        "vm-sysctl",
        "write a sysctl of the host's memory, vm.swappiness",
        [Falls, Stands, Stands],
        || write_same("/proc/sys/vm/swappiness"),
    ),
];

/// Writes to a file what it holds.
pub(crate) fn write_same(path: &str) -> Try {
    let value = fs::read(path).known(path)?;
    fs::write(path, value).refused(path)
}
