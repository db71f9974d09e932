//! Removes control groups of subhosts, and recognises control groups of other programs.

use anyhow::{Result, bail};
use ob_confine::cgroup_limits::group;
use ob_document::state::StateDir;
use ob_document::{Document, tree};
use ob_sys::file::{get_xattr, set_xattr};
use std::ffi::CStr;
use std::path::Path;
use std::time::Duration;

/// The attribute of a group that `ob-unshare` created. It lasts as long as the group.
const MARK: &CStr = c"user.overlay-boot";

/// Marks a new group as created by `ob-unshare`.
pub fn mark(path: &Path) {
    // cgroupfs has user.* attributes since Linux 5.7. Without the mark, `remove` does not remove
    // groups below this group.
    let _ = set_xattr(path, MARK, b"1");
}

/// Returns whether `ob-unshare` created the group: it has the mark, or the state file of the
/// subhost names it.
#[must_use]
pub fn is_ours(document: &Document, path: &Path) -> bool {
    is_marked(path) || is_noted(document, path)
}

fn is_marked(path: &Path) -> bool {
    get_xattr(path, MARK).is_ok()
}

fn is_noted(document: &Document, path: &Path) -> bool {
    let state = StateDir::of(document.name()).document().ok().flatten();
    state.and_then(|state| group(&state)).as_deref() == Some(path)
}

/// Removes the group of the document and the groups below it. Leaves a group of another program.
///
/// A killed process stays in its group until the kernel has freed it, so rmdir(2) is tried again
/// for a few seconds. Halfway, `cgroup.kill` kills processes that nothing else has ended (Linux
/// 5.14, cgroups(7)).
///
/// # Errors
/// The group is still busy.
pub fn remove(document: &Document) -> Result<()> {
    let Some(path) = group(document) else {
        return Ok(());
    };
    match (is_marked(&path), is_noted(document, &path)) {
        (true, true) => {}
        (false, false) => return Ok(()),
        // The creator was killed before it set the mark, or the state file is gone: other programs
        // may have processes in the group. Remove it only if it is empty.
        _ => {
            retry(|| std::fs::remove_dir(&path).is_ok());
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

/// Removes a group that a killed predecessor has left, and returns whether it is gone.
///
/// Waits half a second until the kernel has freed the last processes in it.
#[must_use]
pub fn remove_if_empty(path: &Path) -> bool {
    let events = path.join("cgroup.events");
    let is_empty = || {
        let events = std::fs::read_to_string(&events).unwrap_or_default();
        events.lines().any(|line| line == "populated 0")
    };
    retry(|| is_empty() && remove_tree(path))
}

/// Calls `is_done` for half a second, until it returns true. Returns its last result.
fn retry(is_done: impl Fn() -> bool) -> bool {
    (0..50).any(|_| {
        let done = is_done();
        if !done {
            std::thread::sleep(Duration::from_millis(10));
        }
        done
    })
}

/// Removes a group and the groups below it, and returns whether it is gone. A group with processes
/// stays.
fn remove_tree(path: &Path) -> bool {
    // unlink(2) fails on the files of a group; rmdir(2) removes them with it.
    tree::remove(path, false).is_ok()
}
