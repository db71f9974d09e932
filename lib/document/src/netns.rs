//! Named network namespaces, ip-netns(8): each name is a file in /run/netns that a namespace is
//! mounted on.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, fchmod, fstatat};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs, statfs};
use nix::unistd::getppid;
use ob_sys::lock::lock;
use ob_sys::mount::{Depth, clone_tree};
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The directory of the names.
pub const DIRECTORY: &str = "/run/netns";

/// Returns the path of the namespace `name`.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Opens the named namespace at `path`.
///
/// In the room of a guard, a namespace that was named before the room existed is not mounted. There
/// the file is opened through `/proc/PID/root` of the guard: it is the parent of all stages, and in
/// the mount namespace of the host. Fails with the errno of open(2).
pub fn open_pinned(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let here = open(path, flags, Mode::empty())?;
    if is_namespace(&here) || std::env::var_os(ob_sys::fdstore::VARIABLE).is_none() {
        return Ok(here);
    }
    let on_host = format!("/proc/{}/root{}", getppid(), path.display());
    let on_host = open(on_host.as_str(), flags, Mode::empty());
    Ok(on_host.ok().filter(is_namespace).unwrap_or(here))
}

/// Returns whether an open file is a namespace.
pub fn is_namespace(file: &OwnedFd) -> bool {
    fstatfs(file).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// The mode of the file of a name that was created for a subhost. Other programs that name
/// namespaces, such as ip(8), do not set the sticky bit.
pub const MADE: Mode = Mode::S_ISVTX;

/// Returns whether the name was created for a subhost, by ob-cable or by another stage, see
/// [`mark`].
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

/// Marks a name that a stage other than ob-cable created for a subhost.
pub fn mark(name: &str) -> Result<()> {
    let mark = || -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        fchmod(openat(directory()?, name, flags, Mode::empty())?, MADE)
    };
    mark().with_context(|| format!("mark {}", path(name).display()))
}

/// Returns whether the namespace `name` exists and was not created for a subhost.
pub fn is_foreign(name: &str) -> Result<bool> {
    let file = statfs(&path(name));
    let is_there = file.is_ok_and(|file| file.filesystem_type() == NSFS_MAGIC);
    Ok(is_there && !is_made(name)?)
}

/// Opens the directory with the files below the namespaces.
///
/// The namespaces are mounted on the files. A clone of the mount without its submounts,
/// open_tree(2), shows the files.
fn directory() -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    clone_tree(open(DIRECTORY, flags, Mode::empty())?, c"", Depth::One)
}

/// Creates the directory and makes it a shared mount, as ip-netns(8) does.
///
/// Then a name that is removed in one mount namespace is unmounted in all, mount_namespaces(7).
pub fn prepare_directory() -> Result<()> {
    // Usually the directory is a shared mount already, and this changes nothing. Without MS_REC the
    // submounts, of which there may be thousands, are not visited.
    match share_directory() {
        Err(Errno::EINVAL | Errno::ENOENT) => {}
        result => return result.with_context(|| format!("share {DIRECTORY}")),
    }
    let created = DirBuilder::new().mode(0o755).create(DIRECTORY);
    if created.is_ok() {
        // mkdir(2) clears the bits of the umask.
        fs::set_permissions(DIRECTORY, Permissions::from_mode(0o755))
            .with_context(|| format!("make {DIRECTORY}"))?;
    }
    let directory = File::open(DIRECTORY).with_context(|| format!("make {DIRECTORY}"))?;
    // iproute2 locks the directory too: two bind mounts would double the number of submounts twice.
    lock(&directory).with_context(|| format!("lock {DIRECTORY}"))?;
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

/// Makes the mount of the directory shared. `EINVAL`: the directory is not a mount point.
fn share_directory() -> nix::Result<()> {
    let none = None::<&str>;
    mount(none, DIRECTORY, none, MsFlags::MS_SHARED, none)
}
