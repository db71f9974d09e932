//! The default profile.

use super::rule::{Outcome, Profile, Rule};
use crate::capabilities::contains;
use crate::syscalls;
use anyhow::Result;
use nix::libc;
use ob_sys::credentials::Capabilities;
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

/// System calls that always fail: no service needs them, and several have had vulnerabilities.
///
/// Those for keys are here because keyrings are not isolated by namespaces, `keyrings(7)`.
const REFUSED: &[&str] = &[
    "_sysctl",
    "acct",
    "add_key",
    "afs_syscall",
    "bpf",
    "create_module",
    "delete_module",
    "finit_module",
    "get_kernel_syms",
    "getpmsg",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "nfsservctl",
    "perf_event_open",
    "putpmsg",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "request_key",
    "security",
    "swapoff",
    "swapon",
    "sysfs",
    "tuxcall",
    "uselib",
    "userfaultfd",
    "ustat",
    "vserver",
];

/// System calls that fail without a capability.
///
/// The kernel checks the capability too, but not before all code of each call.
const NEEDS_CAPABILITY: &[(&str, &[&str])] = &[
    (
        "SYS_ADMIN",
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "pivot_root",
            "setdomainname",
            "sethostname",
            "setns",
            "umount2",
        ],
    ),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    (
        "SYS_TIME",
        &["clock_adjtime", "clock_settime", "settimeofday"],
    ),
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("SYSLOG", &["syslog"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
];

/// Socket families that are allowed.
///
/// For any other, `socket(2)` can load a kernel module that has had little review.
const SOCKET_FAMILIES: [libc::c_int; 5] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
    libc::AF_PACKET,
];

/// The flags of `clone(2)` and `unshare(2)` that create namespaces.
const NAMESPACE_FLAGS: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Arguments of `personality(2)` that are allowed, as in the profile of Docker.
///
/// `PER_LINUX`, `PER_LINUX32`, each also with `UNAME26`, and the query of the current value.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];

/// Requests of `ioctl(2)` that write to the input of a terminal, which may be one of the caller.
const TERMINAL_INPUT: [u32; 2] = [0x5412, 0x541c]; // TIOCSTI, TIOCLINUX

impl Profile {
    /// Returns the default profile for a process with the capabilities `kept`.
    ///
    /// Allows all known system calls except those above. Any other fails with ENOSYS, so that
    /// programs fall back to older calls.
    pub(super) fn default_for(kept: Capabilities) -> Result<Self> {
        let administrator = contains(kept, "SYS_ADMIN")?;
        let refusal = Outcome::Errno(libc::EPERM as u32);
        let missing = Outcome::Errno(libc::ENOSYS as u32);
        let mut profile = Profile {
            default: missing,
            rules: Vec::new(),
        };
        let known = syscalls::all();
        // clone3 has its flags in memory, which a filter cannot read. If it fails with ENOSYS, C
        // libraries use clone.
        let known = known.filter(|(name, _)| administrator || *name != "clone3");
        profile.add(
            known.map(|(_, number)| number).collect(),
            Outcome::Allow,
            Vec::new(),
        );
        profile.refuse(REFUSED, refusal);
        for (name, calls) in NEEDS_CAPABILITY {
            if !contains(kept, name)? {
                profile.refuse(calls, refusal);
            }
        }
        if !administrator {
            for flag in NAMESPACE_FLAGS {
                let condition = flag_set(0, u64::from(flag as u32))?;
                let numbers = numbers(&["clone", "unshare"]);
                profile.add(numbers, refusal, vec![condition]);
            }
            let time = flag_set(0, libc::CLONE_NEWTIME as u64)?;
            profile.add(numbers(&["unshare"]), refusal, vec![time]);
        }
        let others = other_than(&PERSONALITIES)?;
        profile.add(numbers(&["personality"]), refusal, others);
        for request in TERMINAL_INPUT {
            let condition = dword(1, SeccompCmpOp::Eq, request.into())?;
            profile.add(numbers(&["ioctl"]), refusal, vec![condition]);
        }
        let others = other_than(&SOCKET_FAMILIES.map(|family| family as u32))?;
        let outcome = Outcome::Errno(libc::EAFNOSUPPORT as u32);
        profile.add(numbers(&["socket", "socketpair"]), outcome, others);
        Ok(profile)
    }

    fn refuse(&mut self, names: &[&str], outcome: Outcome) {
        self.add(numbers(names), outcome, Vec::new());
    }

    fn add(&mut self, numbers: Vec<i64>, outcome: Outcome, conditions: Vec<SeccompCondition>) {
        self.rules.push(Rule {
            numbers,
            outcome,
            conditions,
        });
    }
}

fn numbers(names: &[&str]) -> Vec<i64> {
    let numbers = names.iter().filter_map(|name| syscalls::number(name));
    numbers.collect()
}

/// The conditions that the first argument is none of `values`.
fn other_than(values: &[u32]) -> Result<Vec<SeccompCondition>> {
    let values = values.iter();
    values
        .map(|value| dword(0, SeccompCmpOp::Ne, (*value).into()))
        .collect()
}

/// The condition that the argument `index` has `flag` set.
fn flag_set(index: u8, flag: u64) -> Result<SeccompCondition> {
    dword(index, SeccompCmpOp::MaskedEq(flag), flag)
}

/// A condition on the lower 32 bits of an argument. For these calls the kernel ignores the upper.
fn dword(index: u8, operation: SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operation, value);
    condition.map_err(anyhow::Error::from)
}
