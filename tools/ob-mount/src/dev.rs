//! The files of /dev: one list for a boot, which makes them, and a dry run, which prints commands.

use crate::overlay::open_path;
use crate::root::Root;
use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat, umask};
use nix::unistd::{Gid, fchownat, symlinkat};
use ob_confine::userns::IdRange;
use ob_document::steps::command;
use ob_sys::mount::{Depth, attach, clone_tree};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The group tty, which has this number in all distributions.
pub const TTY: u32 = 5;

/// A file of a new filesystem, by its name.
pub enum Entry {
    /// A directory with its mode.
    Directory(&'static str, u32),
    /// A symbolic link with its target.
    Link(&'static str, &'static str),
    /// A character device with its mode, group, major and minor number.
    Node(&'static str, u32, u32, (u64, u64)),
}

/// Major and minor number of /dev/null.
const NULL: (u64, u64) = (1, 3);

/// The files of /dev.
pub const ENTRIES: &[Entry] = &[
    Entry::Node("console", 0o622, TTY, (5, 1)),
    Entry::Node("full", 0o666, 0, (1, 7)),
    Entry::Node("null", 0o666, 0, NULL),
    Entry::Node("ptmx", 0o666, TTY, (5, 2)),
    Entry::Node("random", 0o444, 0, (1, 8)),
    Entry::Node("tty", 0o666, TTY, (5, 0)),
    Entry::Node("urandom", 0o444, 0, (1, 9)),
    Entry::Node("zero", 0o666, 0, (1, 5)),
    Entry::Link("core", "/proc/kcore"),
    Entry::Link("fd", "/proc/self/fd"),
    Entry::Link("stderr", "/proc/self/fd/2"),
    Entry::Link("stdin", "/proc/self/fd/0"),
    Entry::Link("stdout", "/proc/self/fd/1"),
];

impl Entry {
    /// Makes the file in `parent`, with its mode for any umask. Returns false if the kernel does
    /// not let this process create it, a node.
    pub fn make(&self, parent: &OwnedFd, ids: Option<IdRange>) -> nix::Result<bool> {
        let bits = Mode::from_bits_truncate;
        match *self {
            Entry::Directory(name, mode) => without_umask(|| mkdirat(parent, name, bits(mode)))?,
            Entry::Link(name, target) => symlinkat(target, parent, name)?,
            Entry::Node(name, mode, owner, device) => {
                // With a user namespace, root inside must not read input from the console of the
                // host.
                let is_console = name == "console" && ids.is_some();
                let (major, minor) = if is_console { NULL } else { device };
                let device = makedev(major, minor);
                match without_umask(|| mknodat(parent, name, SFlag::S_IFCHR, bits(mode), device)) {
                    // mknod(2) needs CAP_MKNOD in the initial user namespace. A bind mount of ptmx
                    // of the host would create terminals of the host.
                    Err(Errno::EPERM) if name == "ptmx" => {
                        symlinkat("pts/ptmx", parent, name)?;
                        return Ok(true);
                    }
                    Err(Errno::EPERM) => return Ok(false),
                    created => created?,
                }
                if owner != 0 {
                    let group = Some(group(owner, ids));
                    fchownat(parent, name, None, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                }
            }
        }
        Ok(true)
    }

    /// Appends to `steps` the commands that make the file in the directory `parent`.
    pub fn describe(&self, parent: &Path, steps: &mut Vec<String>) {
        let path = parent.join(self.name()).display().to_string();
        match self {
            Entry::Directory(_, mode) => {
                steps.push(command(["mkdir", "-m", &format!("{mode:o}"), &path]));
            }
            Entry::Link(_, target) => steps.push(command(["ln", "-s", target, &path])),
            Entry::Node(_, mode, owner, (major, minor)) => {
                let [major, minor] = [major, minor].map(ToString::to_string);
                let mode = format!("{mode:o}");
                steps.push(command(["mknod", "-m", &mode, &path, "c", &major, &minor]));
                if *owner != 0 {
                    steps.push(command(["chgrp", &owner.to_string(), &path]));
                }
            }
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Entry::Directory(name, _) | Entry::Link(name, _) | Entry::Node(name, ..) => name,
        }
    }
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
