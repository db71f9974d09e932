//! Names of capabilities, `capabilities(7)`.

use anyhow::{Result, bail};
use ob_document::closest;
use ob_sys::credentials::Capabilities;

/// The names of the capabilities without `CAP_`; the index is the number.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities that most services need: the default set of Docker without MKNOD.
///
/// No device cgroup restricts a subhost, so a device node that root inside makes would work.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// Returns the union of the named capabilities.
///
/// A word is `all`, `default`, `none` or a list of names separated by commas, with or without
/// `CAP_`, in any case.
///
/// # Errors
/// There is no such capability.
pub fn set<'a>(words: impl Iterator<Item = &'a str>) -> Result<Capabilities> {
    let words = words
        .flat_map(|word| word.split(','))
        .filter(|word| !word.is_empty());
    let mut set = 0;
    for word in words {
        set |= match word {
            "all" => Capabilities::MAX,
            "none" => 0,
            "default" => DEFAULT
                .iter()
                .try_fold(0, |set, name| anyhow::Ok(set | bit(name)?))?,
            name => bit(name)?,
        };
    }
    Ok(set)
}

/// Returns the set that contains only the capability `name`.
///
/// # Errors
/// There is no such capability. The message proposes the most similar name.
pub fn bit(name: &str) -> Result<Capabilities> {
    let capital = name.to_uppercase();
    let short = capital.strip_prefix("CAP_").unwrap_or(&capital);
    match CAPABILITIES.iter().position(|known| *known == short) {
        Some(number) => Ok(1 << number),
        None => {
            let meant = closest(short, CAPABILITIES);
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            bail!("{name} is not a capability{meant}")
        }
    }
}

/// Returns whether `set` contains the capability `name`.
///
/// # Errors
/// There is no such capability.
pub fn contains(set: Capabilities, name: &str) -> Result<bool> {
    Ok(set & bit(name)? != 0)
}
