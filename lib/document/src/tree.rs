//! A directory tree of any depth. Root inside can make one that is deeper than a stack, than the
//! limit of open files, and than `PATH_MAX`; so a tree is walked without recursion, by descriptors,
//! of which a few are open at a time.

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

/// How many directories of a walk stay open.
const OPEN: usize = 8;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// A way down from one directory, through no link.
pub struct Walk {
    /// The innermost directories of the way; the last one is where the walk is.
    open: VecDeque<OwnedFd>,
    /// Those above them, by device and inode.
    above: Vec<(dev_t, ino_t)>,
}

impl Walk {
    /// Begins a walk at `path`, through links.
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

    /// Returns the directory where the walk is.
    ///
    /// # Panics
    ///
    /// Panics if the walk has left its first directory.
    #[must_use]
    pub fn here(&self) -> BorrowedFd<'_> {
        self.open.back().expect("a walk that goes on").as_fd()
    }

    /// Enters the directory `name`. `ELOOP`, `ENOTDIR`: it is a link, or another file.
    pub fn enter(&mut self, name: &(impl ?Sized + NixPath)) -> Result<()> {
        let flags = DIRECTORY | OFlag::O_NOFOLLOW;
        let inner = openat(self.here(), name, flags, Mode::empty())?;
        if self.open.len() == OPEN
            && let Some(outermost) = self.open.front()
        {
            self.above.push(identity(outermost)?);
            self.open.pop_front();
        }
        self.open.push_back(inner);
        Ok(())
    }

    /// Goes back to the directory above. `ESTALE`: this one has been moved elsewhere meanwhile.
    pub fn leave(&mut self) -> Result<()> {
        let left = self.open.pop_back();
        if self.open.is_empty()
            && let (Some(left), Some(noted)) = (left, self.above.pop())
        {
            let outer = openat(left, "..", DIRECTORY, Mode::empty())?;
            if identity(&outer)? != noted {
                return Err(Errno::ESTALE);
            }
            self.open.push_back(outer);
        }
        Ok(())
    }

    /// Returns the names in the directory where the walk is, in no order.
    pub fn names(&self) -> Result<Vec<CString>> {
        Ok(self.entries()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Like [`Walk::names`], with the type of each file, if the filesystem says it.
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

fn identity(directory: impl AsFd) -> Result<(dev_t, ino_t)> {
    let status = fstat(directory)?;
    Ok((status.st_dev, status.st_ino))
}

/// Removes the directory at `path` with all directories below it, and with `files` all that is in
/// them. `ENOENT` is no error. What cannot be removed keeps the directories above it; the first
/// reason is returned.
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

/// Removes a name in the directory where the walk is; one that is gone already is no error.
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

    /// Makes directories called `d`, each in the one before.
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
    fn moved_directory_is_not_left_for_another() {
        let path = std::env::temp_dir().join(format!("ob-moved-{}", std::process::id()));
        let mut walk = make(&path, OPEN + 3);
        std::fs::rename(path.join("d/d/d"), path.join("moved")).unwrap();
        let left = (0..OPEN + 3).try_for_each(|_| walk.leave());
        assert_eq!(left, Err(Errno::ESTALE));
        remove(&path, false).unwrap();
    }
}
