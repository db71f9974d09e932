//! Processes: objects of the host that pid 1, an entering command or another process holds.

use crate::foreign::Own;
use crate::system::{owner_of, parent_of};
use crate::table::ALWAYS;
use crate::{Entry, Refused, Try, refused};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

/// Entries about processes.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(3, "mapped-files", "open a program or library of the host that pid 1 has mapped", ALWAYS, || hold_of("1", &["exe", "map_files"])),
    Entry::inside(12, "environment", "read the environment of the administrator who boots and enters", ALWAYS, read_secret),
    Entry::inside(13, "descriptors", "use a descriptor or directory that pid 1 or an entering command holds", ALWAYS, use_descriptors),
    Entry::inside(0, "parent-namespaces", "open the parent namespaces, `ioctl_ns(2)`", ALWAYS, go_up),
    Entry::both(0, "ipc", "see a message queue of the host", ALWAYS, see_queue),
    Entry::both(0, "other-processes", "see a process of the host or of another subhost", ALWAYS, see_others),
];

fn hold_of(process: &str, what: &[&str]) -> Try {
    match Own::new().find(process, what) {
        Some(_) => Ok(()),
        None => refused("the process holds only objects of the subhost and sealed memfds"),
    }
}

fn use_descriptors() -> Try {
    hold_of("self", &["fd", "cwd", "root"]).or_else(|_| hold_of("1", &["fd", "cwd", "root"]))
}

/// The test boots and enters with this variable in the environment.
fn read_secret() -> Try {
    let processes = fs::read_dir("/proc").refused("/proc")?;
    let has_secret = |path: &std::path::PathBuf| {
        fs::read(path).is_ok_and(|text| text.windows(12).any(|part| part == b"SECRET_TOKEN"))
    };
    let mut environments = processes
        .flatten()
        .map(|process| process.path().join("environ"));
    match environments.find(has_secret) {
        Some(_) => Ok(()),
        None => refused("no process has the variable"),
    }
}

fn go_up() -> Try {
    let open = |name: &str| File::open(format!("/proc/self/ns/{name}")).refused(name);
    for name in ["pid", "user"] {
        if parent_of(open(name)?).is_ok() {
            return Ok(());
        }
    }
    let inode = |file: &File| file.metadata().map(|status| status.ino()).refused("fstat");
    let user = inode(&open("user")?)?;
    for name in ["mnt", "net", "pid", "uts", "ipc"] {
        let Ok(owner) = owner_of(open(name)?) else {
            continue;
        };
        // The owner may also be a child of this user namespace, as that of the network is.
        let owner = File::from(owner);
        let above = parent_of(&owner).map(File::from);
        let is_below = above.is_ok_and(|above| inode(&above).is_ok_and(|above| above == user));
        if inode(&owner)? != user && !is_below {
            return Ok(());
        }
    }
    refused("the kernel does not show the parents")
}

/// The test has started processes on the host and in another subhost with the word "canary".
fn see_others() -> Try {
    let processes = fs::read_dir("/proc").refused("/proc")?.flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let is_canary = |line: Vec<u8>| String::from_utf8_lossy(&line).contains("canary");
    match lines.any(is_canary) {
        true => Ok(()),
        false => refused("only processes of the subhost are visible"),
    }
}

/// The test makes a queue before.
fn see_queue() -> Try {
    let queues = fs::read_to_string("/proc/sysvipc/msg").known("/proc/sysvipc/msg")?;
    match queues.lines().count() {
        0 | 1 => refused("no queue is visible"),
        _ => Ok(()),
    }
}
