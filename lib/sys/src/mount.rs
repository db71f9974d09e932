//! The mount calls that work on descriptors, Linux 5.2.
//!
//! A mount is created and changed while it is detached, so that no process sees it half-made. It is
//! attached to a directory that was looked up once.

use crate::fd::descriptor;
use nix::errno::Errno;
use nix::libc::{self, c_long, c_uint, c_ulong};
use nix::{NixPath, Result};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Whether [`clone_tree`] and [`set_attributes`] include the mounts below a mount.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the mount itself.
    One,
    /// The mount and all mounts below it, `AT_RECURSIVE`.
    Recursive,
}

impl Depth {
    fn flag(self) -> c_uint {
        match self {
            Depth::One => 0,
            Depth::Recursive => libc::AT_RECURSIVE as c_uint,
        }
    }
}

/// Attributes of a mount for `mount_setattr(2)` and `fsmount(2)`: or-ed `libc::MOUNT_ATTR_*`.
pub type Attributes = u64;

/// Clones the mount of `path`, relative to `dir`; that directory or file becomes the root.
///
/// The clone is private: no mount propagates to it or from it. It is a bind mount without a mount
/// point: [`attach`] attaches it, and closing the descriptor ends it. Like `open_tree(2)` with
/// `OPEN_TREE_CLONE`: Linux 5.2, needs `CAP_SYS_ADMIN`; `EINVAL` if it would separate mounts that
/// another user namespace has locked together. Before Linux 5.12 the clone has the propagation of
/// its source: it is a peer of a shared mount, which is safe only in a mount namespace without
/// shared mounts.
pub fn clone_tree<P: ?Sized + NixPath>(dir: impl AsFd, path: &P, depth: Depth) -> Result<OwnedFd> {
    let tree = clone_peer(dir, path, depth)?;
    match set_propagation(&tree, Depth::Recursive, libc::MS_PRIVATE) {
        Ok(()) | Err(Errno::ENOSYS) => Ok(tree),
        Err(error) => Err(error),
    }
}

/// Like [`clone_tree`], but the clone of a shared mount is its peer: a mount made on one appears on
/// the other.
pub fn clone_peer<P: ?Sized + NixPath>(dir: impl AsFd, path: &P, depth: Depth) -> Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH as c_uint
        | depth.flag();
    // SAFETY: the kernel reads a terminated string and returns a descriptor.
    descriptor(path.with_nix_path(|path| unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
        )
    })?)
}

/// Attaches the mount `tree` to the open directory or file `target`.
///
/// # Errors
/// The errors of `move_mount(2)`.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> Result<()> {
    // SAFETY: both paths are static terminated strings.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// Sets and clears attributes of a mount. If `userns` is given, makes it an idmapped mount.
///
/// # Errors
/// The errors of `mount_setattr(2)`. `ENOSYS`: the kernel is older than Linux 5.12. `EINVAL`: the
/// filesystem supports no idmapped mounts.
pub fn set_attributes(
    tree: impl AsFd,
    depth: Depth,
    set: Attributes,
    clear: Attributes,
    userns: Option<BorrowedFd>,
) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set
            | if userns.is_some() {
                libc::MOUNT_ATTR_IDMAP
            } else {
                0
            },
        attr_clr: clear,
        propagation: 0,
        userns_fd: userns.map_or(0, |fd| u64::from(fd.as_raw_fd() as u32)),
    };
    mount_setattr(tree, depth, &attributes)
}

/// Changes the propagation of a mount whose root is `tree`.
///
/// `kind` is `libc::MS_PRIVATE`, `MS_SHARED` or `MS_SLAVE`. Like `mount_setattr(2)`: Linux 5.12,
/// `ENOSYS` before; `EINVAL` if `tree` is not the root of a mount.
pub fn set_propagation(tree: impl AsFd, depth: Depth, kind: c_ulong) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: 0,
        attr_clr: 0,
        propagation: kind,
        userns_fd: 0,
    };
    mount_setattr(tree, depth, &attributes)
}

fn mount_setattr(tree: impl AsFd, depth: Depth, attributes: &libc::mount_attr) -> Result<()> {
    // SAFETY: the kernel reads as many bytes as we say from a structure that lives over the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as c_uint | depth.flag(),
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// The mount that an open file lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MountId {
    /// Its number, the first field of `/proc/self/mountinfo`.
    pub id: u64,
    /// Whether the file is the root of that mount.
    pub is_root: bool,
}

/// Returns the mount that `file` lies on. Like `statx(2)` with `STATX_MNT_ID`: Linux 5.8.
pub fn mount_of(file: impl AsFd) -> Result<MountId> {
    // SAFETY: a statx is a plain structure of numbers, for which zero means "not filled in".
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: reads an empty C string and writes one structure that lives over the call.
    let result = unsafe {
        libc::statx(
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_MNT_ID,
            &raw mut status,
        )
    };
    Errno::result(result)?;
    if status.stx_mask & libc::STATX_MNT_ID == 0 {
        return Err(Errno::ENOSYS);
    }
    Ok(MountId {
        id: status.stx_mnt_id,
        is_root: status.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
    })
}

/// A filesystem that is being configured: `fsopen(2)`, `fsconfig(2)`, then [`Filesystem::mount`].
pub struct Filesystem(OwnedFd);

const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_SET_FD: c_uint = 5;
const FSCONFIG_CMD_CREATE: c_uint = 6;

impl Filesystem {
    /// Opens a context for a filesystem of the type `kind`.
    ///
    /// # Errors
    /// The errors of `fsopen(2)`. `ENODEV`: the kernel has no such filesystem.
    pub fn new(kind: &CStr) -> Result<Self> {
        // SAFETY: the kernel reads a terminated string and returns a descriptor.
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
            .map(Self)
    }

    /// Sets the option `key` to `value`.
    ///
    /// # Errors
    /// `EINVAL`: the value is longer than 255 bytes, or the filesystem rejects it.
    pub fn set<P: ?Sized + NixPath>(&self, key: &CStr, value: &P) -> Result<()> {
        value.with_nix_path(|value| {
            self.config(
                FSCONFIG_SET_STRING,
                key.as_ptr(),
                value.as_ptr().cast::<libc::c_void>(),
                0,
            )
        })?
    }

    /// Sets the option `key` to an open file or directory.
    ///
    /// # Errors
    /// `EINVAL`: the option takes no descriptor; the layers of overlayfs do since Linux 6.13.
    pub fn set_fd(&self, key: &CStr, value: impl AsFd) -> Result<()> {
        self.config(
            FSCONFIG_SET_FD,
            key.as_ptr(),
            std::ptr::null(),
            value.as_fd().as_raw_fd(),
        )
    }

    /// Sets the option `key`, which has no value, such as `ro`.
    ///
    /// # Errors
    /// `EINVAL`: the filesystem has no such option.
    pub fn set_flag(&self, key: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, key.as_ptr(), std::ptr::null(), 0)
    }

    /// Creates the filesystem, `FSCONFIG_CMD_CREATE`. [`Filesystem::mount`] must follow.
    ///
    /// An overlay accesses its layers with the credentials that the process has in this call.
    ///
    /// # Errors
    /// The errors of the filesystem; [`Filesystem::complaint`] may return its message.
    pub fn create(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null(), 0)
    }

    /// Returns a detached mount of the created filesystem, with these attributes.
    ///
    /// # Errors
    /// The errors of `fsmount(2)`.
    pub fn mount(&self, attributes: Attributes) -> Result<OwnedFd> {
        // SAFETY: takes only numbers and returns a descriptor.
        descriptor(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes,
            )
        })
    }

    /// Returns the message of the kernel about the last error. It may be empty.
    ///
    /// The context is read like a file, `fsopen(2)`.
    #[must_use]
    pub fn complaint(&self) -> String {
        let Ok(copy) = self.0.try_clone() else {
            return String::new();
        };
        let mut message = [0; 512];
        let length = File::from(copy).read(&mut message).unwrap_or(0);
        let text = String::from_utf8_lossy(&message[..length]);
        text.get(2..).unwrap_or_default().trim().to_owned() // the first two are "e "
    }

    fn config(
        &self,
        command: c_uint,
        key: *const libc::c_char,
        value: *const libc::c_void,
        aux: libc::c_int,
    ) -> Result<()> {
        // SAFETY: key and value are null or terminated strings that the caller borrows during the
        // call.
        let result: c_long = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                key,
                value,
                aux,
            )
        };
        Errno::result(result).map(drop)
    }
}
