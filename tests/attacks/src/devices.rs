//! Device nodes: what one may make, and what opens.

use crate::Ends::{Falls, Stands};
use crate::{Entry, Refused, Try, not_here, refused};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs;

/// What has to do with devices.
pub const ENTRIES: &[Entry] = &[
    Entry::inside(
        5,
        "disk",
        "make a node of the host's disk and open it",
        [Falls, Stands, Stands],
        open_disk,
    ),
    Entry::inside(
        0,
        "memory-device",
        "make a node of the machine's memory and open it",
        [Falls, Stands, Stands],
        open_memory,
    ),
];

fn open_disk() -> Try {
    let partitions = fs::read_to_string("/proc/partitions").known("/proc/partitions")?;
    let numbers = partitions.lines().skip(2).filter_map(|line| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let mut last = not_here("there are no disks");
    for (major, minor) in numbers {
        last = open_node(SFlag::S_IFBLK, major, minor);
        if last.is_ok() {
            break;
        }
    }
    last
}

fn open_memory() -> Try {
    open_node(SFlag::S_IFCHR, 1, 1)
}

/// Makes a node, in the root and in a tmpfs of our own if we may mount one, and opens it for reading.
fn open_node(kind: SFlag, major: u64, minor: u64) -> Try {
    let node = "/node-of-an-attack";
    let made = mknod(
        node,
        kind,
        Mode::from_bits_truncate(0o600),
        makedev(major, minor),
    );
    made.refused("mknod")?;
    let opened = open(node, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    let _ = fs::remove_file(node);
    match opened {
        Ok(_) => Ok(()),
        Err(nix::errno::Errno::ENXIO | nix::errno::Errno::ENOMEDIUM) => {
            not_here(format!("there is no device {major}:{minor}"))
        }
        // Not the node's owner or mount (EACCES), but a group of devices that the machine has around all of us.
        Err(nix::errno::Errno::EPERM) => {
            not_here(format!("this machine gives {major}:{minor} to nobody"))
        }
        Err(error) => refused(format!("open a node: {}", error.desc())),
    }
}
