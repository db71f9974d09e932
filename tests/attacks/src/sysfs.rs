//! /sys: devices and links of the host.

use crate::places::open_anyhow;
use crate::procfs::open_for_writing;
use crate::table::{ALWAYS, FROM_YES};
use crate::{Entry, Refused, Try, not_here, refused};
use nix::net::if_::if_nameindex;
use std::collections::BTreeSet;
use std::fs;

/// Entries about /sys.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(9, "disk-settings", "open a setting of a disk in `/sys` for writing", FROM_YES, open_disk_setting),
    Entry::inside(9, "uevent-helper", "open `/sys/kernel/uevent_helper`, a program that the host runs, for writing", FROM_YES, || open_for_writing("/sys/kernel/uevent_helper")),
    Entry::inside(16, "links-in-sysfs", "see links of the host in `/sys/class/net`", ALWAYS, see_links),
    Entry::inside(0, "huge-pages", "open a setting of the memory in `/sys` for writing", FROM_YES, || open_for_writing("/sys/kernel/mm/transparent_hugepage/enabled")),
    Entry::inside(0, "power", "open `/sys/power/state`, which suspends the machine, for writing", FROM_YES, || open_for_writing("/sys/power/state")),
    Entry::inside(0, "module-settings", "open a module parameter for writing", FROM_YES, open_module_setting),
];

fn open_disk_setting() -> Try {
    let disks = fs::read_dir("/sys/block").known("/sys/block")?;
    let settings = disks
        .flatten()
        .map(|disk| disk.path().join("queue/read_ahead_kb"));
    open_first(settings)
}

fn open_module_setting() -> Try {
    let modules = fs::read_dir("/sys/module").known("/sys/module")?;
    let settings = modules
        .flatten()
        .filter_map(|module| fs::read_dir(module.path().join("parameters")).ok());
    let can_be_written = |path: &std::path::PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).is_ok_and(|status| status.permissions().mode() & 0o200 != 0)
    };
    open_first(
        settings
            .flatten()
            .flatten()
            .map(|setting| setting.path())
            .filter(can_be_written),
    )
}

fn open_first(mut paths: impl Iterator<Item = std::path::PathBuf>) -> Try {
    match paths.next() {
        Some(path) => open_anyhow(&path.display().to_string(), true).map(drop),
        None => not_here("there is no such file"),
    }
}

fn see_links() -> Try {
    let links = fs::read_dir("/sys/class/net").known("/sys/class/net")?;
    let own = if_nameindex().refused("list the links")?;
    let own: BTreeSet<_> = own
        .iter()
        .map(|link| link.name().to_string_lossy().into_owned())
        .collect();
    let is_foreign = |name: &String| !own.contains(name);
    let mut names = links
        .flatten()
        .map(|link| link.file_name().to_string_lossy().into_owned());
    match names.find(is_foreign) {
        Some(_) => Ok(()),
        None => refused("only links of the subhost are visible"),
    }
}
