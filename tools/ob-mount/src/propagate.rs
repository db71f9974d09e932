//! Mounts that propagate to a running subhost with a user namespace.

use crate::idmap::enter_scratch;
use crate::overlay::open_path;
use crate::root::Root;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::fchdir;
use ob_sys::mount::{Depth, attach, clone_peer, mount_of, set_propagation};
use ob_sys::mountinfo::Mount;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How deep a directory may lie in its mount.
const DEEPEST: usize = 4096;

/// The mount namespace of a subhost, and a private mount namespace that belongs to the user
/// namespace of the host.
pub struct Crossing<'a> {
    /// The private mount namespace.
    ours: File,
    /// `/proc/self` of the host. Root inside can mount another filesystem on /proc
    /// of the subhost.
    process: OwnedFd,
    /// A pidfd of the subhost.
    pid_1: &'a OwnedFd,
}

impl<'a> Crossing<'a> {
    /// Opens the mount namespace of this process, which must be private.
    pub fn from_here_to(pid_1: &'a OwnedFd) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Crossing {
            ours: File::open("/proc/self/ns/mnt")?,
            process: open("/proc/self", flags, Mode::empty())?,
            pid_1,
        })
    }

    /// Moves this process to the mount namespace of the subhost.
    pub fn join(&self) -> Result<()> {
        setns(self.pid_1, CloneFlags::CLONE_NEWNS).context("join its mount namespace")
    }

    /// Unmounts the mount whose root is `target`, in the mount namespace of the subhost.
    pub fn unmount(&self, target: &OwnedFd) -> Result<()> {
        fchdir(&self.process)?;
        let link = format!("fd/{}", target.as_raw_fd());
        umount2(link.as_str(), MntFlags::MNT_DETACH).map_err(|error| match error {
            // A mount namespace of another user namespace has locked the mounts of the boot.
            Errno::EINVAL => anyhow!("the user namespace of the subhost locks it; boot again"),
            error => error.into(),
        })
    }

    /// Attaches a copy of `tree` to `target`, a file or directory below `root`, in the mount
    /// namespace of the subhost, which this process must have joined.
    ///
    /// The kernel locks the flags of a mount (read-only, nodev and so on) when it propagates to a
    /// mount namespace of another user namespace (`attach_recursive_mnt` in fs/namespace.c), but
    /// not when a process attaches it there. So the mount below `target` gets a temporary peer in
    /// the private mount namespace, and `tree` is attached to the peer.
    pub fn attach_locked(&self, root: &Root, tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
        let link = format!("fd/{}", target.as_raw_fd());
        let path = PathBuf::from(readlinkat(&self.process, link.as_str())?);
        let below = root_of_mount(root, &path, target).context("find the mount below it")?;
        let was_shared = self.is_shared(mount_of(&below)?.id)?;
        set_propagation(&below, Depth::One, libc::MS_SHARED)?;
        let attached = self.attach_to_peer(tree, target);
        self.join()?;
        if !was_shared {
            set_propagation(&below, Depth::One, libc::MS_PRIVATE)?;
        }
        attached?;
        // It is a shared mount, whose only peer is in the private mount namespace.
        let copy = root.find(&path, OFlag::O_PATH)?;
        Ok(set_propagation(copy, Depth::Recursive, libc::MS_PRIVATE)?)
    }

    fn attach_to_peer(&self, tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
        const PLACE: &str = "peer";
        let peer = clone_peer(target, c"", Depth::One)?;
        setns(&self.ours, CloneFlags::CLONE_NEWNS)?;
        // The kernel mounts nothing on a detached mount.
        enter_scratch()?;
        let here = open_path(Path::new("."))?;
        if is_directory(target)? {
            mkdirat(&here, PLACE, Mode::S_IRWXU)?;
        } else {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC;
            openat(&here, PLACE, flags, Mode::S_IRUSR)?;
        }
        attach(&peer, open_path(Path::new(PLACE))?)?;
        Ok(attach(tree, &peer)?)
    }

    /// Whether the mount `id` in the mount namespace of this process is shared.
    fn is_shared(&self, id: u64) -> Result<bool> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut table = Vec::new();
        openat(&self.process, "mountinfo", flags, Mode::empty())
            .map(File::from)?
            .read_to_end(&mut table)
            .context("read the table of mounts")?;
        let mounts = Mount::parse_table(&table);
        let mount = mounts.iter().find(|mount| mount.id == id);
        Ok(mount.context("its mount is gone")?.peer_group.is_some())
    }
}

/// Opens the root of the mount that contains `target`, which is at `path` below `root`. Fails if
/// root inside renames directories at the same time, so that `path` leads to another mount.
fn root_of_mount(root: &Root, path: &Path, target: &OwnedFd) -> Result<OwnedFd> {
    let mount = mount_of(target)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let mut place = match mount.is_root || is_directory(target)? {
        true => target.try_clone()?,
        false => root.find(path.parent().unwrap_or(path), flags)?,
    };
    for _ in 0..DEEPEST {
        let here = mount_of(&place)?;
        ensure!(here.id == mount.id, "it was moved to another mount");
        if here.is_root {
            return Ok(place);
        }
        place = openat(&place, "..", flags | OFlag::O_CLOEXEC, Mode::empty())?;
    }
    bail!("it is more than {DEEPEST} directories deep")
}

fn is_directory(file: &OwnedFd) -> Result<bool> {
    let kind = fstat(file)?.st_mode & SFlag::S_IFMT.bits();
    Ok(kind == SFlag::S_IFDIR.bits())
}
