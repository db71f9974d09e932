//! The default profile.

use super::rule::{Outcome, Profile, Rule};
use crate::capabilities::contains;
use crate::syscalls;
use anyhow::Result;
use nix::libc;
use ob_sys::credentials::Capabilities;
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

/// What nobody in a subhost needs and where kernels have had their holes; keys, which are not divided by namespaces.
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

/// What goes with a capability alone. The kernel asks for it too, but in less than each way to get there.
const WITH: &[(&str, &[&str])] = &[
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

/// Kinds of sockets that a subhost may have; each other kind can make the kernel load a module that hardly anybody has looked at.
const FAMILIES: [libc::c_int; 5] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
    libc::AF_PACKET,
];

/// The flags of `clone(2)` and `unshare(2)` that make namespaces.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// What `personality(2)` may be asked for: nothing, to tell, and what programs for other Unixes want.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];

/// Put characters into the input of a terminal, which might be somebody else's.
const TERMINAL_INPUT: [u32; 2] = [0x5412, 0x541c]; // TIOCSTI, TIOCLINUX

impl Profile {
    /// All that is known passes but what is listed above. What is not known yet does not exist, so that programs do without.
    pub(super) fn default_for(kept: Capabilities) -> Result<Self> {
        let administrator = contains(kept, "SYS_ADMIN")?;
        let refusal = Outcome::Errno(libc::EPERM as u32);
        let missing = Outcome::Errno(libc::ENOSYS as u32);
        let mut profile = Profile {
            default: missing,
            rules: Vec::new(),
        };
        let known = syscalls::all();
        // Its flags lie in memory, where a filter cannot look. Without it, the C library takes clone.
        let known = known.filter(|(name, _)| administrator || *name != "clone3");
        profile.add(
            known.map(|(_, number)| number).collect(),
            Outcome::Allow,
            Vec::new(),
        );
        profile.refuse(REFUSED, refusal);
        for (name, calls) in WITH {
            if !contains(kept, name)? {
                profile.refuse(calls, refusal);
            }
        }
        if !administrator {
            for flag in NAMESPACES {
                let condition = masked(0, u64::from(flag.cast_unsigned()))?;
                let numbers = numbers(&["clone", "unshare"]);
                profile.add(numbers, refusal, vec![condition]);
            }
            let time = masked(0, libc::CLONE_NEWTIME as u64)?;
            profile.add(numbers(&["unshare"]), refusal, vec![time]);
        }
        let strange = other_than(&PERSONALITIES)?;
        profile.add(numbers(&["personality"]), refusal, strange);
        for request in TERMINAL_INPUT {
            let condition = dword(1, SeccompCmpOp::Eq, request.into())?;
            profile.add(numbers(&["ioctl"]), refusal, vec![condition]);
        }
        let strange = other_than(&FAMILIES.map(libc::c_int::cast_unsigned))?;
        let outcome = Outcome::Errno(libc::EAFNOSUPPORT as u32);
        profile.add(numbers(&["socket", "socketpair"]), outcome, strange);
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

/// That the first argument is none of `values`.
fn other_than(values: &[u32]) -> Result<Vec<SeccompCondition>> {
    let values = values.iter();
    values
        .map(|value| dword(0, SeccompCmpOp::Ne, (*value).into()))
        .collect()
}

fn masked(index: u8, bit: u64) -> Result<SeccompCondition> {
    dword(index, SeccompCmpOp::MaskedEq(bit), bit)
}

/// A condition on the lower half of an argument: all that the kernel looks at, whatever the upper half holds.
fn dword(index: u8, operation: SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operation, value);
    condition.map_err(anyhow::Error::from)
}
