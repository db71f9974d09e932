//! Paths for an entry: a directory with a mount, and ways around a mount that covers a file.

use crate::{Failed, Refused, Try};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A mount on a new directory. Dropping it removes both.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a filesystem on a new directory.
    pub fn new(kind: &str, options: Option<&str>) -> nix::Result<Self> {
        let directory = PathBuf::from(format!("/{kind}-of-an-attack"));
        let _ = fs::create_dir(&directory);
        let mounted = mount(
            Some(kind),
            &directory,
            Some(kind),
            MsFlags::empty(),
            options,
        );
        if mounted.is_err() {
            let _ = fs::remove_dir(&directory);
        }
        mounted.map(|()| Mounted(directory))
    }

    /// Returns a path in the mount.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

/// Opens a file of /proc or /sys in any possible way: directly, after unmounting a cover, after
/// remounting the tree read-write, or in another mount of the same filesystem. If all ways fail,
/// returns the error of the direct one.
pub fn open_anyhow(path: &str, write: bool) -> Try<File> {
    let open = |path: &Path| {
        let file = OpenOptions::new().read(!write).write(write).open(path)?;
        match !write && is_empty(&file) {
            true => Err(std::io::Error::other("covered")),
            false => Ok(file),
        }
    };
    let plain = open(Path::new(path)).known(path);
    if matches!(plain, Ok(_) | Err(Failed::NotHere(_))) {
        return plain;
    }
    // With the right to make a mount namespace, the next changes stay in it.
    let _ = unshare(CloneFlags::CLONE_NEWNS);
    let (kind, tree) = match path {
        _ if path.starts_with("/proc/sys/") => ("proc", "/proc/sys"),
        _ if path.starts_with("/proc/") => ("proc", "/proc"),
        _ => ("sysfs", "/sys"),
    };
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    let _ = mount(None::<&str>, tree, None::<&str>, again, None::<&str>);
    if let Ok(file) = open(Path::new(path)) {
        return Ok(file);
    }
    let anew = Mounted::new(kind, None);
    let below = path.splitn(3, '/').nth(2).unwrap_or_default();
    anew.ok()
        .and_then(|anew| open(&anew.at(below)).ok())
        .map_or(plain, Ok)
}

/// Returns whether a file is empty, as a file that covers another.
fn is_empty(file: &File) -> bool {
    matches!(file.read_at(&mut [0], 0), Ok(0))
}
