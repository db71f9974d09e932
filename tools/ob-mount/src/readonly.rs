//! READONLY: a read-only root, and one that loses all writes when the subhost stops.

use crate::idmap::Idmap;
use crate::overlay::{self, Layer, open_path};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use ob_sys::mount::{Depth, Filesystem, attach, clone_tree, set_attributes};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Makes the root on `live` read-only, but not the mounts on it. Returns whether this made another
/// mount: unless the root is `ours`, a mount of this stage, a bind mount covers it.
pub fn make_read_only(live: &Path, ours: bool) -> Result<bool> {
    let read_only = |tree: &OwnedFd| {
        set_attributes(tree, Depth::One, MOUNT_ATTR_RDONLY, 0, None).map_err(|error| match error {
            Errno::ENOSYS => anyhow::anyhow!("needs Linux 5.12"),
            error => error.into(),
        })
    };
    let root = open_path(live)?;
    if ours {
        return read_only(&root).map(|()| false);
    }
    let copy = clone_tree(&root, c"", Depth::Recursive)?;
    read_only(&copy)?;
    attach(copy, root)?;
    Ok(true)
}

/// Mounts an overlay on the root at `live`, with an upper layer in memory. Calls `prepare` with the
/// directory of the upper layer while that is empty.
///
/// The lower layer is the finished root: a directory or any kind of mount.
pub fn make_volatile(
    name: &str,
    live: &Path,
    idmap: Option<&Idmap>,
    prepare: impl FnOnce(&Path),
) -> Result<()> {
    let below = open_path(live)?;
    let _ids = idmap.map(Idmap::set_fs_ids).transpose()?;
    let memory = create_memory(&below).context("make an upper layer in memory")?;
    // overlayfs takes its layers by path, so the tmpfs is on `live` until the overlay exists.
    attach(&memory, &below)?;
    prepare(&live.join("upper"));
    let lower = format!("/proc/self/fd/{}", below.as_raw_fd());
    let attributes = idmap.map_or(0, |_| MOUNT_ATTR_NODEV);
    let (upper, work) = (live.join("upper"), live.join("work"));
    let lower = Layer {
        name: &format!("the root on {}", live.display()),
        path: Path::new(&lower),
    };
    let upper = Layer {
        name: "the layer in memory",
        path: &upper,
    };
    let overlay = overlay::create(name, &lower, &upper, &work, attributes);
    umount2(live, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    Ok(attach(overlay?, below)?)
}

/// Creates a detached tmpfs with the upper layer and the work directory of an overlay. The mode of
/// the upper layer, which becomes that of the root, is the mode of `below`.
fn create_memory(below: &OwnedFd) -> Result<OwnedFd> {
    let tmpfs = Filesystem::new(c"tmpfs")?;
    tmpfs.set(c"source", "volatile")?;
    tmpfs.set(c"mode", "700")?;
    tmpfs.create()?;
    let tree = tmpfs.mount(0)?;
    let mode = Mode::from_bits_truncate(fstat(below)?.st_mode & 0o7777);
    mkdirat(&tree, "upper", mode)?;
    mkdirat(&tree, "work", Mode::S_IRWXU)?;
    Ok(tree)
}
