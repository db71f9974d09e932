//! Capabilities of this process, `capabilities(7)`, and its system call filters, `seccomp(2)`.

use nix::Result;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_ulong, c_ushort};

/// A set of capabilities: bit N is the capability with the number N.
pub type Capabilities = u64;

/// `_LINUX_CAPABILITY_VERSION_3`: two structures of 32 capabilities each.
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct` of `linux/capability.h`.
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct` of `linux/capability.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Sets {
    pub(crate) effective: u32,
    pub(crate) permitted: u32,
    pub(crate) inheritable: u32,
}

/// Removes all capabilities but `kept` from the bounding set.
///
/// Also clears the ambient and the inheritable set. No program that this process executes can then
/// gain them again. The permitted and the effective set do not change until `execve(2)`.
///
/// # Errors
/// `EPERM`: the process lacks `CAP_SETPCAP`.
pub fn bound_capabilities(kept: Capabilities) -> Result<()> {
    for capability in 0..c_ulong::from(u64::BITS) {
        if kept & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: takes only numbers.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Err(Errno::EINVAL) => break, // above the last capability of this kernel
            result => result?,
        };
    }
    // SAFETY: takes only numbers.
    Errno::result(unsafe {
        let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong;
        libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0)
    })?;
    // execve by uid 0 adds the inheritable set to the permitted set, whether or not a capability is
    // in the bounding set, capabilities(7).
    change_capabilities(|set| set.inheritable = 0)
}

/// Calls `change` on both halves of the capability sets of this process, and sets the result.
///
/// # Errors
/// `EPERM`: `change` adds a capability that the process must not have, `capset(2)`.
pub(crate) fn change_capabilities(change: impl Fn(&mut Sets)) -> Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut sets = [Sets::default(); 2];
    // SAFETY: with version 3, the kernel accesses one header and two structures, which are valid
    // during the calls.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    sets.iter_mut().for_each(change);
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) })
        .map(drop)
}

/// An instruction of a filter, `struct sock_filter` of `linux/filter.h`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// The opcode.
    pub code: u16,
    /// Number of instructions to skip if the condition of a jump is true.
    pub jt: u8,
    /// Number of instructions to skip if it is false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Loads a system call filter into this process, in addition to the filters that it has.
///
/// The kernel runs `filter` before each system call of the process and of its future descendants.
///
/// # Errors
/// The errors of `seccomp(2)`, `SECCOMP_SET_MODE_FILTER`. `EACCES`: the process has neither
/// `CAP_SYS_ADMIN` nor no_new_privs. `EINVAL`: the filter is invalid, or the kernel was built
/// without filters.
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
    // SAFETY: the kernel copies `length` instructions, which are valid during the call.
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
