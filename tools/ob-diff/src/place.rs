//! A directory of a layer, looked at without following any link: whoever is root inside may change it meanwhile.

use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstatat};
use ob_sys::file::get_xattr;
use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// An open directory.
pub struct Place(OwnedFd);

/// What overlayfs notes on files of an upper layer, as root of the host or of a user namespace.
#[derive(Clone, Copy)]
pub enum Mark {
    /// A directory that hides the one below.
    Opaque,
    /// A directory or file whose lower part has another name.
    Redirect,
    /// A file that hides the one below: the other kind of whiteout.
    Whiteout,
}

impl Mark {
    fn names(self) -> [&'static CStr; 2] {
        match self {
            Mark::Opaque => [c"trusted.overlay.opaque", c"user.overlay.opaque"],
            Mark::Redirect => [c"trusted.overlay.redirect", c"user.overlay.redirect"],
            Mark::Whiteout => [c"trusted.overlay.whiteout", c"user.overlay.whiteout"],
        }
    }
}

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

impl Place {
    /// Opens a layer.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = nix::fcntl::open(path, DIRECTORY, Mode::empty());
        let opened = opened.with_context(|| format!("open {}", path.display()))?;
        Ok(Place(opened))
    }

    /// The directory `name` in it; none if that is none, or not there.
    pub fn enter(&self, name: impl AsRef<OsStr>) -> Option<Place> {
        let flags = DIRECTORY | OFlag::O_NOFOLLOW;
        let opened = openat(&self.0, name.as_ref(), flags, Mode::empty());
        opened.ok().map(Place)
    }

    /// The directory at a path in it, by a way without links.
    pub fn descend(self, path: &Path) -> Option<Place> {
        let mut names = path.iter().filter(|name| *name != "/");
        names.try_fold(self, |place, name| place.enter(name))
    }

    /// The names in it, sorted.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let mut directory = Dir::openat(&self.0, ".", DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// What `name` is; none if there is none.
    pub fn status(&self, name: &OsStr) -> Option<FileStat> {
        fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }

    /// A mark of the directory itself.
    pub fn own_mark(&self, mark: Mark) -> Option<Vec<u8>> {
        self.read_mark("", mark)
    }

    /// A mark of the plain file `name`, whose `status` is given.
    pub fn mark(&self, name: &OsStr, status: &FileStat, mark: Mark) -> Option<Vec<u8>> {
        // Of a link it would be that of what it leads to.
        (kind(status) == libc::S_IFREG).then(|| self.read_mark(name, mark))?
    }

    fn read_mark(&self, name: impl AsRef<OsStr>, mark: Mark) -> Option<Vec<u8>> {
        let path = Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string());
        let path = path.join(name.as_ref());
        mark.names()
            .into_iter()
            .find_map(|name| match get_xattr(&path, name) {
                Ok(value) => Some(value),
                Err(Errno::ERANGE) => Some(Vec::new()),
                Err(_) => None,
            })
    }

    /// Whether `name` stands for nothing: it hides what the layer below has there.
    pub fn is_whiteout(&self, name: &OsStr, status: &FileStat) -> bool {
        let is_device = kind(status) == libc::S_IFCHR && status.st_rdev == 0;
        is_device || (status.st_size == 0 && self.mark(name, status, Mark::Whiteout).is_some())
    }
}

/// The kind of a file, `S_IFREG` and so on.
pub fn kind(status: &FileStat) -> libc::mode_t {
    status.st_mode & libc::S_IFMT
}
