//! Being somebody else towards files, for a while.

use nix::Result;
use nix::errno::Errno;
use nix::libc;
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

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes all capabilities effective that this process may have.
fn raise_permitted() -> Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut sets = [Sets::default(); 2];
    // SAFETY: version 3 reads and writes a header and two triples of numbers, which live over the calls.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(result)?;
    for set in &mut sets {
        set.effective = set.permitted;
    }
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    Errno::result(result).map(drop)
}
