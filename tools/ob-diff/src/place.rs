//! A directory of a layer, looked at without following any link: whoever is root inside may change it meanwhile.

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::{FileStat, fstatat};
use ob_sys::file::get_xattr;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

/// An open directory.
pub struct Place<'a>(pub BorrowedFd<'a>);

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

impl Place<'_> {
    /// What `name` is; none if there is none.
    pub fn status(&self, name: &OsStr) -> Option<FileStat> {
        fstatat(self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
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
