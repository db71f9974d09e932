//! Directory trees of any depth.
//!
//! Root inside can create a tree that is too deep for the stack, for `RLIMIT_NOFILE` and for
//! `PATH_MAX`. So a tree is walked without recursion and with few open descriptors.

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc::{dev_t, ino_t};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use nix::{NixPath, Result};
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The number of directories that a walk keeps open.
const OPEN: usize = 8;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// A path down from one directory, without symbolic links.
pub struct Walk {
    /// The innermost directories of the path. The last is the current directory of the walk.
    open: VecDeque<OwnedFd>,
    /// The device and the inode of each directory above those.
    above: Vec<(dev_t, ino_t)>,
}

impl Walk {
    /// Begins a walk at `path`. Follows symbolic links.
    pub fn open(path: &(impl ?Sized + NixPath)) -> Result<Self> {
        Ok(Walk::new(nix::fcntl::open(path, DIRECTORY, Mode::empty())?))
    }

    /// Begins a walk at an open directory.
    #[must_use]
    pub fn new(directory: OwnedFd) -> Self {
        Walk {
            open: VecDeque::from([directory]),
            above: Vec::new(),
        }
    }

    /// Returns the current directory.
    ///
    /// # Panics
    ///
    /// Panics if the walk has left its first directory.
    #[must_use]
    pub fn here(&self) -> BorrowedFd<'_> {
        self.open.back().expect("a walk that goes on").as_fd()
    }

    /// Enters the directory `name`. Fails with `ENOTDIR` or `ELOOP` if `name` is another type of
    /// file or a symbolic link.
    pub fn enter(&mut self, name: &(impl ?Sized + NixPath)) -> Result<()> {
        let flags = DIRECTORY | OFlag::O_NOFOLLOW;
        let inner = openat(self.here(), name, flags, Mode::empty())?;
        if let Some(outermost) = self.open.front().filter(|_| self.open.len() == OPEN) {
            self.above.push(identity(outermost)?);
            self.open.pop_front();
        }
        self.open.push_back(inner);
        Ok(())
    }

    /// Returns to the parent directory. Fails with `ESTALE` if the current directory has been moved
    /// to another parent since the walk entered it.
    pub fn leave(&mut self) -> Result<()> {
        let Some(left) = self.open.pop_back().filter(|_| self.open.is_empty()) else {
            return Ok(());
        };
        if let Some(entered) = self.above.pop() {
            let outer = openat(left, "..", DIRECTORY, Mode::empty())?;
            if identity(&outer)? != entered {
                return Err(Errno::ESTALE);
            }
            self.open.push_back(outer);
        }
        Ok(())
    }

    /// Returns the names in the current directory, in no order.
    pub fn names(&self) -> Result<Vec<CString>> {
        Ok(self.entries()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Like [`Walk::names`], with the type of each file, if the filesystem reports it.
    fn entries(&self) -> Result<Vec<(CString, Option<Type>)>> {
        let mut directory = Dir::openat(self.here(), ".", DIRECTORY, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                entries.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        Ok(entries)
    }
}

/// Returns the device and the inode of a directory.
fn identity(directory: impl AsFd) -> Result<(dev_t, ino_t)> {
    let status = fstat(directory)?;
    Ok((status.st_dev, status.st_ino))
}

/// Removes the directory at `path`, all directories below it, and with `files` all other files too.
///
/// `ENOENT` is not an error. A file that cannot be removed, and the directories above it, stay; the
/// first such error is returned.
pub fn remove(path: &(impl ?Sized + NixPath), files: bool) -> Result<()> {
    let flag = UnlinkatFlags::RemoveDir;
    let here = nix::fcntl::AT_FDCWD;
    match unlinkat(here, path, flag) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(_) => {}
    }
    let mut walk = Walk::open(path)?;
    let mut outcome = Ok(());
    let mut levels = vec![(CString::default(), walk.entries()?)];
    while let Some((_, entries)) = levels.last_mut() {
        let Some((name, kind)) = entries.pop() else {
            let (name, _) = levels.pop().unwrap_or_default();
            if !levels.is_empty() {
                walk.leave()?;
                outcome = outcome.and(unlink(&walk, &name, flag));
            }
            continue;
        };
        if kind.is_none_or(|kind| kind == Type::Directory) {
            if unlink(&walk, &name, flag).is_ok() {
                continue;
            }
            match walk.enter(name.as_c_str()) {
                Ok(()) => {
                    let below = walk.entries()?;
                    levels.push((name, below));
                    continue;
                }
                Err(Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT) => {}
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        if files {
            outcome = outcome.and(unlink(&walk, &name, UnlinkatFlags::NoRemoveDir));
        }
    }
    outcome.and(unlinkat(here, path, flag))
}

/// Removes a name in the current directory of the walk. `ENOENT` is not an error.
fn unlink(walk: &Walk, name: &CStr, flag: UnlinkatFlags) -> Result<()> {
    match unlinkat(walk.here(), name, flag) {
        Err(Errno::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::mkdirat;

    /// Creates `depth` directories named `d`, each in the last.
    fn make(path: &std::path::Path, depth: usize) -> Walk {
        std::fs::create_dir(path).unwrap();
        let mut walk = Walk::open(path).unwrap();
        for _ in 0..depth {
            mkdirat(walk.here(), c"d", Mode::S_IRWXU).unwrap();
            walk.enter(c"d").unwrap();
        }
        walk
    }

    #[test]
    fn deep_tree_is_walked_and_removed() {
        let path = std::env::temp_dir().join(format!("ob-tree-{}", std::process::id()));
        let mut walk = make(&path, 3000);
        nix::unistd::symlinkat("/", walk.here(), c"link").unwrap();
        let before = identity(walk.here()).unwrap();
        assert_eq!(walk.enter(c"link"), Err(Errno::ENOTDIR));
        for _ in 0..3000 {
            walk.leave().unwrap();
        }
        assert_ne!(identity(walk.here()).unwrap(), before);
        assert_eq!(remove(&path, false), Err(Errno::ENOTEMPTY));
        remove(&path, true).unwrap();
        assert!(!path.exists());
        remove(&path, true).unwrap();
    }

    #[test]
    fn moved_directory_is_left_with_an_error() {
        let path = std::env::temp_dir().join(format!("ob-moved-{}", std::process::id()));
        let mut walk = make(&path, OPEN + 3);
        std::fs::rename(path.join("d/d/d"), path.join("moved")).unwrap();
        let left = (0..OPEN + 3).try_for_each(|_| walk.leave());
        assert_eq!(left, Err(Errno::ESTALE));
        remove(&path, false).unwrap();
    }
}
