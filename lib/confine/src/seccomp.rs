//! System call filters, `seccomp(2)`: the default profile, or a profile in the JSON format of the
//! OCI runtime specification, compiled for the kernel.

mod default;
mod profile;
mod rule;

use anyhow::{Context, Result, ensure};
use ob_sys::credentials::{Capabilities, Instruction, load_filter};
use rule::Profile;

/// Compiled filters, in the order in which they must be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filters(Vec<Vec<Instruction>>);

impl Filters {
    /// Compiles the profile `json` for a process with the capabilities `kept`.
    ///
    /// Evaluates `includes` and `excludes` for this architecture and these capabilities. Ignores
    /// system calls that this architecture does not have, since a profile is written for several.
    ///
    /// # Errors
    /// The profile is invalid, or needs a tracer or a listener, which this crate does not support.
    pub fn of_profile(json: &str, kept: Capabilities) -> Result<Self> {
        Ok(Filters(Profile::parse(json, kept)?.compile()?))
    }

    /// Compiles the default profile for a process with the capabilities `kept`.
    ///
    /// # Errors
    /// The architecture has no filters.
    pub fn default_for(kept: Capabilities) -> Result<Self> {
        Ok(Filters(Profile::default_for(kept)?.compile()?))
    }

    /// Loads the filters into this process; its future descendants inherit them.
    ///
    /// # Errors
    /// The errors of [`load_filter`].
    pub fn load(&self) -> nix::Result<()> {
        self.0.iter().try_for_each(|filter| load_filter(filter))
    }

    /// Serializes the filters, each after its length, in the byte order of this machine, and a zero after the last.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for filter in &self.0 {
            bytes.extend((filter.len() as u64).to_ne_bytes());
            for instruction in filter {
                bytes.extend(instruction.code.to_ne_bytes());
                bytes.extend([instruction.jt, instruction.jf]);
                bytes.extend(instruction.k.to_ne_bytes());
            }
        }
        bytes.extend([0; 8]);
        bytes
    }

    /// Deserializes filters from [`Filters::to_bytes`].
    ///
    /// # Errors
    /// The bytes are truncated, or there is no filter: they are read only where there must be one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let words = bytes.chunks_exact(8);
        let rest = words.remainder();
        let mut words = words.filter_map(|word| <&[u8; 8]>::try_from(word).ok());
        let mut filters = Vec::new();
        loop {
            let length = words.next().context("the file is truncated")?;
            let length = usize::try_from(u64::from_ne_bytes(*length))?;
            if length == 0 {
                break;
            }
            let filter: Vec<Instruction> = words.by_ref().take(length).map(instruction).collect();
            ensure!(filter.len() == length, "the file is truncated");
            filters.push(filter);
        }
        ensure!(!filters.is_empty(), "it has no filter");
        ensure!(
            rest.is_empty() && words.next().is_none(),
            "something follows its filters"
        );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::bit;
    use nix::errno::Errno;
    use nix::mount::{MntFlags, umount2};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::prctl::set_no_new_privs;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    use ob_sys::process::{join_new_session_keyring, pidfd_open, spawn};
    use std::os::fd::AsFd;

    /// Runs `checks` in a child with the filters. Fails with the number of the first failed check.
    ///
    /// The child must not allocate: another thread of the test may have held the lock of the
    /// allocator when it was forked.
    fn run_with(filters: &Filters, checks: &[fn() -> bool]) {
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

    fn datagram_socket(family: AddressFamily) -> nix::Result<()> {
        socket(family, SockType::Datagram, SockFlag::empty(), None).map(drop)
    }

    #[test]
    fn default_profile_refuses_only_the_listed_calls() {
        let few = bit("CHOWN").unwrap() | bit("SYS_CHROOT").unwrap();
        run_with(
            &Filters::default_for(few).unwrap(),
            &[
                || datagram_socket(AddressFamily::Vsock) == Err(Errno::EAFNOSUPPORT),
                || datagram_socket(AddressFamily::Alg) == Err(Errno::EAFNOSUPPORT),
                || datagram_socket(AddressFamily::Unix).is_ok(),
                || join_new_session_keyring() == Err(Errno::EPERM),
                || unshare(CloneFlags::CLONE_NEWUSER) == Err(Errno::EPERM),
                || unshare(CloneFlags::CLONE_NEWNET) == Err(Errno::EPERM),
                || unshare(CloneFlags::CLONE_FS).is_ok(),
                || umount2("/nowhere", MntFlags::empty()) == Err(Errno::EPERM),
                || pidfd_open(nix::unistd::getpid()).is_ok(),
                // A C library uses clone if clone3 fails with ENOSYS.
                || matches!(spawn(0, None, || 0), Err(Errno::ENOSYS)),
            ],
        );
        run_with(
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
        run_with(
            &filters,
            &[
                || datagram_socket(AddressFamily::Unix).is_ok(),
                || datagram_socket(AddressFamily::Inet) == Err(Errno::ENOSYS),
                || umount2("/", MntFlags::empty()) == Err(Errno::ENOSPC),
                || unshare(CloneFlags::CLONE_FS) == Err(Errno::ENOSYS),
            ],
        );
        let administrator = Filters::of_profile(profile, bit("SYS_ADMIN").unwrap()).unwrap();
        run_with(&administrator, &[|| unshare(CloneFlags::CLONE_FS).is_ok()]);
    }

    #[test]
    fn profile_that_refuses_nothing_is_a_filter() {
        let filters = Filters::of_profile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, 0).unwrap();
        assert_eq!(Filters::from_bytes(&filters.to_bytes()).unwrap(), filters);
        run_with(&filters, &[|| datagram_socket(AddressFamily::Unix).is_ok()]);
    }

    #[test]
    fn filters_are_read_back_whole_or_refused() {
        let filters = Filters::default_for(0).unwrap();
        let bytes = filters.to_bytes();
        assert_eq!(Filters::from_bytes(&bytes).unwrap(), filters);
        for length in 0..bytes.len() {
            assert!(Filters::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Filters::from_bytes(&[0; 8]).is_err());
        assert!(Filters::from_bytes(&[bytes.as_slice(), &[0; 8]].concat()).is_err());
    }
}
