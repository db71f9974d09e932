//! Owners of namespaces, `ioctl_ns(2)`, and limits of their number, `namespaces(7)`.

use crate::process::{Namespaces, spawn};
use nix::Result;
use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `_IO(0xb7, 1)` of `linux/nsfs.h`.
const NS_GET_USERNS: libc::Ioctl = 0xb701;

/// Opens the user namespace that owns the namespace `descriptor`. Linux 4.9.
///
/// # Errors
/// `EPERM`: the owner is neither the user namespace of this process nor a descendant of it.
pub fn owner(descriptor: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: this request takes no argument and returns a close-on-exec descriptor.
    let result = unsafe { libc::ioctl(descriptor.as_fd().as_raw_fd(), NS_GET_USERNS) };
    crate::fd::descriptor(result.into())
}

/// The kinds of namespaces, and the sysctls that limit their number.
const LIMITS: [(Namespaces, &str); 8] = [
    (libc::CLONE_NEWUSER, "user.max_user_namespaces"),
    (libc::CLONE_NEWPID, "user.max_pid_namespaces"),
    (libc::CLONE_NEWIPC, "user.max_ipc_namespaces"),
    (libc::CLONE_NEWUTS, "user.max_uts_namespaces"),
    (libc::CLONE_NEWNS, "user.max_mnt_namespaces"),
    (libc::CLONE_NEWNET, "user.max_net_namespaces"),
    (libc::CLONE_NEWCGROUP, "user.max_cgroup_namespaces"),
    (libc::CLONE_NEWTIME, "user.max_time_namespaces"),
];

/// Returns the reason why `namespaces` were not created, with the limit that was reached.
///
/// `error` comes from `clone(2)` or `unshare(2)`. `ENOSPC` does not name the limit, so this
/// function creates each kind alone, in a child that exits. This process must have only one thread.
#[must_use]
pub fn refusal(error: Errno, namespaces: Namespaces) -> String {
    let is_limit = |error| matches!(error, Errno::ENOSPC | Errno::EUSERS);
    let is_reached = |kind: Namespaces| match spawn(kind, None, || 0) {
        Ok(child) => {
            let _ = waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED);
            false
        }
        Err(error) => is_limit(error),
    };
    let mut tried = LIMITS.iter().filter(|(kind, _)| namespaces & kind != 0);
    match tried.find(|(kind, _)| is_limit(error) && is_reached(*kind)) {
        Some((_, limit)) => format!("the limit is reached; raise sysctl {limit}"),
        None => error.desc().to_owned(),
    }
}
