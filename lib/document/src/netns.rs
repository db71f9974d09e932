//! Where network namespaces have their names, as `ip netns` has them: each is pinned on a file in /run/netns.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, fchmod, fstatat};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs, statfs};
use nix::unistd::getppid;
use ob_sys::mount::{Depth, clone_tree};
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the names are.
pub const DIRECTORY: &str = "/run/netns";

/// Where the namespace called `name` is pinned.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Opens the file at `path`; in a guarded room, where a namespace that was named before is not seen,
/// the guard's: it is the parent of all stages, and in the host's mount namespace.
///
/// Returns the errno of `open(2)`.
pub fn open_pinned(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let here = open(path, flags, Mode::empty())?;
    if is_namespace(&here) || std::env::var_os(ob_sys::fdstore::VARIABLE).is_none() {
        return Ok(here);
    }
    let guards = format!("/proc/{}/root{}", getppid(), path.display());
    let there = open(guards.as_str(), flags, Mode::empty());
    Ok(there.ok().filter(is_namespace).unwrap_or(here))
}

/// Whether an open file is a namespace.
pub fn is_namespace(file: &OwnedFd) -> bool {
    fstatfs(file).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// The mode of the file of a name that was made for a subhost. No other program that names namespaces
/// sets the sticky bit.
pub const MADE: Mode = Mode::S_ISVTX;

/// Whether the name was made for a subhost: by ob-cable, or by a stage in its place, see [`mark`].
pub fn is_made(name: &str) -> Result<bool> {
    let look = || -> nix::Result<bool> {
        let file = fstatat(directory()?, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(Mode::from_bits_truncate(file.st_mode).contains(MADE))
    };
    match look() {
        Err(Errno::ENOENT) => Ok(false),
        looked => looked.with_context(|| format!("look at {}", path(name).display())),
    }
}

/// Notes that the name was made for a subhost, by another program than ob-cable.
pub fn mark(name: &str) -> Result<()> {
    let mark = || -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        fchmod(openat(directory()?, name, flags, Mode::empty())?, MADE)
    };
    mark().with_context(|| format!("mark {}", path(name).display()))
}

/// Whether there is a namespace called `name` that was not made for a subhost.
pub fn is_foreign(name: &str) -> Result<bool> {
    let file = statfs(&path(name));
    let is_there = file.is_ok_and(|file| file.filesystem_type() == NSFS_MAGIC);
    Ok(is_there && !is_made(name)?)
}

/// The directory with the files of the names. The namespaces cover them: a copy of the mount of the
/// directory alone, without those below it, shows them.
fn directory() -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    clone_tree(open(DIRECTORY, flags, Mode::empty())?, c"", Depth::One)
}

/// Makes the directory a shared mount of its own, so that a name given in one mount namespace is taken back in all.
pub fn prepare_directory() -> Result<()> {
    // A mount already, as a rule: then this changes nothing. What is mounted below is not touched; it may be a thousand.
    match share_directory() {
        Err(Errno::EINVAL | Errno::ENOENT) => {}
        result => return result.with_context(|| format!("share {DIRECTORY}")),
    }
    let made = DirBuilder::new().mode(0o755).create(DIRECTORY);
    if made.is_ok() {
        // Whatever the caller's umask is.
        fs::set_permissions(DIRECTORY, Permissions::from_mode(0o755))
            .with_context(|| format!("make {DIRECTORY}"))?;
    }
    let directory = File::open(DIRECTORY).with_context(|| format!("make {DIRECTORY}"))?;
    // One at a time, as iproute2 does: each bind mount doubles what is mounted below.
    directory
        .lock()
        .with_context(|| format!("lock {DIRECTORY}"))?;
    match share_directory() {
        Err(Errno::EINVAL) => {}
        result => return result.with_context(|| format!("share {DIRECTORY}")),
    }
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    let here = Some(DIRECTORY);
    mount(here, DIRECTORY, None::<&str>, bind, None::<&str>)
        .and_then(|()| share_directory())
        .with_context(|| format!("mount {DIRECTORY} on itself"))
}

fn share_directory() -> nix::Result<()> {
    let none = None::<&str>;
    mount(none, DIRECTORY, none, MsFlags::MS_SHARED, none)
}
