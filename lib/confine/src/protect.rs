//! The protection of a subhost: what PROTECT and the variables for its parts mean.
//!
//! Every stage derives the same [`Protection`] from the document: `ob-unshare` confines pid 1 by
//! it, `ob-enter` every command that enters. `ob-conf` refuses invalid values with [`check()`].
//! Without the variables a [`Protection`] is empty, and costs nothing.

mod check;
mod filter;
mod rlimits;
mod values;

pub use check::check;
pub use filter::Seccomp;
pub use values::{ReadOnly, is_protected};

use crate::capabilities::{bit, set};
use crate::seccomp::Filters;
use crate::userns::{IdRange, UsernsSetting};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use ob_document::Document;
use ob_document::state::StateDir;
use ob_sys::credentials::{Capabilities, bound_capabilities};
use rlimits::{limit, name};
use std::path::PathBuf;
use values::{assignment, hostname, paths, yes_or_no};

/// What confines the processes of a subhost.
pub struct Protection {
    /// The capabilities that are kept; none if all are.
    pub capabilities: Option<Capabilities>,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Whether setuid programs and file capabilities have no effect.
    pub no_new_privs: bool,
    /// The resource limits: resource, soft limit, hard limit.
    pub rlimits: Vec<(Resource, rlim_t, rlim_t)>,
    /// The host name inside, if it differs from the name of the host.
    pub hostname: Option<String>,
    /// Additional variables of the environment.
    pub environment: Vec<(String, String)>,
    /// Paths inside to cover.
    pub masks: Vec<PathBuf>,
    /// Paths inside to make read-only, with the mounts below them.
    pub read_only: Vec<PathBuf>,
    /// Whether /dev/console is /dev/null: the real console belongs to the host.
    pub no_console: bool,
    /// Whether open(2) refuses device nodes in the root (`MS_NODEV`). Without MKNOD, root inside
    /// creates none, but an image or a boot at another level can have left one.
    pub no_devices: bool,
}

/// Covered with PROTECT=yes and strict: the memory, the keys and the internals of the kernel.
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

/// Read-only with PROTECT=yes if uid 0 inside is uid 0 of the host: that uid owns these files, and
/// can write to them without any capability.
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/mtrr",
    "/proc/sys",
    "/sys",
];

impl Protection {
    /// Derives the protection from the plan. `mapped` states that the subhost has a user namespace;
    /// the plan alone does not decide it.
    ///
    /// # Errors
    /// A variable is invalid; the error names it.
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
        // The kernel refuses these writes to root of a user namespace, except to files of the
        // namespaces that the user namespace owns.
        let read_only = if protected && !mapped { READ_ONLY } else { &[] };
        let capabilities = capabilities(document, protected && !mapped)?;
        let makes_nodes = capabilities.is_none_or(|kept| kept & bit("MKNOD").unwrap_or(0) != 0);
        Ok(Protection {
            capabilities,
            seccomp: match document.optional("SECCOMP") {
                None if protected => Seccomp::Default,
                None => Seccomp::None,
                Some(value) => Seccomp::parse(value),
            },
            no_new_privs: choice("NO_NEW_PRIVS")?.unwrap_or(false),
            rlimits: document
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
            // With a user namespace, ob-mount has set the flag: mounts from a parent user namespace
            // are locked, mount_namespaces(7).
            no_devices: protected && !mapped && !makes_nodes,
        })
    }

    /// Compiles the system call filters and writes them into the state directory, for processes
    /// that enter later. Returns none if there is no filter.
    ///
    /// # Errors
    /// The profile is invalid, or the file cannot be written.
    pub fn make_filters(&self, directory: &StateDir) -> Result<Option<Filters>> {
        let kept = self.capabilities.unwrap_or(Capabilities::MAX);
        let Some(filters) = self.seccomp.compile(kept)? else {
            return Ok(None);
        };
        let path = directory.file("seccomp");
        std::fs::write(&path, filters.to_bytes())
            .with_context(|| format!("write {}", path.display()))?;
        Ok(Some(filters))
    }

    /// Reads the filters that [`Protection::make_filters`] wrote; none if there is no filter.
    ///
    /// # Errors
    /// The file is missing or truncated, or another user can write to it.
    pub fn filters(&self, directory: &StateDir) -> Result<Option<Filters>> {
        if self.seccomp == Seccomp::None {
            return Ok(None);
        }
        filter::read(&directory.file("seccomp")).map(Some)
    }

    /// Sets the resource limits of this process. Call it before the process enters a user
    /// namespace: a raise needs `CAP_SYS_RESOURCE` in the initial one, setrlimit(2).
    ///
    /// # Errors
    /// The kernel refuses a limit.
    pub fn set_rlimits(&self) -> Result<()> {
        for (resource, soft, hard) in &self.rlimits {
            setrlimit(*resource, *soft, *hard)
                .with_context(|| format!("RLIMITS: set the limit {}", name(*resource)))?;
        }
        Ok(())
    }

    /// Confines this process. The only step after it is the exec of a program of the subhost.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub fn apply(&self, filters: Option<&Filters>) -> Result<()> {
        if let Some(kept) = self.capabilities {
            bound_capabilities(kept).context("drop capabilities")?;
        }
        if self.no_new_privs {
            set_no_new_privs().context("set no_new_privs")?;
        }
        // Last, since a filter can refuse the system calls above. Without no_new_privs it needs
        // `CAP_SYS_ADMIN`, which the process keeps until the exec: above only the bounding set
        // changed.
        match filters.map_or(Ok(()), Filters::load) {
            Err(Errno::EINVAL) => bail!("SECCOMP: this kernel has no system call filters"),
            loaded => loaded.context("load the system call filter"),
        }
    }
}

/// Returns the ids of the user namespace that owns the network namespace; none for that of the
/// host.
///
/// With PROTECT=yes, root inside may configure the links of the subhost. With `CAP_NET_ADMIN` in
/// the user namespace of the host it could also configure links of the host: each cable shows the
/// number (nsid) of the namespace at its other end, and rtnetlink takes requests for it. In a user
/// namespace that uid 0 of the host created, uid 0 has all capabilities over the network without
/// any on the host (user_namespaces(7)).
///
/// # Errors
/// A variable or the fact `userns` is invalid.
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
        assert!(none.rlimits.is_empty() && none.environment.is_empty());
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
        // Without a user namespace, PROTECT=strict drops them too.
        let real = Protection::of(&document(r#","PROTECT":"strict""#), false).unwrap();
        assert!(real.capabilities.is_some() && !real.read_only.is_empty());
        let without = r#","PROTECT":"strict","USERNS":"no""#;
        assert!(caps(without).is_some() && !protection(without).read_only.is_empty());
    }
}
