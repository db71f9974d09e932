//! A directory of a layer. No symbolic link is followed: root of the subhost may change the
//! directory meanwhile.

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::{FileStat, fstatat};
use ob_sys::file::get_xattr;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

/// An open directory.
pub struct LayerDir<'a>(pub BorrowedFd<'a>);

/// An extended attribute that overlayfs sets on files of an upper layer: `trusted.overlay.*`, or
/// `user.overlay.*` with the mount option `userxattr`.
#[derive(Clone, Copy)]
pub enum Mark {
    /// Of a directory that hides the directory of the lower layer.
    Opaque,
    /// Of a directory or file whose lower counterpart has another path.
    Redirect,
    /// Of an empty file that hides the file of the lower layer: a whiteout without a device node.
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

impl LayerDir<'_> {
    /// Returns the status of `name`, or `None` if `fstatat(2)` fails.
    pub fn status(&self, name: &OsStr) -> Option<FileStat> {
        fstatat(self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }

    /// Returns a mark of the directory itself.
    pub fn own_mark(&self, mark: Mark) -> Option<Vec<u8>> {
        self.read_mark("", mark)
    }

    /// Returns a mark of the regular file `name`, whose `status` is given.
    pub fn mark(&self, name: &OsStr, status: &FileStat, mark: Mark) -> Option<Vec<u8>> {
        // getxattr(2) would follow a symbolic link.
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

    /// Returns whether `name` is a whiteout, which hides that name of the lower layer.
    pub fn is_whiteout(&self, name: &OsStr, status: &FileStat) -> bool {
        let is_device = kind(status) == libc::S_IFCHR && status.st_rdev == 0;
        is_device || (status.st_size == 0 && self.mark(name, status, Mark::Whiteout).is_some())
    }
}

/// Returns the type of a file, `S_IFREG` and so on.
pub fn kind(status: &FileStat) -> libc::mode_t {
    status.st_mode & libc::S_IFMT
}
