//! What the configuration takes from the subhost: paths that are covered or read-only, capabilities, system calls.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::libc::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, S_IFCHR, S_IFDIR,
    S_IFMT,
};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat, major, minor, mkdirat};
use nix::unistd::sethostname;
use ob_confine::protect::Protection;
use ob_confine::seccomp::Filters;
use ob_document::Document;
use ob_document::state::StateDir;
use ob_sys::mount::{Attributes, Depth, Filesystem, attach, clone_tree, set_attributes};
use std::os::fd::OwnedFd;
use std::path::Path;

const READ_ONLY: Attributes =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// The protection of a subhost, ready to be put on.
pub struct Confinement {
    protection: Protection,
    filters: Option<Filters>,
}

impl Confinement {
    /// Reads it from the document, and leaves the filters for those who will enter. `mapped`: whether it
    /// has a user namespace.
    pub fn of(document: &Document, mapped: bool) -> Result<Self> {
        let protection = Protection::of(document, mapped)?;
        let filters = protection.make_filters(&StateDir::of(document.name()))?;
        Ok(Confinement {
            protection,
            filters,
        })
    }

    /// Adds the variables of SETENV, which count before those that are there.
    pub fn extend(&self, environment: &mut Vec<String>) {
        for (name, value) in &self.protection.environment {
            let start = format!("{name}=");
            environment.retain(|variable| !variable.starts_with(&start));
            environment.push(start + value);
        }
    }

    /// Sets the limits of pid 1, before it is in a user namespace.
    pub fn limit(&self) -> Result<()> {
        self.protection.set_rlimits()
    }

    /// Whether something is masked that lies in the root itself.
    pub fn masks_files(&self) -> bool {
        let mut masks = self.protection.masks.iter();
        masks.any(|path| !is_of_kernel(path.as_ref()))
    }

    /// Covers that. To be done from outside of a user namespace, whose root could take the cover away else.
    pub fn cover_files(&self) -> Result<()> {
        let masks = self.protection.masks.iter().map(AsRef::as_ref);
        cover(masks.filter(|path| !is_of_kernel(path))).context("cover what is masked")
    }

    /// Gives the host its name, and covers what is not to be seen or not to be written to. In the subhost's own root; of a subhost
    /// that `has_users` of its own the files are covered already.
    pub fn cover(&self, has_users: bool) -> Result<()> {
        let protection = &self.protection;
        if let Some(name) = &protection.hostname {
            sethostname(name).with_context(|| format!("HOSTNAME={name}"))?;
        }
        for path in &protection.read_only {
            make_read_only(path).with_context(|| format!("make {} read-only", path.display()))?;
        }
        if protection.no_devices {
            close_devices().context("make / a mount without devices")?;
        }
        if protection.no_console {
            hide_console().context("cover /dev/console")?;
        }
        let masks = protection.masks.iter().map(AsRef::as_ref);
        cover(masks.filter(|path| !has_users || is_of_kernel(path))).context("cover what is masked")
    }

    /// The last step before the exec.
    pub fn put_on(&self) -> Result<()> {
        self.protection.apply(self.filters.as_ref())
    }
}

/// Whether it is there only where the namespaces of the subhost are shown. Root of a user namespace can mount these anew as they
/// are, and finds in them what the kernel gives to somebody who is nobody outside.
fn is_of_kernel(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/sys")
}

/// Opens what is at `path`; none if nothing is.
fn find(path: &Path, more: OFlag) -> nix::Result<Option<OwnedFd>> {
    match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC | more, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        found => found.map(Some),
    }
}

/// Lays a read-only copy of it on itself.
fn make_read_only(path: &Path) -> Result<()> {
    let Some(there) = find(path, OFlag::empty())? else {
        return Ok(());
    };
    let copy = clone_tree(&there, c"", Depth::One)?;
    set_attributes(&copy, Depth::One, READ_ONLY, 0, None)?;
    Ok(attach(copy, there)?)
}

/// Lays an empty directory on each directory, an empty file on all else, both read-only.
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
    // Older kernels copy only what is mounted somewhere: on /proc for the time being, where we have opened all we need.
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

/// A filesystem that holds nothing but what covers others.
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

/// Sets `nodev` on the mount of the root, unless that is where /dev lies.
fn close_devices() -> Result<()> {
    let look = |path| find(Path::new(path), OFlag::O_DIRECTORY);
    let (Some(root), Some(dev)) = (look("/")?, look("/dev")?) else {
        return Ok(());
    };
    if fstat(&root)?.st_dev != fstat(&dev)?.st_dev {
        set_attributes(&root, Depth::One, MOUNT_ATTR_NODEV, 0, None)?;
    }
    Ok(())
}

/// Lays the subhost's /dev/null on its /dev/console: services may go on writing there, but the console is the host's, and who can
/// read it reads what is typed there.
fn hide_console() -> Result<()> {
    let device = |path| -> Result<Option<OwnedFd>> {
        let found = find(Path::new(path), OFlag::O_NOFOLLOW)?;
        Ok(found.filter(|fd| fstat(fd).is_ok_and(|status| status.st_mode & S_IFMT == S_IFCHR)))
    };
    let Some(console) = device("/dev/console")? else {
        return Ok(());
    };
    let is_null = |fd: &OwnedFd| {
        fstat(fd).is_ok_and(|status| (major(status.st_rdev), minor(status.st_rdev)) == (1, 3))
    };
    match device("/dev/null")?.filter(is_null) {
        Some(null) => Ok(attach(clone_tree(null, c"", Depth::One)?, console)?),
        None => cover(std::iter::once(Path::new("/dev/console"))),
    }
}
