//! Checks values of the configuration.

use super::filter::Seccomp;
use super::rlimits::limit;
use super::values::{ReadOnly, absolute, assignment, hostname, parse_level, yes_or_no};
use crate::capabilities::set;
use crate::userns::UsernsSetting;
use anyhow::{Context, Result};

/// Checks the value of the variable `name` by itself. Accepts any value of other variables.
///
/// `value` is the text of the configuration, except that a path is complete.
///
/// # Errors
/// The value is invalid; the error names the variable.
pub fn check(name: &str, value: &str) -> Result<()> {
    let words = || value.split_whitespace();
    match name {
        "PROTECT" => parse_level(value).map(drop),
        "USERNS" => {
            let setting = UsernsSetting::parse(value).map(drop);
            setting.with_context(|| format!("USERNS={value}"))
        }
        "CAPS" | "DROP_CAPS" => set(words()).map(drop).context(name.to_owned()),
        "SECCOMP" => match Seccomp::parse(value) {
            Seccomp::Profile(path) if path.is_absolute() => {
                Seccomp::Profile(path).compile(0).map(drop)
            }
            _ => Ok(()),
        },
        "NO_NEW_PRIVS" => yes_or_no(value).map(drop).context(name.to_owned()),
        "READONLY" => ReadOnly::parse(value).map(drop),
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

#[cfg(test)]
mod tests {
    use super::*;

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
            ("RLIMITS", "nofile=9", "ob-enter needs at least 128"),
            ("HOSTNAME", "a b", "not a valid host name"),
            ("SETENV", "PATH", "not of the form"),
            ("SETENV", "A B=c", "not a valid variable name"),
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
