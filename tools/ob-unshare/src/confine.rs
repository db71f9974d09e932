//! Applies the protection of the configuration: masked and read-only paths, capabilities, system
//! call filters.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::libc::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, S_IFCHR, S_IFDIR,
    S_IFMT, dev_t,
};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat, minor, mkdirat};
use nix::unistd::sethostname;
use ob_confine::protect::Protection;
use ob_confine::seccomp::Filters;
use ob_document::Document;
use ob_document::state::StateDir;
use ob_sys::device;
use ob_sys::mount::{Attributes, Depth, Filesystem, attach, clone_tree, set_attributes};
use std::os::fd::OwnedFd;
use std::path::Path;

const READ_ONLY: Attributes =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// The protection of a subhost, ready to be applied.
pub struct Confinement {
    protection: Protection,
    filters: Option<Filters>,
}

impl Confinement {
    /// Reads the protection from the document, and writes the system call filters to the state
    /// directory, for commands that enter. `mapped` is whether the subhost has a user namespace.
    pub fn of(document: &Document, mapped: bool) -> Result<Self> {
        let protection = Protection::of(document, mapped)?;
        let filters = protection.make_filters(&StateDir::of(document.name()))?;
        Ok(Confinement {
            protection,
            filters,
        })
    }

    /// Adds the variables of SETENV; they replace variables of the same name.
    pub fn extend(&self, environment: &mut Vec<String>) {
        for (name, value) in &self.protection.environment {
            let start = format!("{name}=");
            environment.retain(|variable| !variable.starts_with(&start));
            environment.push(start + value);
        }
    }

    /// Sets the resource limits of pid 1. Must be called before it joins a user namespace: there it
    /// cannot raise a limit.
    pub fn set_rlimits(&self) -> Result<()> {
        self.protection.set_rlimits()
    }

    /// Returns whether a masked path is in the root itself, not in a filesystem of the kernel.
    pub fn masks_files(&self) -> bool {
        let mut masks = self.protection.masks.iter();
        masks.any(|path| !is_of_kernel(path.as_ref()))
    }

    /// Masks these paths. Must be called outside of the user namespace, whose root could unmount
    /// the masks otherwise.
    pub fn cover_files(&self) -> Result<()> {
        let masks = self.protection.masks.iter().map(AsRef::as_ref);
        cover(masks.filter(|path| !is_of_kernel(path))).context("mask the paths of MASK")
    }

    /// Sets the host name, makes paths read-only and masks paths, in the root of the subhost. With
    /// a user namespace (`has_users`), [`Self::cover_files`] has masked the paths of the root
    /// already. `console` is the terminal for /dev/console.
    pub fn cover(&self, has_users: bool, console: Option<dev_t>) -> Result<()> {
        let protection = &self.protection;
        if let Some(name) = &protection.hostname {
            sethostname(name).with_context(|| format!("HOSTNAME={name}"))?;
        }
        for path in &protection.read_only {
            make_read_only(path).with_context(|| format!("make {} read-only", path.display()))?;
        }
        if protection.no_devices {
            set_nodev().context("set nodev on the mount of /")?;
        }
        match console {
            Some(device) => bind_console(&format!("/dev/pts/{}", minor(device)), device)?,
            None if protection.no_console => bind_console("/dev/null", device::NULL)?,
            None => {}
        }
        let masks = protection.masks.iter().map(AsRef::as_ref);
        cover(masks.filter(|path| !has_users || is_of_kernel(path)))
            .context("mask the paths of MASK")
    }

    /// Drops privileges and loads the filters: the last step before execve(2).
    pub fn apply(&self) -> Result<()> {
        self.protection.apply(self.filters.as_ref())
    }
}

/// Returns whether `path` is in procfs or sysfs. Root of a user namespace can mount these again
/// without masks; the kernel checks its access there against the user namespace of the host.
fn is_of_kernel(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/sys")
}

/// Opens `path`; returns `None` if it does not exist.
fn find(path: &Path, more: OFlag) -> nix::Result<Option<OwnedFd>> {
    match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC | more, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        found => found.map(Some),
    }
}

/// Mounts a read-only copy of `path` on `path`.
fn make_read_only(path: &Path) -> Result<()> {
    let Some(there) = find(path, OFlag::empty())? else {
        return Ok(());
    };
    let copy = clone_tree(&there, c"", Depth::One)?;
    set_attributes(&copy, Depth::One, READ_ONLY, 0, None)?;
    Ok(attach(copy, there)?)
}

/// Mounts an empty read-only directory on each directory, and an empty read-only file on other
/// files.
fn cover<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<()> {
    let mut found = Vec::new();
    for path in paths {
        found.extend(find(path, OFlag::empty()).with_context(|| path.display().to_string())?);
    }
    if found.is_empty() {
        return Ok(());
    }
    let empty = empty()?;
    let (file, directory) = (
        openat(
            &empty,
            "file",
            OFlag::O_PATH | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?,
        openat(
            &empty,
            "directory",
            OFlag::O_PATH | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?,
    );
    // Before Linux 6.15, open_tree(2) copies only attached mounts: attached to /proc until all
    // copies exist. All paths are open before.
    attach(
        &empty,
        find(Path::new("/proc"), OFlag::empty())?.ok_or(Errno::ENOENT)?,
    )?;
    let covered = found.into_iter().try_for_each(|target| {
        let is_directory = fstat(&target)?.st_mode & S_IFMT == S_IFDIR;
        let source = if is_directory { &directory } else { &file };
        attach(clone_tree(source, c"", Depth::One)?, target)
    });
    umount2("/proc", MntFlags::MNT_DETACH)?;
    Ok(covered?)
}

/// Creates a tmpfs with an empty file and an empty directory.
fn empty() -> Result<OwnedFd> {
    let tmpfs = Filesystem::new(c"tmpfs")?;
    tmpfs.set(c"source", "masked")?;
    tmpfs.set(c"mode", "555")?;
    tmpfs.create()?;
    let tree = tmpfs.mount(0)?;
    mkdirat(&tree, "directory", Mode::from_bits_truncate(0o555))?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    openat(&tree, "file", flags, Mode::from_bits_truncate(0o444))?;
    set_attributes(&tree, Depth::One, READ_ONLY, 0, None)?;
    Ok(tree)
}

/// Sets `nodev` on the mount of the root, unless /dev is in it.
fn set_nodev() -> Result<()> {
    let look = |path| find(Path::new(path), OFlag::O_DIRECTORY);
    let (Some(root), Some(dev)) = (look("/")?, look("/dev")?) else {
        return Ok(());
    };
    if fstat(&root)?.st_dev != fstat(&dev)?.st_dev {
        set_attributes(&root, Depth::One, MOUNT_ATTR_NODEV, 0, None)?;
    }
    Ok(())
}

/// Mounts `path`, which must be the character device `device`, on /dev/console; an empty file, if
/// it is another file. Services can still write to the console, but a reader of the real one would
/// read the input of the console of the host.
fn bind_console(path: &str, device: dev_t) -> Result<()> {
    let find_device = |path: &str| -> Result<Option<(OwnedFd, dev_t)>> {
        let Some(fd) = find(Path::new(path), OFlag::O_NOFOLLOW)? else {
            return Ok(None);
        };
        let status = fstat(&fd)?;
        let is_device = status.st_mode & S_IFMT == S_IFCHR;
        Ok(is_device.then_some((fd, status.st_rdev)))
    };
    let bind = || {
        let Some((console, _)) = find_device("/dev/console")? else {
            return Ok(());
        };
        match find_device(path)?.filter(|(_, found)| *found == device) {
            Some((found, _)) => Ok(attach(clone_tree(found, c"", Depth::One)?, console)?),
            None => cover(std::iter::once(Path::new("/dev/console"))),
        }
    };
    bind().with_context(|| format!("bind {path} on /dev/console"))
}
