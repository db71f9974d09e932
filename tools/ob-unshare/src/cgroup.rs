//! The control group of a subhost, where the host has a cgroup2 tree.

use crate::limits::{own_unit, prepare_parent, set};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use ob_document::state::Home;
use ob_document::{Document, tree};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a cgroup2 tree is mounted: alone, or beside version 1. Looked for there, since the table of mounts grows with every
/// subhost that runs.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Makes the group of the subhost with its limits, and notes it in the document as `cgroup`; without limits, none where there is no
/// tree that we may write to.
///
/// Fails if a group of that name is there and not empty: it is somebody else's.
pub fn make(document: &mut Document) -> Result<Option<File>> {
    let limits = ob_confine::limits::of(document)?;
    let tree = match (tree(), limits.first()) {
        (Some(tree), _) => tree,
        (None, None) => return Ok(None),
        (None, Some((limit, _))) => bail!("{}: the host has no cgroup2 tree", limit.name),
    };
    let parent = if limits.is_empty() {
        own_unit(&tree).ok().flatten().unwrap_or(tree)
    } else {
        prepare_parent(&tree, document.name(), &limits)?
    };
    let path = parent.join(document.name());
    let context = || format!("make the control group {}", path.display());
    if path.exists() && !remove_soon(&path) {
        bail!(
            "the control group {} is in use by something else; set another NAME",
            path.display()
        );
    }
    // Noted at rest before it is there: whoever cleans up after us, were we killed, knows of it.
    document.set("cgroup", path.to_str().context("its path is not UTF-8")?);
    note_at_rest(document).with_context(context)?;
    match std::fs::create_dir(&path) {
        Ok(()) => {}
        Err(error) if is_forbidden(&error) && limits.is_empty() => {
            document.remove("cgroup");
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(context),
    }
    set(&path, &limits)?;
    Ok(Some(File::open(&path).with_context(context)?))
}

fn note_at_rest(document: &Document) -> Result<()> {
    let name = document.name();
    let home = Home::of(name);
    let mut resting = home.document()?.map_or_else(|| Document::new(name), Ok)?;
    resting.set("cgroup", document.text("cgroup")?);
    home.write(&resting)
}

/// Removes the group that the document notes, with those that were made in it. `cgroup.kill` is the last means against processes
/// that nothing else has ended; the kernel takes a moment to let go of the dead.
pub fn remove(document: &Document) -> Result<()> {
    let Ok(path) = document.path("cgroup") else {
        return Ok(());
    };
    for attempt in 0..100 {
        if remove_tree(path) {
            return Ok(());
        }
        // Without a pid 1 noted it was never ours for certain.
        if attempt == 50 && document.has("pid") {
            let _ = std::fs::write(path.join("cgroup.kill"), "1");
        }
        std::thread::sleep(Duration::from_micros(50 << attempt.min(9)));
    }
    bail!("remove the control group {}: it is busy", path.display())
}

pub fn tree() -> Option<PathBuf> {
    MOUNTS
        .iter()
        .find(|path| statfs(**path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC))
        .map(PathBuf::from)
}

/// Removes a group that a killed predecessor has left, whose last processes may be dying yet; tells whether it is gone.
fn remove_soon(path: &Path) -> bool {
    (0..50).any(|_| {
        let removed = remove_tree(path);
        if !removed {
            std::thread::sleep(Duration::from_millis(10));
        }
        removed
    })
}

/// Removes a group and all below it, and returns whether it is gone. A group with processes stays.
fn remove_tree(path: &Path) -> bool {
    // The files of a group cannot be removed, and go with it.
    tree::remove(path, false).is_ok()
}

fn is_forbidden(error: &std::io::Error) -> bool {
    let forbidden = [Errno::EACCES, Errno::EPERM, Errno::EROFS];
    forbidden
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}
