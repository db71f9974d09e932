//! Paths below UPPER and LIVE, resolved with `RESOLVE_IN_ROOT`, so that no symbolic link in them
//! leads to a file of the host, openat2(2).

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The kernel follows as many symbolic links in one path, path_resolution(7).
const MAX_LINKS: usize = 40;

/// A directory that is the root directory for paths.
pub struct Root(OwnedFd);

impl Root {
    /// Opens the directory `path` of the host as a root.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(AT_FDCWD, path, flags, Mode::empty())
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Root(fd))
    }

    /// Opens the file at `path`. Fails with the errors of openat2(2).
    pub fn find(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(&self.0, path, how) {
                // Try again: a concurrent rename may have led `..` out of the root, openat2(2).
                Err(Errno::EAGAIN) => {}
                found => return found,
            }
        }
    }

    /// Opens the directory `path`. Makes it and its parents with mode 0755 if they are missing.
    pub fn make_directories(&self, path: &Path) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        self.find_or_make(path, flags, |parent, name| {
            mkdirat(parent, name, Mode::from_bits_truncate(0o755))
        })
    }

    /// Opens the file `path` as a mount point. Makes an empty file with mode 0644, and its parents,
    /// if they are missing.
    pub fn make_file(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.find_or_make(path, OFlag::O_PATH, |parent, name| {
            create_at(parent, name, 0o644).map(drop)
        })
    }

    /// Creates the file `path` for writing, and its missing parents. Fails with `EEXIST` if it
    /// exists, also as a dangling symbolic link.
    pub fn create(&self, path: &Path, mode: u32) -> nix::Result<File> {
        let parent = self.make_directories(path.parent().unwrap_or(Path::new("/")))?;
        create_at(&parent, path.file_name().ok_or(Errno::EISDIR)?, mode)
    }

    /// Opens `path`. If it is missing, makes its parents, and then calls `make` with the directory
    /// and the name of the file.
    ///
    /// mkdirat(2) and `O_EXCL` follow no symbolic link. So this reads a dangling link, and creates
    /// its target below the root.
    fn find_or_make(
        &self,
        path: &Path,
        flags: OFlag,
        make: impl Fn(&OwnedFd, &OsStr) -> nix::Result<()>,
    ) -> nix::Result<OwnedFd> {
        let mut path = Path::new("/").join(path);
        for _ in 0..MAX_LINKS {
            match self.find(&path, flags) {
                Err(Errno::ENOENT) => {}
                found => return found,
            }
            let above = path.parent().ok_or(Errno::ENOENT)?;
            let parent = self.make_directories(above)?;
            let Some(name) = path.file_name() else {
                continue; // a path that ends in `..`, which exists now
            };
            match make(&parent, name) {
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error),
                Ok(()) => continue,
            }
            match readlinkat(&parent, name) {
                Ok(target) => path = above.join(target),
                Err(Errno::EINVAL) => {} // no link: another process has just made the file
                Err(error) => return Err(error),
            }
        }
        Err(Errno::ELOOP)
    }
}

/// Creates the file `name` in `parent` for writing.
fn create_at(parent: &OwnedFd, name: &OsStr, mode: u32) -> nix::Result<File> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::from_bits_truncate(mode)).map(File::from)
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns the path of an open file on the host, for the document and for messages.
pub fn path_of(fd: impl AsFd) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).unwrap_or_default()
}
