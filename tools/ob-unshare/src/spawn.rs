//! Creates pid 1 in new namespaces.

use crate::cgroup_parent::reached_pids_max;
use anyhow::{Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use ob_sys::namespace::refusal;
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
    let fd = group.map(AsFd::as_fd);
    match spawn(namespaces, fd, &run) {
        // The kernel was built without CONFIG_TIME_NS.
        Err(Errno::EINVAL) => spawn(namespaces & !libc::CLONE_NEWTIME, fd, &run),
        child => child,
    }
    .map_err(|error| {
        let why = why(error, namespaces, group);
        anyhow!("start pid 1 in new namespaces: {why}")
    })
}

/// Returns the reason why a child was not created in these `namespaces` and in this `group`.
pub fn why(error: Errno, namespaces: Namespaces, group: Option<&File>) -> String {
    let pids_max = (error == Errno::EAGAIN).then(|| reached_pids_max(group));
    match pids_max.flatten() {
        Some(limit) => format!("the limit {} is reached", limit.display()),
        None => refusal(error, namespaces),
    }
}
