//! The control group of a subhost, where the host has a cgroup2 tree.

use crate::limits::{own_unit, prepare_parent, set};
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::mkdir;
use ob_confine::cgroup_limits::group;
use ob_document::state::StateDir;
use ob_document::{Document, tree};
use ob_sys::file::{get_xattr, set_xattr};
use std::ffi::CStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a cgroup2 tree is mounted: alone, or beside version 1. Looked for there, since the table of mounts grows with every
/// subhost that runs.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The attribute of a group that this program has made, for as long as the group lasts.
const MARK: &CStr = c"user.overlay-boot";

/// Makes the group of the subhost with its limits, and notes it in the document as `cgroup`; without limits, none where there is no
/// tree that we may write to.
///
/// Fails if there is a group of that name which was not made here: it is somebody else's.
pub fn make(document: &mut Document) -> Result<Option<File>> {
    let limits = ob_confine::cgroup_limits::of(document)?;
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
    Ok(Some(File::open(&path).with_context(context)?))
}

/// Makes the group at `path`, which the document notes. A killed predecessor may have left one.
fn make_group(document: &Document, path: &Path) -> Result<()> {
    let is_ours = || is_marked(path) || is_noted(document, path);
    ensure!(
        !path.exists() || is_ours() && remove_soon(path),
        "it is in use by something else; set another NAME, or rmdir it if nothing needs it"
    );
    // Noted before it is there: a process that cleans up after us, were we killed, knows of it.
    let home = StateDir::of(document.name());
    home.note(document, &["cgroup"])?;
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            // Where that cannot be, before Linux 5.7, groups that are made in it are not removed with it.
            let _ = set_xattr(path, MARK, b"1");
            Ok(())
        }
        Err(errno) => {
            let mut without = document.clone();
            without.remove("cgroup");
            home.note(&without, &["cgroup"])?;
            Err(errno.into())
        }
    }
}

/// Whether this program has made the group.
fn is_marked(path: &Path) -> bool {
    get_xattr(path, MARK).is_ok()
}

/// Whether the state file of the subhost notes the group.
fn is_noted(document: &Document, path: &Path) -> bool {
    let state = StateDir::of(document.name()).document().ok().flatten();
    state.and_then(|state| group(&state)).as_deref() == Some(path)
}

/// Removes the group that the document notes, with those that were made in it. One that this program has not made stays.
/// `cgroup.kill` is the last means against processes that nothing else has ended; the kernel takes a moment to let go of the dead.
pub fn remove(document: &Document) -> Result<()> {
    let Some(path) = group(document) else {
        return Ok(());
    };
    match (is_marked(&path), is_noted(document, &path)) {
        (true, true) => {}
        (false, false) => return Ok(()),
        // Its maker was killed before it was marked, or the state file is gone: not all that is in it
        // may be ours.
        _ => {
            soon(|| std::fs::remove_dir(&path).is_ok());
            return Ok(());
        }
    }
    for attempt in 0..100 {
        if remove_tree(&path) {
            return Ok(());
        }
        if attempt == 50 {
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
    let events = path.join("cgroup.events");
    let is_empty = || {
        let events = std::fs::read_to_string(&events).unwrap_or_default();
        events.lines().any(|line| line == "populated 0")
    };
    soon(|| is_empty() && remove_tree(path))
}

/// Tries for half a second; returns whether it is `done`.
fn soon(done: impl Fn() -> bool) -> bool {
    (0..50).any(|_| {
        let is_done = done();
        if !is_done {
            std::thread::sleep(Duration::from_millis(10));
        }
        is_done
    })
}

/// Removes a group and all below it, and returns whether it is gone. A group with processes stays.
fn remove_tree(path: &Path) -> bool {
    // The files of a group cannot be removed, and go with it.
    tree::remove(path, false).is_ok()
}

fn is_forbidden(errno: Errno) -> bool {
    [Errno::EACCES, Errno::EPERM, Errno::EROFS].contains(&errno)
}
