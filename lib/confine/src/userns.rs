//! The user namespace of a subhost: a mapping of the ids inside to a range of ids on the host.
//!
//! The fact `userns` of a document is the range. The idmapped mounts of the layers need any user
//! namespace with that mapping. The user namespace of the subhost is held by its network namespace
//! until pid 1 is in it.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Gid, Uid, getpid, getppid, pause, setgroups, setresgid, setresuid};
use ob_document::Document;
use ob_sys::namespace::refusal;
use ob_sys::process::{Child, Namespaces, pidfd_signal, spawn};
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The number of ids of a subhost by default: all ids of 16 bits, including `nobody` (65534).
pub const SIZE: u32 = 65536;

/// A range of user ids and group ids on the host. The first is root inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdRange {
    /// The id on the host of root inside.
    pub first: u32,
    /// The number of ids.
    pub size: u32,
}

/// The user namespace that the configuration asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UsernsSetting {
    /// None: root inside is root on the host.
    No,
    /// A range that no other subhost has.
    Auto,
    /// This range.
    Range(IdRange),
}

impl UsernsSetting {
    /// Returns the value of USERNS. The default is `Auto` with PROTECT=strict, else `No`.
    ///
    /// # Errors
    /// USERNS is invalid.
    pub fn of(document: &Document) -> Result<Self> {
        match document.optional("USERNS") {
            Some(text) => UsernsSetting::parse(text).with_context(|| format!("USERNS={text}")),
            None if document.optional("PROTECT") == Some("strict") => Ok(UsernsSetting::Auto),
            None => Ok(UsernsSetting::No),
        }
    }

    /// Parses `no`, `auto` or `UID[:SIZE]`.
    ///
    /// # Errors
    /// The text is none of these, or [`IdRange::parse`] refuses the range.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "no" => Ok(UsernsSetting::No),
            "auto" => Ok(UsernsSetting::Auto),
            range => IdRange::parse(range).map(UsernsSetting::Range),
        }
    }
}

impl IdRange {
    /// The identity mapping of all ids, for a user namespace without processes that root creates.
    /// Its creator has all capabilities in it (user_namespaces(7)), with or without capabilities of
    /// the process, and gains none outside of it.
    pub const IDENTITY: IdRange = IdRange {
        first: 0,
        size: u32::MAX,
    };

    /// Parses `UID[:SIZE]`.
    ///
    /// # Errors
    /// The text has another form, or the range has one of the first 65536 ids, which belong to the
    /// host, or an id that does not exist.
    pub fn parse(text: &str) -> Result<Self> {
        let (first, size) = text.split_once(':').unwrap_or((text, ""));
        let number = |text: &str| text.parse().ok();
        let size = if size.is_empty() {
            Some(SIZE)
        } else {
            number(size)
        };
        let (Some(first), Some(size)) = (number(first), size) else {
            bail!("is neither auto, nor no, nor UID or UID:SIZE");
        };
        ensure!(first >= SIZE, "the ids below {SIZE} belong to the host");
        // To the kernel 4294967295 (-1) means no id.
        ensure!(
            size > 0 && first.checked_add(size).is_some(),
            "the range is empty, or ends above 4294967294"
        );
        Ok(IdRange { first, size })
    }

    /// Returns the range of the fact `userns`; none if the subhost has no user namespace.
    ///
    /// # Errors
    /// The fact is invalid.
    pub fn of(document: &Document) -> Result<Option<Self>> {
        if !document.has("userns") {
            return Ok(None);
        }
        let text = document.text("userns")?;
        let ids = IdRange::parse(text).with_context(|| format!("userns={text} in the document"));
        ids.map(Some)
    }

    /// Returns the range of the fact `userns`, compared with the plan; none if the plan asks for no
    /// user namespace.
    ///
    /// # Errors
    /// The plan asks for another range, or for a user namespace but the fact is missing.
    pub fn required(document: &Document) -> Result<Option<Self>> {
        let noted = IdRange::of(document)?;
        let plan = match document.optional("USERNS") {
            Some(text) => format!("USERNS={text}"),
            None => "PROTECT=strict".to_owned(),
        };
        match (UsernsSetting::of(document)?, noted) {
            (UsernsSetting::No, None) => Ok(None),
            (UsernsSetting::No, Some(ids)) if document.optional("USERNS").is_some() => {
                bail!("{plan}, but a stage has noted userns={ids}")
            }
            (UsernsSetting::Range(wanted), Some(ids)) if wanted != ids => {
                bail!("{plan}, but a stage has noted userns={ids}")
            }
            (_, Some(ids)) => Ok(Some(ids)),
            (_, None) => {
                bail!("{plan} needs a user namespace, and no stage has noted userns; ob-mount does")
            }
        }
    }

    /// Whether the range has the id `uid`.
    #[must_use]
    pub fn has(self, uid: u32) -> bool {
        uid.checked_sub(self.first)
            .is_some_and(|inside| inside < self.size)
    }

    /// Whether `map`, the text of `/proc/PID/uid_map`, maps exactly this range.
    #[must_use]
    pub fn is_map(self, map: &str) -> bool {
        let expected = format!("0 {} {}", self.first, self.size);
        map.split_whitespace().eq(expected.split(' '))
    }

    /// Sets the fact `userns`.
    pub fn note(self, document: &mut Document) {
        document.set("userns", self.to_string());
    }

    /// Whether the ranges have an id in common.
    #[must_use]
    pub fn overlaps(self, other: IdRange) -> bool {
        self.first < other.first + other.size && other.first < self.first + self.size
    }

    /// Returns the id on the host of the user `inside`.
    #[must_use]
    pub fn user(self, inside: u32) -> Uid {
        Uid::from_raw(self.first + inside)
    }

    /// Returns the id on the host of the group `inside`.
    #[must_use]
    pub fn group(self, inside: u32) -> Gid {
        Gid::from_raw(self.first + inside)
    }

    /// Creates a user namespace with this mapping and the namespaces `more`, which it owns. They
    /// exist as long as the holder, or a descriptor from [`Holder::open`].
    ///
    /// # Errors
    /// The kernel has no user namespaces, or their number is limited.
    pub fn hold(self, more: Namespaces) -> Result<Holder> {
        let parent = getpid();
        let child = spawn(libc::CLONE_NEWUSER | more, None, || {
            let _ = set_pdeathsig(Signal::SIGKILL);
            while getppid() == parent {
                pause();
            }
            0
        });
        let child = child
            .map_err(|error| match error {
                Errno::EINVAL if self == IdRange::IDENTITY => {
                    anyhow::anyhow!("this kernel does not support it; set DROP_CAPS=NET_ADMIN")
                }
                Errno::EINVAL => anyhow::anyhow!("this kernel does not support it; set USERNS=no"),
                Errno::EPERM => anyhow::anyhow!(
                    "{}, as in a chroot, user_namespaces(7); boot outside of it",
                    Errno::EPERM.desc()
                ),
                error => anyhow::anyhow!(refusal(error, libc::CLONE_NEWUSER | more)),
            })
            .context("create a user namespace")?;
        let holder = Holder(child);
        for map in ["uid_map", "gid_map"] {
            let lines = match self {
                IdRange::IDENTITY => identity_map(map)?,
                _ => format!("0 {} {}", self.first, self.size),
            };
            std::fs::write(holder.path(map), lines)
                .with_context(|| format!("write the {map} {self}"))?;
        }
        Ok(holder)
    }

    /// Moves this process, which must have one thread, into the user namespace, as its root.
    ///
    /// # Errors
    /// The kernel refuses it, or the namespace has another mapping.
    pub fn join(self, namespace: impl AsFd) -> Result<()> {
        setns(namespace, CloneFlags::CLONE_NEWUSER)
            .context("join the user namespace of the subhost")?;
        for map in ["uid_map", "gid_map"] {
            // A process in the namespace reads the ids of the parent namespace there
            // (user_namespaces(7)), which is the host.
            let numbers = std::fs::read_to_string(format!("/proc/self/{map}"));
            let numbers = numbers.with_context(|| format!("read its {map}"))?;
            ensure!(
                self.is_map(&numbers),
                "the network namespace net belongs to a user namespace with another {map}, {}; remove it with ob-cable --undo",
                numbers.split_whitespace().collect::<Vec<_>>().join(" ")
            );
        }
        become_root().context("become root of the user namespace")
    }
}

/// Returns the lines of an identity mapping of the ids of this user namespace, which may lack some.
fn identity_map(map: &str) -> Result<String> {
    let here = std::fs::read_to_string(format!("/proc/self/{map}"))
        .with_context(|| format!("read /proc/self/{map}"))?;
    let line = |line: &str| {
        let mut numbers = line.split_whitespace();
        let (first, size) = (numbers.next()?, numbers.nth(1)?);
        Some(format!("{first} {first} {size}\n"))
    };
    Ok(here.lines().filter_map(line).collect())
}

impl fmt::Display for IdRange {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}:{}", self.first, self.size)
    }
}

/// Becomes root of the user namespace that this process has joined, without supplementary groups.
///
/// The kernel clears the parent death signal, PR_SET_PDEATHSIG(2const).
///
/// # Errors
/// The errno of setgroups(2), setresgid(2) or setresuid(2).
pub fn become_root() -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

/// Whether `descriptor` is the user namespace of this process.
pub fn is_own(descriptor: impl AsFd) -> Result<bool> {
    let own = std::fs::metadata("/proc/self/ns/user").context("look at /proc/self/ns/user")?;
    let other = File::from(descriptor.as_fd().try_clone_to_owned()?).metadata()?;
    Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
}

/// Whether only root can reach files in `directory`, or setuid has no effect there (`nosuid`).
pub fn is_closed(directory: &Path) -> Result<bool> {
    if statvfs(directory)?.flags().contains(FsFlags::ST_NOSUID) {
        return Ok(true);
    }
    for parent in directory.canonicalize()?.ancestors().skip(1) {
        let status = parent.metadata()?;
        if status.uid() == 0 && status.mode() & 0o011 == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A process that waits in new namespaces. Dropping the holder kills it.
pub struct Holder(Child);

impl Holder {
    /// Opens the namespace of the kind `name`: `user`, `net`…
    ///
    /// # Errors
    /// The file in /proc cannot be opened.
    pub fn open(&self, name: &str) -> Result<File> {
        let path = self.path(&format!("ns/{name}"));
        File::open(&path).with_context(|| format!("open {path}"))
    }

    /// Returns the path of a file of the process in /proc.
    #[must_use]
    pub fn path(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.0.pid)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = pidfd_signal(&self.0.pidfd, Signal::SIGKILL);
        let _ = waitid(Id::PIDFd(self.0.pidfd.as_fd()), WaitPidFlag::WEXITED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_ranges_are_accepted() {
        let range = |first, size| Some(UsernsSetting::Range(IdRange { first, size }));
        for (text, expected) in [
            ("no", Some(UsernsSetting::No)),
            ("auto", Some(UsernsSetting::Auto)),
            ("100000", range(100_000, SIZE)),
            ("65536:1", range(65536, 1)),
            ("4294967294:1", range(4_294_967_294, 1)),
            ("4294967295:1", None),
            ("4294967290:6", None),
            ("65535:1", None),
            ("0", None),
            ("100000:0", None),
            ("100000:", range(100_000, SIZE)),
            ("-1", None),
            ("yes", None),
            ("1e5", None),
        ] {
            assert_eq!(UsernsSetting::parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn noted_range_must_be_that_of_the_plan() {
        let required = |keys: &str| {
            let line = format!("{{\"NAME\":\"a\"{keys}}}");
            IdRange::required(&Document::parse(&line).unwrap()).ok()
        };
        let ids = IdRange::parse("100000:70000").ok();
        let noted = r#","userns":"100000:70000""#;
        assert_eq!(required(""), Some(None));
        for plan in [
            "",
            r#","PROTECT":"strict""#,
            r#","USERNS":"auto""#,
            r#","USERNS":"100000:70000""#,
        ] {
            assert_eq!(required(&format!("{plan}{noted}")), Some(ids), "{plan}");
            assert!(plan.is_empty() || required(plan).is_none(), "{plan}");
        }
        for plan in [r#","USERNS":"no""#, r#","USERNS":"100000:70001""#] {
            assert_eq!(required(&format!("{plan}{noted}")), None, "{plan}");
        }
    }

    #[test]
    fn map_is_that_of_the_ids_alone() {
        let ids = IdRange::parse("100000:70000").unwrap();
        assert!(ids.is_map("         0     100000      70000\n"));
        for map in [
            "",
            "0 100000",
            "0 100000 70001",
            "1 100000 70000",
            "0 100000 70000\n1 0 1",
        ] {
            assert!(!ids.is_map(map), "{map}");
        }
        assert!(ids.has(100_000) && ids.has(169_999) && !ids.has(99_999) && !ids.has(170_000));
    }

    #[test]
    fn adjacent_ranges_do_not_overlap() {
        let ids = |first, size| IdRange { first, size };
        assert!(!ids(100, 10).overlaps(ids(110, 10)));
        assert!(!ids(110, 10).overlaps(ids(100, 10)));
        assert!(ids(100, 11).overlaps(ids(110, 10)));
        assert!(ids(100, 100).overlaps(ids(110, 1)));
    }
}
