//! Paths below UPPER and LIVE, resolved as the subhost itself would: a link in there never leads the host astray.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A directory that is the root of what is looked up in it.
pub struct Root(OwnedFd);

impl Root {
    /// Opens the directory `path` of the host.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(AT_FDCWD, path, flags, Mode::empty())
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Root(fd))
    }

    /// Opens what is at `path` in it. `ENOENT`: nothing is.
    pub fn find(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(&self.0, path, how) {
                // The kernel cannot be sure that it stayed inside while something is renamed; it asks us to look again.
                Err(Errno::EAGAIN) => {}
                found => return found,
            }
        }
    }

    /// Opens the directory `path`, made with mode 0755 where it is not there, its parents too.
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
        // mkdir does not follow a link at its last component, and there is no other component.
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => openat(
                &parent,
                name,
                flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            ),
            // Made by somebody else meanwhile, or a link that leads nowhere.
            Err(Errno::EEXIST) => self.find(&path, flags),
            Err(error) => Err(error),
        }
    }

    /// Opens a file to mount on, made empty with mode 0644 where there is none, its directories too.
    pub fn make_file(&self, path: &Path) -> nix::Result<OwnedFd> {
        match self.find(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => {}
            found => return found,
        }
        self.create(path, 0o644)?;
        self.find(path, OFlag::O_PATH)
    }

    /// Creates the file `path` for writing, its directories too. `EEXIST`: something is there, be it a link to nowhere.
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

/// The path at which the host sees an open file, for the document and for messages.
pub fn path_of(fd: impl AsFd) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).unwrap_or_default()
}
