//! Filters of system calls: a profile, as the runtimes of the Open Container Initiative read it or our default one, and what it
//! comes to for the kernel, `seccomp(2)`.
//!
//! A filter of the crate seccompiler knows two outcomes; the kernel runs any number of filters and takes the strictest. So a
//! profile becomes one filter for what it lets pass, and one for each other outcome.

use crate::protect::bit;
use crate::syscalls;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::libc;
use ob_sys::credentials::{Capabilities, Instruction, load_filter};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Filters as the kernel takes them, in the order in which they are loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filters(Vec<Vec<Instruction>>);

/// What is to happen to a system call, the mildest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    Allow,
    Log,
    Errno(u32),
    Trap,
    KillThread,
    KillProcess,
}

/// One rule: the outcome for these system calls, where all the conditions hold.
struct Rule {
    numbers: Vec<i64>,
    outcome: Outcome,
    conditions: Vec<SeccompCondition>,
}

struct Profile {
    default: Outcome,
    rules: Vec<Rule>,
}

impl Filters {
    /// Compiles the profile in `json`. Rules with `includes` or `excludes` count where they fit the machine and the capabilities
    /// that are `kept`; names that this machine has no system call for are passed over, as profiles serve many machines.
    ///
    /// Fails if it is no profile, or asks for what cannot be given: a tracer, a listener.
    pub fn of_profile(json: &str, kept: Capabilities) -> Result<Self> {
        Profile::parse(json, kept)?.compile()
    }

    /// Compiles the default profile for a process with the capabilities that are `kept`.
    pub fn default_for(kept: Capabilities) -> Result<Self> {
        Profile::default_for(kept)?.compile()
    }

    /// Loads them; from then on they count for this process and all that come from it.
    pub fn load(&self) -> nix::Result<()> {
        self.0.iter().try_for_each(|filter| load_filter(filter))
    }

    /// As a file: each filter begins with its length.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for filter in &self.0 {
            bytes.extend((filter.len() as u64).to_ne_bytes());
            for one in filter {
                bytes.extend(one.code.to_ne_bytes());
                bytes.extend([one.jt, one.jf]);
                bytes.extend(one.k.to_ne_bytes());
            }
        }
        bytes
    }

    /// The same from a file. Fails if it was cut short.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        ensure!(rest.is_empty(), "it was cut short");
        let mut words = words.iter();
        let mut filters = Vec::new();
        while let Some(length) = words.next() {
            let length = usize::try_from(u64::from_ne_bytes(*length))?;
            let filter: Vec<Instruction> = words.by_ref().take(length).map(instruction).collect();
            ensure!(filter.len() == length, "it was cut short");
            filters.push(filter);
        }
        Ok(Filters(filters))
    }
}

fn instruction(word: &[u8; 8]) -> Instruction {
    let [a, b, jt, jf, k @ ..] = *word;
    Instruction {
        code: u16::from_ne_bytes([a, b]),
        jt,
        jf,
        k: u32::from_ne_bytes(k),
    }
}

impl Profile {
    fn compile(&self) -> Result<Filters> {
        let mut filters = Vec::new();
        let mut others: Vec<Outcome> = self.rules.iter().map(|rule| rule.outcome).collect();
        others.sort_unstable();
        others.dedup();
        for outcome in others {
            if outcome == Outcome::Allow || outcome == self.default {
                continue;
            }
            let rules = self.rules.iter().filter(|rule| rule.outcome == outcome);
            filters.push(filter(rules, outcome, Outcome::Allow)?);
        }
        // The last, for it may refuse to load more. Of two errors the kernel takes that of the last as well, so what has an
        // outcome of its own passes here.
        if self.default != Outcome::Allow {
            let passed = |rule: &&Rule| rule.outcome != self.default;
            let passed = self.rules.iter().filter(passed);
            filters.push(filter(passed, Outcome::Allow, self.default)?);
        }
        Ok(Filters(filters))
    }
}

/// One filter: `matched` for what fits a rule, else `other`.
fn filter<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    matched: Outcome,
    other: Outcome,
) -> Result<Vec<Instruction>> {
    let mut table: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for rule in rules {
        for number in &rule.numbers {
            let entry = table.entry(*number).or_insert_with(|| Some(Vec::new()));
            if rule.conditions.is_empty() {
                *entry = None; // whatever the conditions of other rules
            } else if let Some(chain) = entry {
                chain.push(SeccompRule::new(rule.conditions.clone())?);
            }
        }
    }
    // No rule at all means to seccompiler what none among several means to us.
    let table = table
        .into_iter()
        .map(|(n, chain)| (n, chain.unwrap_or_default()));
    let machine = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| anyhow!("there are no filters for this machine"))?;
    let filter = SeccompFilter::new(table.collect(), other.into(), matched.into(), machine)?;
    let program: BpfProgram = filter.try_into()?;
    ensure!(program.len() <= 4096, "it is longer than the kernel takes");
    let program = program.iter().map(|one| Instruction {
        code: one.code,
        jt: one.jt,
        jf: one.jf,
        k: one.k,
    });
    Ok(program.collect())
}

impl From<Outcome> for SeccompAction {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Allow => SeccompAction::Allow,
            Outcome::Log => SeccompAction::Log,
            Outcome::Errno(number) => SeccompAction::Errno(number),
            Outcome::Trap => SeccompAction::Trap,
            Outcome::KillThread => SeccompAction::KillThread,
            Outcome::KillProcess => SeccompAction::KillProcess,
        }
    }
}

// The profiles of the Open Container Initiative.

impl Profile {
    fn parse(json: &str, kept: Capabilities) -> Result<Self> {
        let profile: Value = serde_json::from_str(json).context("it is no JSON")?;
        let default = outcome(&profile, "defaultAction", "defaultErrnoRet")?;
        let rules = profile.get("syscalls").and_then(Value::as_array);
        let mut parsed = Vec::new();
        for rule in rules.into_iter().flatten() {
            let outcome = outcome(rule, "action", "errnoRet")?;
            let mut names = texts(rule, "names");
            names.extend(rule.get("name").and_then(Value::as_str));
            ensure!(!names.is_empty(), "a rule has no names");
            if !applies(rule, kept)? {
                continue;
            }
            let numbers: Vec<i64> = names.into_iter().filter_map(syscalls::number).collect();
            for conditions in alternatives(rule)? {
                parsed.push(Rule {
                    numbers: numbers.clone(),
                    outcome,
                    conditions,
                });
            }
        }
        Ok(Profile {
            default,
            rules: parsed,
        })
    }
}

fn outcome(rule: &Value, key: &str, errno: &str) -> Result<Outcome> {
    let action = rule.get(key).and_then(Value::as_str);
    let action = action.with_context(|| format!("it has no {key}"))?;
    let number = rule.get(errno).and_then(Value::as_u64);
    let number = u32::try_from(number.unwrap_or(libc::EPERM as u64))?;
    Ok(match action {
        "SCMP_ACT_ALLOW" => Outcome::Allow,
        "SCMP_ACT_LOG" => Outcome::Log,
        "SCMP_ACT_ERRNO" => Outcome::Errno(number),
        "SCMP_ACT_TRAP" => Outcome::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Outcome::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Outcome::KillProcess,
        other => bail!("{other} is not possible here"),
    })
}

/// Whether the conditions that Docker's profiles have beyond the standard let the rule count. Kernels are always new enough.
fn applies(rule: &Value, kept: Capabilities) -> Result<bool> {
    let none = Value::Null;
    let (includes, excludes) = (
        rule.get("includes").unwrap_or(&none),
        rule.get("excludes").unwrap_or(&none),
    );
    let held = |name: &&str| holds(kept, name);
    for name in texts(includes, "caps") {
        if !held(&name)? {
            return Ok(false);
        }
    }
    for name in texts(excludes, "caps") {
        if held(&name)? {
            return Ok(false);
        }
    }
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let machines = texts(includes, "arches");
    Ok((machines.is_empty() || machines.contains(&here))
        && !texts(excludes, "arches").contains(&here))
}

/// The conditions of a rule: all must hold, but where two are of one argument each is a rule of its own.
fn alternatives(rule: &Value) -> Result<Vec<Vec<SeccompCondition>>> {
    let arguments = rule.get("args").and_then(Value::as_array);
    let mut indices = Vec::new();
    let mut conditions = Vec::new();
    for argument in arguments.into_iter().flatten() {
        let number = |key| argument.get(key).and_then(Value::as_u64);
        let index = number("index").context("a condition has no index")?;
        let value = number("value").context("a condition has no value")?;
        let operation = argument.get("op").and_then(Value::as_str);
        let (operation, value) = match operation.unwrap_or_default() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, value),
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, value),
            "SCMP_CMP_MASKED_EQ" => (
                SeccompCmpOp::MaskedEq(value),
                number("valueTwo").unwrap_or_default(),
            ),
            other => bail!("a condition has the operation '{other}'"),
        };
        indices.push(index);
        conditions.push(SeccompCondition::new(
            u8::try_from(index)?,
            SeccompCmpArgLen::Qword,
            operation,
            value,
        )?);
    }
    let count = indices.len();
    indices.sort_unstable();
    indices.dedup();
    Ok(if indices.len() == count {
        vec![conditions]
    } else {
        conditions.into_iter().map(|one| vec![one]).collect()
    })
}

fn texts<'a>(object: &'a Value, key: &str) -> Vec<&'a str> {
    let list = object.get(key).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.collect()
}

// Our default.

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
    fn default_for(kept: Capabilities) -> Result<Self> {
        let administrator = holds(kept, "SYS_ADMIN")?;
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
            if !holds(kept, name)? {
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

fn holds(kept: Capabilities, name: &str) -> Result<bool> {
    Ok(kept & bit(name)? != 0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::mount::{MntFlags, umount2};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::prctl::set_no_new_privs;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    use ob_sys::process::{join_new_session_keyring, pidfd_open, spawn};
    use std::os::fd::AsFd;

    /// Runs `checks` in a child under the filters, and fails with the number of the first that does not hold. The child may not
    /// allocate: another thread of the test may have held the allocator's lock when it was born.
    fn under(filters: &Filters, checks: &[fn() -> bool]) {
        let child = spawn(0, None, || {
            if set_no_new_privs().is_err() || filters.load().is_err() {
                return 100;
            }
            let failed = checks.iter().position(|check| !check());
            failed.map_or(0, |number| u8::try_from(number + 1).unwrap_or(99))
        });
        let ended = waitid(
            Id::PIDFd(child.unwrap().pidfd.as_fd()),
            WaitPidFlag::WEXITED,
        );
        assert!(matches!(ended, Ok(WaitStatus::Exited(_, 0))), "{ended:?}");
    }

    fn socket_of(family: AddressFamily) -> nix::Result<()> {
        socket(family, SockType::Datagram, SockFlag::empty(), None).map(drop)
    }

    #[test]
    fn the_default_refuses_what_it_says_and_nothing_else() {
        let few = bit("CHOWN").unwrap() | bit("SYS_CHROOT").unwrap();
        under(
            &Filters::default_for(few).unwrap(),
            &[
                || socket_of(AddressFamily::Vsock) == Err(Errno::EAFNOSUPPORT),
                || socket_of(AddressFamily::Alg) == Err(Errno::EAFNOSUPPORT),
                || socket_of(AddressFamily::Unix).is_ok(),
                || join_new_session_keyring() == Err(Errno::EPERM),
                || unshare(CloneFlags::CLONE_NEWUSER) == Err(Errno::EPERM),
                || unshare(CloneFlags::CLONE_NEWNET) == Err(Errno::EPERM),
                || unshare(CloneFlags::CLONE_FS).is_ok(),
                || umount2("/nowhere", MntFlags::empty()) == Err(Errno::EPERM),
                || pidfd_open(nix::unistd::getpid()).is_ok(),
                // clone3 does not exist, and clone is for programs that can do with it.
                || matches!(spawn(0, None, || 0), Err(Errno::ENOSYS)),
            ],
        );
        under(
            &Filters::default_for(Capabilities::MAX).unwrap(),
            &[
                || umount2("/nowhere", MntFlags::empty()) != Err(Errno::EPERM),
                || join_new_session_keyring() == Err(Errno::EPERM),
                || spawn(0, None, || 0).is_ok(),
            ],
        );
    }

    #[test]
    fn each_outcome_of_a_profile_is_kept_apart() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":[
            {"names":["exit_group","write","rt_sigprocmask","clone3","gettid","getpid"],"action":"SCMP_ACT_ALLOW"},
            {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
            {"names":["umount2"],"action":"SCMP_ACT_ERRNO","errnoRet":28},
            {"names":["unshare"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
        let filters = Filters::of_profile(profile, 0).unwrap();
        under(
            &filters,
            &[
                || socket_of(AddressFamily::Unix).is_ok(),
                || socket_of(AddressFamily::Inet) == Err(Errno::ENOSYS),
                || umount2("/", MntFlags::empty()) == Err(Errno::ENOSPC),
                || unshare(CloneFlags::CLONE_FS) == Err(Errno::ENOSYS),
            ],
        );
        let administrator = Filters::of_profile(profile, bit("SYS_ADMIN").unwrap()).unwrap();
        under(&administrator, &[|| unshare(CloneFlags::CLONE_FS).is_ok()]);
    }

    #[test]
    fn filters_come_back_from_a_file_whole_or_not_at_all() {
        let filters = Filters::default_for(0).unwrap();
        let bytes = filters.to_bytes();
        assert_eq!(Filters::from_bytes(&bytes).unwrap(), filters);
        for length in [bytes.len() - 8, bytes.len() - 1, 8, 3] {
            assert!(Filters::from_bytes(&bytes[..length]).is_err());
        }
    }
}
