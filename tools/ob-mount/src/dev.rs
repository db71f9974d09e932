//! The contents of /dev.

use crate::overlay::open_path;
use crate::root::Root;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat, umask};
use nix::unistd::{Gid, fchownat, symlinkat};
use ob_confine::userns::IdRange;
use ob_document::steps::command;
use ob_sys::mount::{Depth, attach, clone_tree};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The group tty, which has this number in all distributions.
pub const TTY: u32 = 5;

/// Name, mode, group, major and minor number.
const NODES: &[(&str, u32, u32, u64, u64)] = &[
    ("console", 0o622, TTY, 5, 1),
    ("full", 0o666, 0, 1, 7),
    ("null", 0o666, 0, 1, 3),
    ("ptmx", 0o666, TTY, 5, 2),
    ("random", 0o444, 0, 1, 8),
    ("tty", 0o666, TTY, 5, 0),
    ("urandom", 0o444, 0, 1, 9),
    ("zero", 0o666, 0, 1, 5),
];

/// Major and minor number of /dev/null.
const NULL: (u64, u64) = (1, 3);

const LINKS: &[(&str, &str)] = &[
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// Fills /dev. Returns the nodes that the kernel does not let this process create.
pub fn fill(dev: &OwnedFd, ids: Option<IdRange>) -> Result<Vec<&'static str>> {
    let refused = without_umask(|| make_nodes(dev, ids))?;
    for (name, target) in LINKS {
        symlinkat(*target, dev, *name).with_context(|| format!("make /dev/{name}"))?;
    }
    make_directory(dev, "pts", 0o755)?;
    make_directory(dev, "shm", 0o755)?;
    Ok(refused)
}

fn make_nodes(dev: &OwnedFd, ids: Option<IdRange>) -> Result<Vec<&'static str>> {
    let mut refused = Vec::new();
    for (name, mode, owner, major, minor) in NODES {
        // With a user namespace, root inside must not read input from the console of the host.
        let (major, minor) = match *name {
            "console" if ids.is_some() => NULL,
            _ => (*major, *minor),
        };
        let mode = Mode::from_bits_truncate(*mode);
        let created = mknodat(dev, *name, SFlag::S_IFCHR, mode, makedev(major, minor));
        match created {
            // mknod(2) needs CAP_MKNOD in the initial user namespace. A bind mount of ptmx of the
            // host would create terminals of the host.
            Err(Errno::EPERM) if *name == "ptmx" => symlinkat("pts/ptmx", dev, *name)?,
            Err(Errno::EPERM) => refused.push(*name),
            created => created.with_context(|| format!("make /dev/{name}"))?,
        }
        if created.is_ok() && *owner != 0 {
            let group = Some(group(*owner, ids));
            fchownat(dev, *name, None, group, AtFlags::AT_SYMLINK_NOFOLLOW)
                .with_context(|| format!("give /dev/{name} to its group"))?;
        }
    }
    Ok(refused)
}

/// Makes the directory `name` in `parent`, with this mode for any umask.
pub fn make_directory(parent: impl AsFd, name: &str, mode: u32) -> Result<()> {
    without_umask(|| mkdirat(parent, name, Mode::from_bits_truncate(mode)))
        .with_context(|| format!("make the directory {name}"))
}

fn without_umask<T>(create: impl FnOnce() -> T) -> T {
    let old = umask(Mode::empty());
    let created = create();
    umask(old);
    created
}

/// Returns the number on the host of the group `inside` of the subhost.
pub fn group(inside: u32, ids: Option<IdRange>) -> Gid {
    ids.map_or(Gid::from_raw(inside), |ids| ids.group(inside))
}

/// Bind-mounts a node of /dev of the host, for a process that cannot create a usable node.
pub fn bind_host_node(root: &Root, node: &str) -> Result<()> {
    let target = root.make_file(&Path::new("dev").join(node))?;
    let host = open_path(&Path::new("/dev").join(node))?;
    Ok(attach(clone_tree(host, c"", Depth::One)?, target)?)
}

/// Appends to `steps` the commands for what [`fill`] does below `live`, after the mounts on /dev.
pub fn describe(live: &Path, steps: &mut Vec<String>) {
    let at = |name: &str| live.join("dev").join(name).display().to_string();
    for (name, mode, owner, major, minor) in NODES {
        let (path, mode) = (at(name), format!("{mode:o}"));
        let (major, minor) = (major.to_string(), minor.to_string());
        steps.push(command(["mknod", "-m", &mode, &path, "c", &major, &minor]));
        if *owner != 0 {
            steps.push(command(["chgrp", &owner.to_string(), &path]));
        }
    }
    for (name, target) in LINKS {
        steps.push(command(["ln", "-s", target, &at(name)]));
    }
}
