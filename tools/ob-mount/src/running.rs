//! Shares of a running subhost.

use crate::idmap::Idmap;
use crate::overlay::open_path;
use crate::propagate::Crossing;
use crate::root::Root;
use crate::share::Share;
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ob_document::{Document, Usage, state};
use ob_sys::mount::attach;
use std::path::Path;

/// Mounts a share in the running subhost of `document`. Clones it in the mount namespace of the
/// caller, to which its path belongs, and attaches the clone in that of the subhost.
///
/// If the subhost has a user namespace, the mount propagates to it, see
/// [`Crossing::attach_locked`]: root inside could remount a mount that is attached directly.
pub fn share(document: &mut Document, share: &str) -> Result<()> {
    let (host, rest) = share.split_once(':').unwrap_or((share, ""));
    let host = Path::new(host).canonicalize().map_err(|error| {
        Usage(format!(
            "share {host}: {}",
            ob_document::one_line(&error.into())
        ))
    })?;
    let share = Share::parse(&format!("{}:{rest}", host.display()))?;
    let pid_1 = state::open_own_pid1(document).context("it is not running")?;
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
    let ids = idmap.as_ref().map(Idmap::set_fs_ids).transpose()?;
    let target = share.target(&root, share.inside(), &source)?;
    drop(ids);
    if idmap.is_none() {
        return attach(tree, target).with_context(|| share.context());
    }
    let attached = crossing.attach_locked(&root, &tree, &target);
    attached.with_context(|| share.context())
}
