//! Being somebody else towards files, for a while.

use crate::credentials::change_capabilities;
use nix::Result;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// As long as it lives, this process makes and opens files as the user and group given to [`act_as`], with the capabilities
/// that it had. Programs that it runs begin as who it really is.
pub struct Acting {
    user: Uid,
    group: Gid,
}

/// Becomes `user` and `group` towards files. `EPERM`: only a process with `CAP_SETUID` and `CAP_SETGID` may.
///
/// Like `setfsuid(2)`, which takes the capabilities over files away from who is not root any more; they are raised again.
pub fn act_as(user: Uid, group: Gid) -> Result<Acting> {
    let acting = Acting {
        group: setfsgid(group),
        user: setfsuid(user),
    };
    // These calls tell nothing but who it was before, so the second of two is their verdict.
    if setfsuid(user) != user || setfsgid(group) != group {
        return Err(Errno::EPERM);
    }
    raise_permitted()?;
    Ok(acting)
}

impl Drop for Acting {
    fn drop(&mut self) {
        // The kernel itself raises root's capabilities over files again.
        setfsgid(self.group);
        setfsuid(self.user);
    }
}

/// Makes all capabilities effective that this process may have.
fn raise_permitted() -> Result<()> {
    change_capabilities(|set| set.effective = set.permitted)
}
