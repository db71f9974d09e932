//! The user and group of this process for filesystem access, `setfsuid(2)`.

use crate::credentials::change_capabilities;
use nix::Result;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// Restores the previous filesystem user and group when it is dropped.
pub struct FsIdsGuard {
    user: Uid,
    group: Gid,
}

/// Sets the filesystem user and group of this process, and keeps its capabilities.
///
/// Files that it creates belong to them until the guard is dropped. Programs that it executes start
/// with its effective ids.
///
/// # Errors
/// `EPERM`: the process lacks `CAP_SETUID` or `CAP_SETGID`.
pub fn set_fs_ids(user: Uid, group: Gid) -> Result<FsIdsGuard> {
    let guard = FsIdsGuard {
        group: setfsgid(group),
        user: setfsuid(user),
    };
    // Both calls return the previous id and no error, so the second call shows the result.
    if setfsuid(user) != user || setfsgid(group) != group {
        return Err(Errno::EPERM);
    }
    // A change from uid 0 clears the capabilities for files in the effective set, capabilities(7).
    change_capabilities(|set| set.effective = set.permitted)?;
    Ok(guard)
}

impl Drop for FsIdsGuard {
    fn drop(&mut self) {
        // A change to uid 0 sets the capabilities for files again, capabilities(7).
        setfsgid(self.group);
        setfsuid(self.user);
    }
}
