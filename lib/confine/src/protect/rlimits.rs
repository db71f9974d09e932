//! Names and values of resource limits, `setrlimit(2)`.

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::resource::{RLIM_INFINITY, Resource, rlim_t};
use ob_document::closest;

/// The resource limits, with the names of `limits.conf(5)`.
const NAMES: &[(&str, Resource)] = &[
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

/// The smallest limit of open files with which `ob-enter` can enter a subhost.
const MIN_FILES: rlim_t = 128;

/// Parses `NAME=SOFT[:HARD]`. Returns the resource, the soft and the hard limit.
///
/// # Errors
/// The name or a value is invalid, the soft limit is above the hard limit, or `nofile` is too low.
pub fn limit(word: &str) -> Result<(Resource, rlim_t, rlim_t)> {
    let (name, value) = word
        .split_once('=')
        .with_context(|| format!("'{word}' is not of the form nofile=4096"))?;
    let known = NAMES.iter().find(|(known, _)| *known == name);
    let (_, resource) = known.ok_or_else(|| {
        let meant = closest(name, NAMES.iter().map(|(known, _)| *known));
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        anyhow!("{name} is not a limit{meant}")
    })?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (parse_value(soft)?, parse_value(hard)?);
    ensure!(soft <= hard, "{word}: the soft limit is above the hard one");
    ensure!(
        *resource != Resource::RLIMIT_NOFILE || soft >= MIN_FILES,
        "{word}: ob-enter needs at least {MIN_FILES} to enter a subhost"
    );
    Ok((*resource, soft, hard))
}

fn parse_value(text: &str) -> Result<rlim_t> {
    match text {
        "unlimited" | "infinity" => Ok(RLIM_INFINITY),
        "0" => Ok(0),
        text => ob_document::log::bytes(text).map_err(|_| anyhow!("'{text}' is not a number")),
    }
}

/// Returns the name of a resource limit.
pub fn name(resource: Resource) -> &'static str {
    let known = NAMES.iter().find(|(_, known)| *known == resource);
    known.map_or("", |(name, _)| name)
}
