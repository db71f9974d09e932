//! Protection and limits: what PROTECT and the variables beside it come to for one subhost.
//!
//! All stages that have to do with it compute the same [`Protection`] from the document: ob-conf refuses what cannot be, pid 1
//! and every command that enters are confined by it. Where the variables are absent it is empty, and costs nothing.

mod rlimits;

use crate::capabilities::{bit, set};
use crate::seccomp::Filters;
use crate::userns::{IdRange, UsernsSetting};
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use ob_document::Document;
use ob_document::state::StateDir;
use ob_sys::credentials::{Capabilities, bound_capabilities};
use rlimits::{limit, name};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What confines a subhost.
pub struct Protection {
    /// The capabilities that are left; none if it is all.
    pub capabilities: Option<Capabilities>,
    /// Which system calls there are.
    pub seccomp: Seccomp,
    /// Whether setuid programs and file capabilities have no effect.
    pub no_new_privs: bool,
    /// The limits of each process: resource, soft, hard.
    pub limits: Vec<(Resource, rlim_t, rlim_t)>,
    /// What it calls itself, if not like the host.
    pub hostname: Option<String>,
    /// What is to be in the environment, besides what always is.
    pub environment: Vec<(String, String)>,
    /// Paths inside to be covered.
    pub masks: Vec<PathBuf>,
    /// Paths inside to be made read-only, with the mounts that they are then.
    pub read_only: Vec<PathBuf>,
    /// Whether /dev/console is to be nothing but /dev/null: the real one is the host's.
    pub no_console: bool,
    /// Whether the nodes of devices in the root do not open. Without MKNOD none is made, but one
    /// may have come with an image, or been made at another level.
    pub no_devices: bool,
}

/// Which filter of system calls is to be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seccomp {
    /// None.
    None,
    /// The default profile, as the capabilities that are left have it.
    Default,
    /// The profile in this file.
    Profile(PathBuf),
}

/// How the switch PROTECT stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum Level {
    No,
    Yes,
    /// The same with a user namespace, see [`UsernsSetting::of`].
    Strict,
}

/// Covered from PROTECT=yes on: the memory, the keys and the inner life of the host's kernel.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/dynamic_debug",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/lock_stat",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/proc/vmcore",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only from PROTECT=yes on where root inside is root of the host, who owns these files with or without capabilities.
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/mtrr",
    "/proc/sys",
    "/sys",
];

impl Protection {
    /// Computes it from the plan, for a subhost that is `mapped`: that really has a user namespace.
    ///
    /// Fails with the variable that cannot be, and why. Looks at no file but those that are named.
    pub fn of(document: &Document, mapped: bool) -> Result<Self> {
        let protected = is_protected(document)?;
        let choice = |key| {
            document
                .optional(key)
                .map(yes_or_no)
                .transpose()
                .context(key)
        };
        let mut masks = paths(document, "MASK")?;
        if protected {
            masks.extend(MASKED.iter().map(PathBuf::from));
        }
        // The kernel itself refuses these writes to the root of a user namespace, but for what is the subhost's own.
        let read_only = if protected && !mapped { READ_ONLY } else { &[] };
        let capabilities = capabilities(document, protected && !mapped)?;
        let makes_nodes = capabilities.is_none_or(|kept| kept & bit("MKNOD").unwrap_or(0) != 0);
        Ok(Protection {
            capabilities,
            seccomp: match document.optional("SECCOMP") {
                None if protected => Seccomp::Default,
                None => Seccomp::None,
                Some(value) => seccomp(value),
            },
            no_new_privs: choice("NO_NEW_PRIVS")?.unwrap_or(false),
            limits: document
                .list("RLIMITS")?
                .into_iter()
                .map(limit)
                .collect::<Result<_>>()
                .context("RLIMITS")?,
            hostname: document.optional("HOSTNAME").map(hostname).transpose()?,
            environment: document
                .list("SETENV")?
                .into_iter()
                .map(assignment)
                .collect::<Result<_>>()
                .context("SETENV")?,
            masks,
            read_only: read_only.iter().map(PathBuf::from).collect(),
            no_console: protected,
            // A root that is mapped has the flag from ob-mount, which may be out of reach here: it
            // is locked.
            no_devices: protected && !mapped && !makes_nodes,
        })
    }

    /// Compiles the filters of system calls, and leaves them at `home` for those who enter; none if there are to be none.
    pub fn make_filters(&self, home: &StateDir) -> Result<Option<Filters>> {
        let kept = self.capabilities.unwrap_or(Capabilities::MAX);
        let filters = match &self.seccomp {
            Seccomp::None => return Ok(None),
            Seccomp::Default => Filters::default_for(kept).context("SECCOMP=default")?,
            Seccomp::Profile(path) => profile(path, kept)?,
        };
        let path = home.file("seccomp");
        std::fs::write(&path, filters.to_bytes())
            .with_context(|| format!("write {}", path.display()))?;
        Ok(Some(filters))
    }

    /// The filters that [`Protection::make_filters`] has left at `home`.
    pub fn filters(&self, home: &StateDir) -> Result<Option<Filters>> {
        if self.seccomp == Seccomp::None {
            return Ok(None);
        }
        let path = home.file("seccomp");
        let bytes = read_own(&path).and_then(|bytes| Filters::from_bytes(&bytes));
        bytes
            .map(Some)
            .with_context(|| format!("read {}", path.display()))
    }

    /// Sets the limits of this process. To be done before it enters a user namespace, where it could not raise them.
    pub fn limit(&self) -> Result<()> {
        for (resource, soft, hard) in &self.limits {
            setrlimit(*resource, *soft, *hard)
                .with_context(|| format!("RLIMITS: set the limit {}", name(*resource)))?;
        }
        Ok(())
    }

    /// Confines this process, which does nothing after it but exec a program of the subhost.
    pub fn confine(&self, filters: Option<&Filters>) -> Result<()> {
        if let Some(kept) = self.capabilities {
            bound_capabilities(kept).context("drop capabilities")?;
        }
        if self.no_new_privs {
            set_no_new_privs().context("set no_new_privs")?;
        }
        // Only now: what it refuses may be what was done above. The capability to load it is lost with the exec alone.
        match filters.map_or(Ok(()), Filters::load) {
            Err(Errno::EINVAL) => bail!("SECCOMP: this kernel has no filters of system calls"),
            loaded => loaded.context("load the filter of system calls"),
        }
    }
}

/// Refuses a value of a variable that can be seen to be wrong from the value alone. `value` is as it stands in the configuration, but
/// a path.
pub fn check(name: &str, value: &str) -> Result<()> {
    let words = || value.split_whitespace();
    match name {
        "PROTECT" => parse_level(value).map(drop),
        "USERNS" => {
            let wish = UsernsSetting::parse(value).map(drop);
            wish.with_context(|| format!("USERNS={value}"))
        }
        "CAPS" | "DROP_CAPS" => set(words()).map(drop).context(name.to_owned()),
        "SECCOMP" => match seccomp(value) {
            Seccomp::Profile(path) if path.is_absolute() => profile(&path, 0).map(drop),
            _ => Ok(()),
        },
        "NO_NEW_PRIVS" => yes_or_no(value).map(drop).context(name.to_owned()),
        "READONLY" => read_only(Some(value)).map(drop),
        "MASK" => words()
            .try_for_each(|word| absolute(word).map(drop))
            .context("MASK"),
        "RLIMITS" => words()
            .try_for_each(|word| limit(word).map(drop))
            .context("RLIMITS"),
        "HOSTNAME" => hostname(value).map(drop),
        "SETENV" => assignment(value).map(drop).context("SETENV"),
        _ => crate::cgroup_limits::check(name, value),
    }
}

/// What READONLY asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOnly {
    /// The root can be written to.
    No,
    /// It cannot.
    Yes,
    /// It can, but what is written is forgotten at the end.
    Volatile,
}

impl ReadOnly {
    /// That of the document.
    pub fn of(document: &Document) -> Result<Self> {
        read_only(document.optional("READONLY"))
    }
}

fn read_only(value: Option<&str>) -> Result<ReadOnly> {
    match value {
        None | Some("no") => Ok(ReadOnly::No),
        Some("yes") => Ok(ReadOnly::Yes),
        Some("volatile") => Ok(ReadOnly::Volatile),
        Some(other) => bail!("READONLY={other} is none of no, yes, volatile"),
    }
}

/// Whether PROTECT is another than no.
pub fn is_protected(document: &Document) -> Result<bool> {
    Ok(level(document)? != Level::No)
}

fn level(document: &Document) -> Result<Level> {
    document
        .optional("PROTECT")
        .map_or(Ok(Level::No), parse_level)
}

fn parse_level(value: &str) -> Result<Level> {
    match value {
        "no" => Ok(Level::No),
        "yes" => Ok(Level::Yes),
        "strict" => Ok(Level::Strict),
        other => bail!("PROTECT={other} is none of no, yes, strict"),
    }
}

fn yes_or_no(value: &str) -> Result<bool> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => bail!("'{other}' is neither yes nor no"),
    }
}

/// The user namespace that is to own the subhost's network; none for the host's.
///
/// From PROTECT=yes on, root inside may change its own links and addresses. With `NET_ADMIN` it could change the host's as well,
/// for each of its cables tells it a number for the namespace of the other end. Over what a user namespace of root's owns it may do the
/// same without.
pub fn network_owner(document: &Document) -> Result<Option<IdRange>> {
    if let Some(ids) = IdRange::of(document)? {
        return Ok(Some(ids));
    }
    let dropped = set(document.list("DROP_CAPS")?.into_iter()).context("DROP_CAPS")?;
    let says_nothing = document.list("CAPS")?.is_empty() && dropped & bit("NET_ADMIN")? == 0;
    let protected = is_protected(document)? && UsernsSetting::of(document)? == UsernsSetting::No;
    Ok((protected && says_nothing).then_some(IdRange::IDENTITY))
}

fn capabilities(document: &Document, protected: bool) -> Result<Option<Capabilities>> {
    let caps = document.list("CAPS")?;
    let mut kept = if !caps.is_empty() {
        set(caps.into_iter()).context("CAPS")?
    } else if protected {
        set(["default"].into_iter())?
    } else {
        Capabilities::MAX
    };
    kept &= !set(document.list("DROP_CAPS")?.into_iter()).context("DROP_CAPS")?;
    Ok((kept != Capabilities::MAX).then_some(kept))
}

fn seccomp(value: &str) -> Seccomp {
    match value {
        "none" => Seccomp::None,
        "default" => Seccomp::Default,
        path => Seccomp::Profile(path.into()),
    }
}

/// Reads a file that no other user can have written.
fn read_own(path: &Path) -> Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut file = File::from(open(path, flags, Mode::empty())?);
    let status = file.metadata()?;
    ensure!(
        status.is_file() && status.uid() == geteuid().as_raw() && status.mode() & 0o022 == 0,
        "it is no file that root alone can write"
    );
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn profile(path: &Path, kept: Capabilities) -> Result<Filters> {
    let json = std::fs::read_to_string(path).map_err(anyhow::Error::from);
    json.and_then(|json| Filters::of_profile(&json, kept))
        .with_context(|| format!("SECCOMP={}", path.display()))
}

fn paths(document: &Document, key: &str) -> Result<Vec<PathBuf>> {
    let paths = document.list(key)?.into_iter().map(absolute);
    paths.collect::<Result<_>>().context(key.to_owned())
}

fn absolute(path: &str) -> Result<PathBuf> {
    ensure!(
        path.starts_with('/'),
        "{path} is not an absolute path inside the subhost"
    );
    Ok(path.into())
}

fn hostname(name: &str) -> Result<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    ensure!(
        name.len() <= 64 && name.chars().all(fits) && !name.starts_with(['-', '.']),
        "HOSTNAME={name} is not a host's name"
    );
    Ok(name.to_owned())
}

fn assignment(line: &str) -> Result<(String, String)> {
    let (name, value) = line
        .split_once('=')
        .with_context(|| format!("'{line}' is not of the form VAR=value"))?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    ensure!(
        !name.is_empty()
            && name.chars().all(word)
            && !name.starts_with(|c: char| c.is_ascii_digit()),
        "'{name}' is not a variable's name"
    );
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::CAPABILITIES;

    fn document(keys: &str) -> Document {
        Document::parse(&format!("{{\"NAME\":\"a\"{keys}}}")).unwrap()
    }

    fn protection(keys: &str) -> Protection {
        let document = document(keys);
        let mapped = UsernsSetting::of(&document).unwrap() != UsernsSetting::No;
        Protection::of(&document, mapped).unwrap()
    }

    fn caps(keys: &str) -> Option<Vec<&'static str>> {
        let kept = protection(keys).capabilities?;
        let names = (0..)
            .zip(CAPABILITIES)
            .filter(|(n, _)| kept & (1 << n) != 0);
        Some(names.map(|(_, name)| name).collect())
    }

    #[test]
    fn empty_plan_restricts_nothing() {
        let none = protection("");
        assert!(none.capabilities.is_none() && none.seccomp == Seccomp::None);
        assert!(none.masks.is_empty() && none.read_only.is_empty() && !none.no_console);
        assert!(none.limits.is_empty() && none.environment.is_empty());
    }

    #[test]
    fn single_variables_override_the_level() {
        let yes = protection(r#","PROTECT":"yes""#);
        assert_eq!(yes.seccomp, Seccomp::Default);
        assert!(!yes.no_new_privs && yes.no_console);
        assert!(yes.read_only.contains(&"/proc/sys".into()));
        assert!(yes.masks.contains(&"/proc/kcore".into()));
        let other =
            protection(r#","PROTECT":"yes","SECCOMP":"none","NO_NEW_PRIVS":"yes","CAPS":["all"]"#);
        assert_eq!(other.seccomp, Seccomp::None);
        assert!(other.no_new_privs && other.capabilities.is_none());
    }

    #[test]
    fn drop_caps_removes_from_caps() {
        let default = caps(r#","PROTECT":"yes""#).unwrap();
        assert!(default.contains(&"CHOWN") && !default.contains(&"MKNOD"));
        assert!(!default.contains(&"NET_ADMIN"));
        assert_eq!(
            caps(r#","CAPS":["cap_chown,kill","NET_RAW"],"DROP_CAPS":["KILL"]"#).unwrap(),
            ["CHOWN", "NET_RAW"]
        );
        assert_eq!(caps(r#","CAPS":["none"]"#).unwrap(), [""; 0]);
        let dropped = caps(r#","DROP_CAPS":["sys_time"]"#).unwrap();
        assert!(dropped.len() == 40 && !dropped.contains(&"SYS_TIME"));
        assert_eq!(caps(r#","CAPS":["all"]"#), None);
    }

    #[test]
    fn net_admin_decides_the_owner_of_the_network() {
        let owner = |keys: &str| network_owner(&document(keys)).unwrap();
        assert_eq!(owner(r#","PROTECT":"yes""#), Some(IdRange::IDENTITY));
        let range = IdRange::parse("100000").ok();
        assert_eq!(owner(r#","PROTECT":"strict","userns":"100000""#), range);
        for keys in [
            "",
            r#","PROTECT":"yes","CAPS":["default"]"#,
            r#","PROTECT":"yes","DROP_CAPS":["net_admin"]"#,
        ] {
            assert_eq!(owner(keys), None, "{keys}");
        }
    }

    #[test]
    fn userns_keeps_capabilities_inside() {
        for keys in [
            r#","PROTECT":"strict""#,
            r#","PROTECT":"yes","USERNS":"auto""#,
        ] {
            assert_eq!(caps(keys), None);
            assert!(protection(keys).read_only.is_empty());
            assert_eq!(protection(keys).seccomp, Seccomp::Default);
        }
        // Whatever the plan says, without one it does not keep them.
        let real = Protection::of(&document(r#","PROTECT":"strict""#), false).unwrap();
        assert!(real.capabilities.is_some() && !real.read_only.is_empty());
        let without = r#","PROTECT":"strict","USERNS":"no""#;
        assert!(caps(without).is_some() && !protection(without).read_only.is_empty());
    }

    #[test]
    fn invalid_values_are_refused_with_the_reason() {
        for (name, value, reason) in [
            ("PROTECT", "on", "PROTECT=on is none of no, yes, strict"),
            ("CAPS", "CAP_SYS_ADMN", "did you mean SYS_ADMIN?"),
            ("NO_NEW_PRIVS", "1", "neither yes nor no"),
            ("READONLY", "ro", "none of no, yes, volatile"),
            ("MASK", "/a etc", "etc is not an absolute path"),
            ("RLIMITS", "nofile", "not of the form"),
            ("RLIMITS", "nofiles=4096", "did you mean nofile?"),
            ("RLIMITS", "core=x", "'x' is not a number"),
            ("RLIMITS", "nproc=9:5", "above the hard one"),
            ("RLIMITS", "nofile=9", "the way in alone takes"),
            ("HOSTNAME", "a b", "not a host's name"),
            ("SETENV", "PATH", "not of the form"),
            ("SETENV", "A B=c", "not a variable's name"),
            ("SECCOMP", "/nowhere.json", "SECCOMP=/nowhere.json"),
        ] {
            let error = format!("{:#}", check(name, value).unwrap_err());
            assert!(error.contains(reason), "{name}={value}: {error}");
        }
        for (name, value) in [
            ("RLIMITS", "nofile=4096:64K core=0 memlock=unlimited"),
            ("SETENV", "A=b=c d"),
            ("CAPS", "default sys_time"),
            ("SECCOMP", "default"),
        ] {
            check(name, value).unwrap();
        }
    }
}
