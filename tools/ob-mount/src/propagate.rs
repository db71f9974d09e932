//! Mounts that reach a running subhost with a user namespace by propagation.

use crate::mapped::{enter_scratch, look};
use crate::root::Root;
use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use ob_sys::mount::{Depth, attach, clone_peer, mount_of, set_propagation};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How many directories a mount may be deep.
const DEEPEST: usize = 4096;

/// The way between the mount namespace of a subhost and a private one of the host's user namespace.
pub struct Crossing<'a> {
    /// The private one.
    ours: File,
    /// `/proc/self` of the host: the one inside is made by root inside.
    process: OwnedFd,
    pid_1: &'a OwnedFd,
}

impl<'a> Crossing<'a> {
    /// Opens the way back to the mount namespace that this process is in, which must be private.
    pub fn from_here_to(pid_1: &'a OwnedFd) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Crossing {
            ours: File::open("/proc/self/ns/mnt")?,
            process: open("/proc/self", flags, Mode::empty())?,
            pid_1,
        })
    }

    /// Takes this process into the mount namespace of the subhost.
    pub fn join(&self) -> Result<()> {
        setns(self.pid_1, CloneFlags::CLONE_NEWNS).context("join its mount namespace")
    }

    /// Attaches a copy of `tree` to `target`, a file or directory below `root`, in the mount
    /// namespace of the subhost, where this process is.
    ///
    /// The kernel locks the flags of a mount (read-only, nodev and so on) when it propagates to a
    /// mount namespace of another user namespace (`attach_recursive_mnt` in fs/namespace.c), and not
    /// when a process attaches it there. So the mount below `target` gets a peer on our side for as
    /// long as this takes, and `tree` is attached to the peer.
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
        // It came as a shared mount, with no peer but the one on our side.
        let copy = root.find(&path, OFlag::O_PATH)?;
        Ok(set_propagation(copy, Depth::Recursive, libc::MS_PRIVATE)?)
    }

    fn attach_to_peer(&self, tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
        const PLACE: &str = "peer";
        let peer = clone_peer(target, c"", Depth::One)?;
        setns(&self.ours, CloneFlags::CLONE_NEWNS)?;
        // A peer gets nothing mounted on it as long as it is attached nowhere.
        enter_scratch()?;
        let here = look(Path::new("."))?;
        if is_directory(target)? {
            mkdirat(&here, PLACE, Mode::S_IRWXU)?;
        } else {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC;
            openat(&here, PLACE, flags, Mode::S_IRUSR)?;
        }
        attach(&peer, look(Path::new(PLACE))?)?;
        Ok(attach(tree, &peer)?)
    }

    /// Whether the mount with this number, in the mount namespace that this process is in, is shared.
    fn is_shared(&self, id: u64) -> Result<bool> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut table = String::new();
        openat(&self.process, "mountinfo", flags, Mode::empty())
            .map(File::from)?
            .read_to_string(&mut table)
            .context("read the table of mounts")?;
        let id = id.to_string();
        let line = table
            .lines()
            .find(|line| line.split(' ').next() == Some(&id));
        let fields = line.context("its mount is gone")?.split(' ');
        Ok(fields
            .take_while(|field| *field != "-")
            .any(|field| field.starts_with("shared:")))
    }
}

/// Opens the root of the mount that `target`, at `path` below `root`, lies on. Root inside may rename
/// directories meanwhile: then another mount is found, or none, and this fails.
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
