//! Filters of system calls: a profile, as the runtimes of the Open Container Initiative read it or our default one, and what it
//! comes to for the kernel, `seccomp(2)`.
//!
//! A filter of the crate seccompiler knows two outcomes; the kernel runs any number of filters and takes the strictest. So a
//! profile becomes one filter for what it lets pass, and one for each other outcome.

mod default;
mod profile;

use crate::protect::bit;
use anyhow::{Result, anyhow, ensure};
use ob_sys::credentials::{Capabilities, Instruction, load_filter};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
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

fn holds(kept: Capabilities, name: &str) -> Result<bool> {
    Ok(kept & bit(name)? != 0)
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
    fn default_profile_refuses_only_the_listed_calls() {
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
    fn outcomes_of_a_profile_stay_separate() {
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
    fn filters_are_read_back_whole_or_refused() {
        let filters = Filters::default_for(0).unwrap();
        let bytes = filters.to_bytes();
        assert_eq!(Filters::from_bytes(&bytes).unwrap(), filters);
        for length in [bytes.len() - 8, bytes.len() - 1, 8, 3] {
            assert!(Filters::from_bytes(&bytes[..length]).is_err());
        }
    }
}
