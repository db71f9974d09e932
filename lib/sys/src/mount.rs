//! The mount calls of Linux 5.2 and later, which work on descriptors: a mount is made and changed before anyone can see
//! it, and put in place on a directory that was looked up once.

use crate::descriptor;
use nix::errno::Errno;
use nix::libc::{self, c_long, c_uint};
use nix::{NixPath, Result};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Which mounts below the named one [`open_tree`] and [`set_attributes`] take along.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The one mount alone.
    One,
    /// The mount and all below it.
    Recursive,
}

impl Depth {
    fn flag(self) -> c_uint {
        match self {
            Depth::One => 0,
            Depth::Recursive => libc::AT_RECURSIVE.cast_unsigned(),
        }
    }
}

/// Attributes of a mount, as `mount_setattr(2)` and `fsmount(2)` take them: or-ed `libc::MOUNT_ATTR_*`.
pub type Attributes = u64;

/// Makes a detached copy of the mount that `path`, relative to `dir`, lies on, with that directory or file as its root.
///
/// It is a bind mount without a place; [`attach`] gives it one, and closing the descriptor ends it. Like
/// `open_tree(2)` with `OPEN_TREE_CLONE`: Linux 5.2, needs `CAP_SYS_ADMIN`; `EINVAL` if mounts of another user namespace would come apart.
pub fn clone_tree<P: ?Sized + NixPath>(dir: impl AsFd, path: &P, depth: Depth) -> Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH.cast_unsigned()
        | depth.flag();
    // SAFETY: open_tree reads a C string and makes a descriptor; it touches no memory of ours.
    descriptor(path.with_nix_path(|path| unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
        )
    })?)
}

/// Puts the mount `tree` on the directory or file `target`, both opened before. Like `move_mount(2)`: Linux 5.2.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> Result<()> {
    // SAFETY: both paths are empty C strings with static life.
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

/// Changes a mount: sets and clears attributes, and takes over the identities of `userns` where one is given.
///
/// Like `mount_setattr(2)`: Linux 5.12, `ENOSYS` before; `EINVAL` if the filesystem cannot map identities.
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
        userns_fd: userns.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: the kernel reads as many bytes as we say from a structure that lives over the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH.cast_unsigned() | depth.flag(),
            &raw const attributes,
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
    /// Begins a filesystem of type `kind`. `ENODEV`: the kernel does not have it.
    pub fn new(kind: &CStr) -> Result<Self> {
        // SAFETY: fsopen reads a C string and makes a descriptor.
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
            .map(Self)
    }

    /// Sets the option `key` to `value`, a text of at most 255 bytes; `EINVAL` if the filesystem does not take it.
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

    /// Sets the option `key` to an open file or directory. `EINVAL` where the filesystem takes none (overlay before Linux 6.13).
    pub fn set_fd(&self, key: &CStr, value: impl AsFd) -> Result<()> {
        self.config(
            FSCONFIG_SET_FD,
            key.as_ptr(),
            std::ptr::null(),
            value.as_fd().as_raw_fd(),
        )
    }

    /// Sets the option `key` that has no value, such as `ro`.
    pub fn set_flag(&self, key: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, key.as_ptr(), std::ptr::null(), 0)
    }

    /// Makes the filesystem, so that [`Filesystem::mount`] only has to give it a mount. For the caller that must be someone
    /// else while the filesystem is made.
    pub fn create(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null(), 0)
    }

    /// Returns a detached mount of the created filesystem with these attributes, for [`attach`].
    pub fn mount(&self, attributes: Attributes) -> Result<OwnedFd> {
        // SAFETY: fsmount takes numbers and makes a descriptor.
        descriptor(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes,
            )
        })
    }

    /// What the kernel says about the last refusal, in its own words; empty if it says nothing.
    #[must_use]
    pub fn complaint(&self) -> String {
        let Ok(copy) = self.0.try_clone() else {
            return String::new();
        };
        let mut message = [0; 512];
        let length = File::from(copy).read(&mut message).unwrap_or(0);
        let text = String::from_utf8_lossy(&message[..length]);
        text.get(2..).unwrap_or_default().trim().to_owned() // "e overlay: …"
    }

    fn config(
        &self,
        command: c_uint,
        key: *const libc::c_char,
        value: *const libc::c_void,
        aux: libc::c_int,
    ) -> Result<()> {
        // SAFETY: key and value are null or C strings that our callers borrow over the call.
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
