//! Creates pid 1 in new namespaces.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use ob_sys::process::{Child, Namespaces, spawn};
use std::fs::File;
use std::os::fd::AsFd;

/// The new namespaces of every subhost. nix has no flag for the time namespace.
const NAMESPACES: Namespaces = libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWTIME;

/// Creates a child in the new namespaces of a subhost, with the additional clone(2) flags `more`.
///
/// The child calls `run` and exits with its result. With `group`, it starts in that control group.
pub fn spawn_in_namespaces(
    more: Namespaces,
    group: Option<&File>,
    run: impl Fn() -> u8,
) -> Result<Child> {
    let namespaces = NAMESPACES | more;
    let group = group.map(AsFd::as_fd);
    match spawn(namespaces, group, &run) {
        // The kernel was built without CONFIG_TIME_NS.
        Err(Errno::EINVAL) => spawn(namespaces & !libc::CLONE_NEWTIME, group, &run),
        child => child,
    }
    .context("start pid 1 in new namespaces")
}
