//! The directories of a plan, and the locks that keep two subhosts from conflicting use of one
//! directory.
//!
//! A `flock(2)` on a directory conflicts with another on the same directory, by any path, but not
//! with that on a directory in it. [`Claims::mark`] compares these. All locks last until their last
//! descriptor is closed.

use crate::root::path_of;
use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat2};
use nix::libc;
use nix::sys::stat::fstat;
use ob_document::{Document, state};
use ob_sys::fdstore::FdStore;
use ob_sys::lock::unlock;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a boot waits while another boot compares its paths.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// A directory that the plan names, open.
pub struct Directory {
    /// The variable that names it.
    pub variable: &'static str,
    /// Its path in the plan.
    pub path: PathBuf,
    /// Its path without symbolic links.
    pub real: PathBuf,
    /// Its descriptor.
    pub file: File,
    /// Its device and inode, which are the same by every path.
    pub identity: (u64, u64),
}

/// How a subhost uses a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// No other subhost may use it, or a directory in it.
    Alone,
    /// No other subhost may use it.
    Exclusive,
    /// Any number of subhosts may use it, if none of them needs it exclusively.
    Shared,
}

impl Directory {
    /// Opens the directory that `variable` names.
    pub fn of(document: &Document, variable: &'static str) -> Result<Self> {
        let path = document.path(variable)?;
        let file = match open(path) {
            Ok(file) => file,
            Err(Errno::ENOENT) => {
                let remedy = ob_document::remedy_of_missing(variable, path);
                bail!("{variable}={} does not exist; {remedy}", path.display())
            }
            Err(Errno::ENOTDIR) => bail!("{variable}={} is not a directory", path.display()),
            Err(error) => {
                return Err(error).with_context(|| format!("{variable}={}", path.display()));
            }
        };
        let status = fstat(&file)?;
        Ok(Directory {
            variable,
            path: path.to_owned(),
            real: path_of(&file),
            identity: (status.st_dev, status.st_ino),
            file,
        })
    }

    /// Whether a mount is attached here: whether the step up from here crosses into another mount.
    pub fn is_mount_point(&self) -> Result<bool> {
        if self.is_host_root() {
            return Ok(true);
        }
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_XDEV);
        match openat2(&self.file, "..", how) {
            Ok(_) => Ok(false),
            Err(Errno::EXDEV) => Ok(true),
            Err(error) => Err(error).with_context(|| format!("look at {self}")),
        }
    }

    /// Whether it is the root directory.
    pub fn is_host_root(&self) -> bool {
        self.real.parent().is_none()
    }

    /// Whether it is the directory `other`, by any path.
    pub fn is(&self, other: &Directory) -> bool {
        self.identity == other.identity
    }

    /// Whether it is `other` or lies in it.
    pub fn is_in(&self, other: &Directory) -> bool {
        self.is(other) || self.real.starts_with(&other.real)
    }

    /// Fails if the two are one directory, or if one lies in the other.
    pub fn stands_beside(&self, other: &Directory) -> Result<()> {
        ensure!(
            !self.is_in(other) && !other.is_in(self),
            "{self} and {other} must not contain one another"
        );
        Ok(())
    }

    /// Returns the directories that contain it, except the root directory, which contains all.
    fn above(&self) -> impl Iterator<Item = &Path> {
        let above = self.real.ancestors().skip(1);
        above.filter(|path| path.parent().is_some())
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}={}", self.variable, self.path.display())
    }
}

/// The directories of a subhost, and how it uses them.
pub struct Claims(pub Vec<(Directory, Use)>);

impl Claims {
    /// Returns the directory that `variable` names, if the subhost uses it.
    pub fn directory(&self, variable: &str) -> Option<&Directory> {
        let mut directories = self.0.iter().map(|(directory, _)| directory);
        directories.find(|directory| directory.variable == variable)
    }

    /// Locks all directories, and stores the locks in the descriptor store of the room, so that
    /// they last as long as the subhost. If there is no room, they last as long as this process.
    pub fn lock_for_subhost(&self) -> Result<()> {
        let marks = self.lock(!FdStore::numbers().is_empty())?;
        let locks = self.0.iter().map(|(directory, _)| directory.file.as_fd());
        let locks: Vec<BorrowedFd> = locks.chain(marks.as_ref().map(AsFd::as_fd)).collect();
        FdStore::push_in_room(&locks).context("leave the locks in the room")?;
        Ok(())
    }

    /// Locks all directories until both this and the returned file are dropped.
    pub fn lock(&self, in_room: bool) -> Result<Option<File>> {
        for (directory, usage) in &self.0 {
            let locked = state::claim(&directory.file, *usage == Use::Shared);
            if !locked.with_context(|| format!("lock {directory}"))? {
                let is_same = |path: &Path| state::identity(path) == Some(directory.identity);
                return Err(in_use(directory, is_same, |other| format!(", as {other}")));
            }
        }
        self.mark(in_room)
    }

    /// Marks the paths of the directories in a table of all subhosts.
    ///
    /// The table is the state directory, with two bytes for each path: the subhost that uses the
    /// path alone locks one byte, and the subhosts with a directory below it lock the other. So the
    /// number of system calls does not depend on the number of subhosts, and no document is read.
    /// The locks are shared `F_OFD_SETLK` locks, because a directory cannot be opened for writing;
    /// `F_OFD_GETLK` for an exclusive lock finds the locks of other subhosts. Returns the table
    /// with the locks, or None if there is no subhost.
    ///
    /// # Errors
    /// Fails if a directory contains, or lies in, a directory of another subhost, and one of them
    /// may only be used alone.
    fn mark(&self, in_room: bool) -> Result<Option<File>> {
        let Some(table) = open_table(in_room).context("open the table of paths")? else {
            return Ok(None);
        };
        // Without this lock, two boots could see the marks of each other, and both would fail.
        ensure!(
            state::lock_within(&table, LOCK_TIMEOUT)?,
            "another boot keeps {} locked, and does not end",
            state::DIRECTORY
        );
        let alone = || self.0.iter().filter(|(_, usage)| *usage == Use::Alone);
        // The last insertion wins: of the directories below a path, an error names LIVE, UPPER or
        // WORK rather than LOWER.
        let above: BTreeMap<&Path, &Directory> = self
            .0
            .iter()
            .rev()
            .flat_map(|(directory, _)| directory.above().map(move |path| (path, directory)))
            .collect();
        for (directory, _) in alone() {
            set(&table, slot(&directory.real, Slot::Alone))?;
        }
        for path in above.keys() {
            set(&table, slot(path, Slot::Below))?;
        }
        for (directory, _) in alone() {
            if is_set(&table, slot(&directory.real, Slot::Below))? {
                let is_below = |path: &Path| {
                    let path = path.canonicalize().unwrap_or_default();
                    path != directory.real && path.starts_with(&directory.real)
                };
                let how = |other: &str| format!(": {other} lies in it");
                return Err(in_use(directory, is_below, how));
            }
        }
        for (path, directory) in above {
            if is_set(&table, slot(path, Slot::Alone))? {
                let is_above = |other: &Path| other.canonicalize().is_ok_and(|other| other == path);
                let how = |other: &str| format!(": it lies in {other}");
                return Err(in_use(directory, is_above, how));
            }
        }
        unlock(&table)?;
        Ok(Some(table))
    }
}

fn open_table(create: bool) -> Result<Option<File>> {
    let path = Path::new(state::DIRECTORY);
    match open(path) {
        Err(Errno::ENOENT) if create => {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(path)?;
            Ok(Some(open(path)?))
        }
        Err(Errno::ENOENT) => Ok(None),
        table => Ok(Some(table?)),
    }
}

fn open(directory: &Path) -> nix::Result<File> {
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
    openat2(AT_FDCWD, directory, how).map(File::from)
}

/// The two bytes of a path.
enum Slot {
    Alone = 0,
    Below = 1,
}

/// Returns the lock on a byte of `path`. The offset is a hash, FNV-1a, and must be the same in all
/// versions of this tool.
fn slot(path: &Path, slot: Slot) -> libc::flock {
    let hash = path.as_os_str().as_bytes().iter();
    let hash = hash.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    libc::flock {
        l_type: 0,
        l_whence: 0, // SEEK_SET
        l_start: i64::try_from(hash >> 1 & !1).unwrap_or_default() | slot as i64,
        l_len: 1,
        l_pid: 0,
    }
}

fn set(table: &File, mut lock: libc::flock) -> Result<()> {
    lock.l_type = kind(libc::F_RDLCK);
    fcntl(table, FcntlArg::F_OFD_SETLK(&lock)).context("mark a path")?;
    Ok(())
}

/// Whether another subhost has set this mark.
fn is_set(table: &File, mut lock: libc::flock) -> Result<bool> {
    lock.l_type = kind(libc::F_WRLCK);
    fcntl(table, FcntlArg::F_OFD_GETLK(&mut lock)).context("look for marks")?;
    Ok(lock.l_type != kind(libc::F_UNLCK))
}

fn kind(kind: libc::c_int) -> libc::c_short {
    libc::c_short::try_from(kind).unwrap_or_default() // all are 0, 1 or 2
}

/// Returns the error for a directory that another subhost uses. It has the name of that subhost,
/// and the variable in its plan that names a directory for which `matches` returns true.
fn in_use(
    directory: &Directory,
    matches: impl Fn(&Path) -> bool,
    how: impl Fn(&str) -> String,
) -> Error {
    match state::owner(matches) {
        Some((name, other)) => {
            anyhow!("{directory} is in use by the subhost {name}{}", how(&other))
        }
        None => anyhow!("{directory} is in use by another subhost that is starting or ending"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_paths_are_distinct_and_never_change() {
        let start = |path: &str, of| slot(Path::new(path), of).l_start;
        assert_eq!(
            start("/opt/mta/root", Slot::Alone),
            1_500_137_430_869_860_462
        );
        assert_eq!(
            start("/opt/mta/root", Slot::Below),
            1_500_137_430_869_860_463
        );
        assert_ne!(
            start("/opt/mta/root", Slot::Alone),
            start("/opt/mta/work", Slot::Alone)
        );
    }
}
