//! What the supervisor holds as long as it runs: the locks of the subhost, and the mount namespace
//! of the host.

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{chroot, fchdir};
use ob_document::Document;
use ob_document::state::{Lock, StateDir};
use ob_sys::fdstore::FdStore;
use std::os::fd::OwnedFd;

/// The locks of a subhost.
pub struct Locks {
    /// The mount namespace and the root directory of the host; `None` if this process is not in a
    /// room.
    host: Option<(OwnedFd, OwnedFd)>,
    /// Locks from the fd store of the room: on the state directory, LIVE and UPPER.
    _stored: Vec<OwnedFd>,
    /// The lock on the state directory, if no guard holds it.
    own: Option<Lock>,
}

impl Locks {
    /// Takes the locks out of the fd store of the room, and locks the state directory if no guard
    /// has.
    ///
    /// # Errors
    /// Another subhost of that name runs, starts or ends.
    pub fn take(document: &Document) -> Result<Self> {
        let store = FdStore::from_environment().context("open the fd store of the room")?;
        let mut stored = match store {
            Some(store) => store.drain().context("drain the fd store of the room")?,
            None => Vec::new(),
        };
        let host = (stored.len() >= 2).then(|| (stored.remove(0), stored.remove(0)));
        let state_dir = StateDir::of(document.name());
        let own = if stored.iter().any(|lock| state_dir.is_lock(lock)) {
            None
        } else {
            let lock = state_dir.lock()?;
            Some(lock.with_context(|| state_dir.in_use_message())?)
        };
        Ok(Locks {
            host,
            _stored: stored,
            own,
        })
    }

    /// Returns whether a guard holds the lock too, and cleans up.
    pub fn is_guarded(&self) -> bool {
        self.own.is_none()
    }

    /// Joins the mount namespace of the host, with the root directory of the creator of the room.
    ///
    /// That directory may be in a chroot(2). The mounts of the room end; pid 1 has copies.
    pub fn leave_room(&self) -> Result<()> {
        let Some((namespace, root)) = &self.host else {
            return Ok(());
        };
        setns(namespace, CloneFlags::CLONE_NEWNS)
            .and_then(|()| fchdir(root))
            .and_then(|()| chroot("."))
            .context("leave the room")
    }

    /// Removes the control group, and the state directory if there is no guard.
    ///
    /// If the control group is busy, the state stays: it names the group for the next attempt.
    pub fn clean_up(&self, document: &Document) -> Result<()> {
        if ob_shutdown::cgroup::remove(document).is_ok() && !self.is_guarded() {
            StateDir::of(document.name()).remove()?;
        }
        Ok(())
    }
}
