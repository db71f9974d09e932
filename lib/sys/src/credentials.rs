//! What a process may do: capabilities, `capabilities(7)`, and system call filters, `seccomp(2)`.

use nix::Result;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_ulong, c_ushort};

/// A set of capabilities, a bit for each by its number.
pub type Capabilities = u64;

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Sets {
    pub(crate) effective: u32,
    pub(crate) permitted: u32,
    pub(crate) inheritable: u32,
}

/// Drops all capabilities that are not in `kept` from what this process and its children can ever have again by an exec: from
/// the bounding, the ambient and the inheritable set. What it can do itself stays until then.
///
/// `EPERM` without `CAP_SETPCAP`.
pub fn bound_capabilities(kept: Capabilities) -> Result<()> {
    for capability in 0..c_ulong::from(u64::BITS) {
        if kept & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: takes numbers.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Err(Errno::EINVAL) => break, // the first that this kernel does not know
            result => result?,
        };
    }
    // SAFETY: takes numbers.
    Errno::result(unsafe {
        let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong;
        libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0)
    })?;
    // Root gets its inheritable set at an exec, be it in the bounding set or not.
    change_capabilities(|set| set.inheritable = 0)
}

/// Changes the capability sets of this process, each 32 of them at a time. Like `capset(2)`: `EPERM` for what it may not have.
pub(crate) fn change_capabilities(change: impl Fn(&mut Sets)) -> Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut sets = [Sets::default(); 2];
    // SAFETY: version 3 reads and writes one header and two structures, which live over the calls.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    sets.iter_mut().for_each(change);
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) })
        .map(drop)
}

/// One instruction of a filter, as `struct sock_filter` has it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How many instructions to skip if it is true, and if not.
    pub jt: u8,
    #[allow(missing_docs)]
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

/// Has the kernel run `filter` before every system call of this process and all that come from it, beside those loaded before.
///
/// Like `seccomp(2)` with `SECCOMP_SET_MODE_FILTER`: `EACCES` without `CAP_SYS_ADMIN` (or no_new_privs), `EINVAL` if the kernel finds
/// fault with the filter or has none.
pub fn load_filter(filter: &[Instruction]) -> Result<()> {
    #[repr(C)]
    struct Program {
        length: c_ushort,
        filter: *const Instruction,
    }
    let program = Program {
        length: c_ushort::try_from(filter.len()).map_err(|_| Errno::E2BIG)?,
        filter: filter.as_ptr(),
    };
    // SAFETY: the kernel copies `length` instructions, which live over the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    Errno::result(result).map(drop)
}
