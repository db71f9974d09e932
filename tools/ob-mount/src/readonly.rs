//! A root that keeps nothing: read-only, or with a memory that ends with the subhost.

use crate::layers::overlay;
use crate::mapped::{Mapped, look};
use crate::root::Root;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use ob_sys::mount::{Depth, Filesystem, attach, clone_tree, set_attributes};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Makes the root on `live` read-only; what was mounted on it stays as it is. Tells whether that took another mount, as it does
/// where the root is a plain directory, or somebody else's mount.
pub fn make_read_only(live: &Path, ours: bool) -> Result<bool> {
    let read_only = |tree: &OwnedFd| {
        set_attributes(tree, Depth::One, MOUNT_ATTR_RDONLY, 0, None).map_err(|error| match error {
            Errno::ENOSYS => anyhow::anyhow!("needs Linux 5.12"),
            error => error.into(),
        })
    };
    let root = look(live)?;
    if ours {
        return read_only(&root).map(|()| false);
    }
    let copy = clone_tree(&root, c"", Depth::Recursive)?;
    read_only(&copy)?;
    attach(copy, root)?;
    Ok(true)
}

/// Lays an overlay on the root at `live` that takes in memory what is written. `prepare` is given the directory that does so, before
/// anything is in it.
///
/// The layer below is the finished root, be it itself an overlay, a bind mount, or mapped.
pub fn make_volatile(
    name: &str,
    live: &Path,
    mapped: Option<&Mapped>,
    prepare: impl FnOnce(&Path),
) -> Result<()> {
    let below = look(live)?;
    let _acting = mapped.map(Mapped::act_as_root).transpose()?;
    let memory = memory(&below).context("make a place in memory")?;
    // An overlay takes layers by path alone; this one has a path for as long as it is being made.
    attach(&memory, &below)?;
    prepare(&live.join("upper"));
    let lower = format!("/proc/self/fd/{}", below.as_raw_fd());
    let attributes = if mapped.is_some() {
        MOUNT_ATTR_NODEV
    } else {
        0
    };
    let (upper, work) = (live.join("upper"), live.join("work"));
    let made = overlay(name, Path::new(&lower), &upper, &work, attributes);
    umount2(live, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    Ok(attach(made?, below)?)
}

/// A tmpfs with the directories that an overlay writes to; the root of the one that it writes for is like `below`.
fn memory(below: &OwnedFd) -> Result<OwnedFd> {
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

/// Whether UPPER has what [`crate::prepare::prepare`] makes.
pub fn is_prepared(upper: &Path) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    Root::open(upper).is_ok_and(|root| {
        root.find(Path::new("etc/network/interfaces"), flags)
            .is_ok()
    })
}
