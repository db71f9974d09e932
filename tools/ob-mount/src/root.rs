//! Paths below UPPER and LIVE, resolved with `RESOLVE_IN_ROOT`, so that no symbolic link in them
//! leads to a file of the host, openat2(2).

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

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
        let path = Path::new("/").join(path);
        match self.find(&path, flags) {
            Err(Errno::ENOENT) => {}
            found => return found,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::ENOENT);
        };
        let parent = self.make_directories(parent)?;
        // mkdirat(2) does not follow a symbolic link as the last component, which is the only one.
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => openat(
                &parent,
                name,
                flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            ),
            // Another process made it, or it is a dangling symbolic link.
            Err(Errno::EEXIST) => self.find(&path, flags),
            Err(error) => Err(error),
        }
    }

    /// Opens the file `path` as a mount point. Makes an empty file with mode 0644, and its parents,
    /// if they are missing.
    pub fn make_file(&self, path: &Path) -> nix::Result<OwnedFd> {
        match self.find(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => {}
            found => return found,
        }
        self.create(path, 0o644)?;
        self.find(path, OFlag::O_PATH)
    }

    /// Creates the file `path` for writing, and its missing parents. Fails with `EEXIST` if it
    /// exists, also as a dangling symbolic link.
    pub fn create(&self, path: &Path, mode: u32) -> nix::Result<File> {
        let parent = self.make_directories(path.parent().unwrap_or(Path::new("/")))?;
        let name: &OsStr = path.file_name().ok_or(Errno::EISDIR)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&parent, name, flags, Mode::from_bits_truncate(mode)).map(File::from)
    }
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
