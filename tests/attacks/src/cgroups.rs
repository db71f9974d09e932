//! Control groups: limits, and the processes that they cover.

use crate::places::Mounted;
use crate::table::{ALWAYS, FROM_YES};
use crate::{Entry, Refused, Try, not_here, refused};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Entries about control groups.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(6, "release-agent", "set `release_agent` of a cgroup v1 tree, a program that the host runs", FROM_YES, set_agent),
    Entry::inside(7, "leave-group", "mount the cgroup v2 tree and leave the control group", FROM_YES, leave),
    Entry::inside(7, "raise-limits", "mount the cgroup v2 tree and raise the limits", FROM_YES, raise),
    Entry::inside(15, "unaccounted", "run an entered command outside of the control group", ALWAYS, be_elsewhere),
    Entry::inside(0, "kill-neighbour", "mount the cgroup v2 tree and open `cgroup.kill` of another subhost", FROM_YES, kill_neighbour),
];

/// A new hierarchy without controllers, so that no other agent changes; the write repeats the empty
/// value.
fn set_agent() -> Try {
    let tree = Mounted::new("cgroup", Some("none,name=attack"));
    if tree.is_err() {
        // Outside of the first control group namespace, the kernel refuses this even to root on the
        // host.
        is_first_namespace()?;
    }
    let tree = tree.known("mount cgroup")?;
    fs::write(tree.at("release_agent"), "\n").refused("release_agent")
}

fn is_first_namespace() -> Try {
    const FIRST: u64 = 0xefff_fffb;
    let namespace = fs::metadata("/proc/self/ns/cgroup").known("/proc/self/ns/cgroup")?;
    let filtered = crate::failed::is_filtered();
    if namespace.ino() != FIRST && !filtered {
        return not_here("the test runs in another control group namespace");
    }
    Ok(())
}

fn leave() -> Try {
    let tree = mount_tree()?;
    let own = own_group()?;
    let is_elsewhere = |group: &PathBuf| !group.starts_with(&own);
    let mut others = groups(&tree).into_iter().filter(is_elsewhere).peekable();
    if others.peek().is_none() {
        return refused("the tree shows no other group");
    }
    let mut last = Ok(());
    for other in others {
        let procs = tree
            .at(other.strip_prefix("/").unwrap_or(&other))
            .join("cgroup.procs");
        last = fs::write(procs, "0").refused("move to another group");
        if last.is_ok() {
            break;
        }
    }
    last
}

fn raise() -> Try {
    let tree = mount_tree()?;
    let own = own_group()?;
    let own = tree.at(own.strip_prefix("/").unwrap_or(&own));
    let limits = [
        "pids.max",
        "memory.max",
        "cpu.max",
        "cgroup.max.descendants",
    ];
    let Some(limit) = limits.into_iter().find(|limit| own.join(limit).exists()) else {
        return not_here("the group has no limits");
    };
    let value = fs::read(own.join(limit)).refused(limit)?;
    fs::write(own.join(limit), value).refused(limit)
}

fn kill_neighbour() -> Try {
    let tree = mount_tree()?;
    let own = own_group()?;
    let is_neighbour = |group: &PathBuf| group.ends_with("b") && !group.starts_with(&own);
    let Some(other) = groups(&tree).into_iter().find(is_neighbour) else {
        return refused("the tree shows no other group");
    };
    let kill = tree
        .at(other.strip_prefix("/").unwrap_or(&other))
        .join("cgroup.kill");
    OpenOptions::new()
        .write(true)
        .open(kill)
        .known("cgroup.kill")
        .map(drop)
}

fn be_elsewhere() -> Try {
    let group = |of: &str| fs::read_to_string(format!("/proc/{of}/cgroup")).known("/proc/1/cgroup");
    if group("self")? == group("1")? {
        return refused("the command is in the group of the subhost");
    }
    Ok(())
}

fn mount_tree() -> Try<Mounted> {
    Mounted::new("cgroup2", None).known("mount cgroup2")
}

/// Returns the path of the control group, as the control group namespace shows it.
fn own_group() -> Try<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").known("/proc/self/cgroup")?;
    match groups.lines().find_map(|line| line.strip_prefix("0::")) {
        Some(path) => Ok(PathBuf::from(path)),
        None => not_here("this kernel has no cgroup v2 tree"),
    }
}

/// Returns the paths of all groups below the root of the tree.
fn groups(tree: &Mounted) -> Vec<PathBuf> {
    fn add(root: &Path, directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                found.extend(
                    path.strip_prefix(root)
                        .ok()
                        .map(|below| Path::new("/").join(below)),
                );
                add(root, &path, found);
            }
        }
    }
    let root = tree.at("");
    let mut found = Vec::new();
    add(&root, &root, &mut found);
    found
}
