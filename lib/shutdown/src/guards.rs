//! Finds the guard of a subhost, and the process that stops the subhost.
//!
//! The state file names the guard by pid and start time. The file `stopping` in the state directory
//! is locked while the process that locked it ends the subhost and cleans up.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use ob_document::Document;
use ob_document::state::{Lock, StateDir, identify, parent};
use ob_sys::lock::{is_free, try_lock};
use ob_sys::process::{pidfd_open, pidfd_signal};
use std::fs::File;
use std::os::fd::OwnedFd;

/// The file that is locked while the subhost is stopped.
const STOPPING: &str = "stopping";

/// Sends TERM to the guard of a subhost that has no pid 1 yet, which cancels the boot.
///
/// A process that does not hold the lock of the subhost is not its guard, even if the document
/// names it.
pub fn cancel(document: &Document) {
    let state_dir = StateDir::of(document.name());
    let pid = document.number("guard").ok();
    let is_guard =
        |pid| i32::try_from(pid).is_ok_and(|pid| state_dir.is_held_by(pid).unwrap_or(false));
    if let Some(guard) = find(document).filter(|_| pid.is_some_and(is_guard)) {
        let _ = pidfd_signal(guard, Signal::SIGTERM);
    }
}

/// Continues the guard and the supervisor if another process has stopped them, signal(7): they must
/// clean up, and a stopped process keeps its locks.
pub fn resume(document: &Document) {
    let processes = [find(document), open_supervisor(document)];
    for process in processes.into_iter().flatten() {
        let _ = pidfd_signal(process, Signal::SIGCONT);
    }
}

/// Opens a pidfd of the supervisor, the parent of pid 1; `None` if that process is none.
fn open_supervisor(document: &Document) -> Option<OwnedFd> {
    let pid = parent(document.number("pid").ok()?).ok()??;
    let pidfd = pidfd_open(Pid::from_raw(pid)).ok()?;
    let is_own = StateDir::of(document.name()).is_held_by(pid).ok()?;
    (is_own && pidfd_signal(&pidfd, None).is_ok()).then_some(pidfd)
}

/// Opens a pidfd of the guard that the document names; `None` if that process has exited.
///
/// The start time is compared after the pidfd is open, so a process that reused the pid is not
/// returned.
#[must_use]
pub fn find(document: &Document) -> Option<OwnedFd> {
    let start = document.number("guardstart").ok()?;
    let pid = i32::try_from(document.number("guard").ok()?).ok()?;
    let pidfd = pidfd_open(Pid::from_raw(pid)).ok()?;
    identify(pid)
        .is_ok_and(|(_, found)| found == start)
        .then_some(pidfd)
}

/// Returns whether the guard of `document` has cleaned up and exited.
///
/// The state file shows it: it is gone, or it names another guard. For a subhost without a guard
/// the result is false.
#[must_use]
pub fn is_gone(state_dir: &StateDir, document: &Document) -> bool {
    let identity = |document: &Document| {
        let guard = document.number("guard").ok()?;
        Some((guard, document.number("guardstart").ok()?))
    };
    let Some(ours) = identity(document) else {
        return false;
    };
    match state_dir.document() {
        Ok(Some(state)) => identity(&state).is_some_and(|other| other != ours),
        Ok(None) => !state_dir.file("lock").exists(),
        Err(_) => false,
    }
}

/// Marks the subhost `name` as stopping, until the returned lock is dropped.
///
/// The guard then leaves the cleanup to this process, and ob-list(1) shows the state. Returns
/// `None` if another process stops the subhost already, or if there is no state directory.
#[must_use]
pub fn mark_stopping(name: &str) -> Option<Lock> {
    let file = File::create(StateDir::of(name).file(STOPPING)).ok()?;
    try_lock(&file).ok()?.then_some(file)
}

/// Returns whether another process stops the subhost and will clean up.
#[must_use]
pub fn is_being_stopped(state_dir: &StateDir) -> bool {
    File::open(state_dir.file(STOPPING)).is_ok_and(|file| !is_free(&file))
}
