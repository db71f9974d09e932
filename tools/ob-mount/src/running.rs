//! Shares of a running subhost.

use crate::idmap::Idmap;
use crate::overlay::{ensure_can_mount, open_path};
use crate::propagate::Crossing;
use crate::root::Root;
use crate::share::Share;
use anyhow::{Context, Error, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ob_document::{Document, Usage, state};
use ob_sys::mount::{attach, mount_of};
use std::os::fd::OwnedFd;
use std::path::Path;

/// How many mounts of deleted files may lie on one another.
const MAX_STALE: usize = 16;

/// Mounts a share in the running subhost of `document`. Clones it in the mount namespace of the
/// caller, to which its path belongs, and attaches the clone in that of the subhost.
///
/// If the subhost has a user namespace, the mount propagates to it, see
/// [`Crossing::attach_locked`]: root inside could remount a mount that is attached directly.
pub fn share(document: &mut Document, share: &str) -> Result<()> {
    ensure_can_mount()?;
    let (host, rest) = share.split_once(':').unwrap_or((share, ""));
    let host = Path::new(host).canonicalize().map_err(|error| {
        Usage(format!(
            "share {host}: {}",
            ob_document::one_line(&error.into())
        ))
    })?;
    let share = Share::parse(&format!("{}:{rest}", host.display()))?;
    let pid_1 = state::open_own_pid1(document)?.context("it is not running")?;
    let idmap = Idmap::of_running(document)?;
    // Before Linux 5.12 clone_tree cannot make the clone private, so its source must be private.
    unshare(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    let crossing = Crossing::from_here_to(&pid_1)?;
    let source = open_path(share.host()).with_context(|| share.context())?;
    let tree = share.clone_source(&source, idmap.as_ref())?;
    crossing.join()?;
    let root = Root::open(Path::new("/"))?;
    let attach_at = |target: &OwnedFd| match &idmap {
        None => Ok(attach(&tree, target)?),
        Some(_) => crossing.attach_locked(&root, &tree, target),
    };
    for _ in 0..MAX_STALE {
        let ids = idmap.as_ref().map(Idmap::set_fs_ids).transpose()?;
        let target = share.target(&root, share.inside(), &source)?;
        drop(ids);
        match attach_at(&target) {
            // The kernel mounts nothing on a deleted file. An earlier share shows one if the file
            // was deleted, or replaced by rename(2), on the host.
            Err(error) if is_missing(&error) && mount_of(&target)?.is_root => {
                let unmounted = crossing.unmount(&target);
                unmounted.with_context(|| {
                    format!("unmount the deleted file at {}", share.inside().display())
                })?;
            }
            attached => return attached.with_context(|| share.context()),
        }
    }
    bail!("{}: there are too many deleted files", share.context())
}

fn is_missing(error: &Error) -> bool {
    error.downcast_ref() == Some(&Errno::ENOENT)
}
