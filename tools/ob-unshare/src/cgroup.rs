//! Creates the control group of a subhost, if the host has a cgroup2 tree.

use crate::cgroup_parent::{delegated_unit, no_tree, prepare_parent, set, tree};
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{chown, mkdir};
use ob_confine::userns::IdRange;
use ob_document::Document;
use ob_document::state::StateDir;
use ob_shutdown::cgroup::{is_ours, mark, remove_if_empty};
use std::fs::File;
use std::path::Path;

/// Creates the group of the subhost, sets its limits, and notes it in the document as `cgroup`.
///
/// Returns `None` if the subhost has no limits and there is no cgroup2 tree, or none that can be
/// written to.
///
/// With `ids`, root inside may create groups below it, as systemd(1) does.
///
/// # Errors
/// A limit cannot be set, or another program has created a group of that name.
pub fn make(document: &mut Document, ids: Option<IdRange>) -> Result<Option<File>> {
    let limits = ob_confine::cgroup_limits::of(document)?;
    let tree = match (tree(), limits.first()) {
        (Some(tree), _) => tree,
        (None, None) => return Ok(None),
        (None, Some((limit, _))) => return Err(no_tree(limit)),
    };
    let parent = if limits.is_empty() {
        delegated_unit(&tree).ok().flatten().unwrap_or(tree)
    } else {
        prepare_parent(&tree, document.name(), &limits)?
    };
    let path = parent.join(document.name());
    let context = || format!("make the control group {}", path.display());
    document.set("cgroup", path.to_str().context("its path is not UTF-8")?);
    let made = make_group(document, &path);
    if let Err(error) = made {
        document.remove("cgroup");
        return match error.downcast_ref() {
            Some(errno) if is_forbidden(*errno) && limits.is_empty() => Ok(None),
            _ => Err(error).with_context(context),
        };
    }
    set(&path, &limits)?;
    if let Some(ids) = ids {
        delegate(&path, ids).with_context(|| format!("chown {}", path.display()))?;
    }
    Ok(Some(File::open(&path).with_context(context)?))
}

/// Creates the group at `path`, and removes the group of a killed predecessor first.
fn make_group(document: &Document, path: &Path) -> Result<()> {
    ensure!(
        !path.exists() || is_ours(document, path) && remove_if_empty(path),
        "it is in use by something else; set another NAME, or rmdir it if nothing needs it"
    );
    // Noted before the group exists: if this process is killed, the process that cleans up finds
    // the group.
    let state_dir = StateDir::of(document.name());
    state_dir.note(document, &["cgroup"])?;
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            mark(path);
            Ok(())
        }
        Err(errno) => {
            let mut without = document.clone();
            without.remove("cgroup");
            state_dir.note(&without, &["cgroup"])?;
            Err(errno.into())
        }
    }
}

/// The largest number of groups below a group of root inside. The kernel has 65535 ids for groups
/// with the memory controller (`MEM_CGROUP_ID_MAX`), which all groups of the host share.
const MAX_DESCENDANTS: &str = "4096";

/// Changes the owner of the group and of the files that cgroups(7), "Cgroups v2 delegation", lists.
/// The host keeps the files of the limits, `cgroup.freeze` and `cgroup.kill`.
fn delegate(path: &Path, ids: IdRange) -> Result<()> {
    std::fs::write(path.join("cgroup.max.descendants"), MAX_DESCENDANTS)?;
    for file in [
        "",
        "cgroup.procs",
        "cgroup.threads",
        "cgroup.subtree_control",
    ] {
        chown(&path.join(file), Some(ids.user(0)), Some(ids.group(0)))?;
    }
    Ok(())
}

fn is_forbidden(errno: Errno) -> bool {
    [Errno::EACCES, Errno::EPERM, Errno::EROFS].contains(&errno)
}
