//! The limits of the control group of a subhost, `cgroups(7)`.

use anyhow::{Result, anyhow, ensure};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use ob_document::Document;
use std::path::PathBuf;

/// A limit of a control group.
pub struct Limit {
    /// The variable of the configuration.
    pub name: &'static str,
    /// The controller of cgroup version 2.
    pub controller: &'static str,
    /// The file in the directory of the group.
    pub file: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Bytes,
    Count,
    /// `50%` of one CPU, or `QUOTA PERIOD` in microseconds as in `cpu.max`.
    Quota,
    Weight,
}

const fn limit(
    name: &'static str,
    controller: &'static str,
    file: &'static str,
    kind: Kind,
) -> Limit {
    Limit {
        name,
        controller,
        file,
        kind,
    }
}

/// All limits, in the order in which they are set.
pub const LIMITS: &[Limit] = &[
    limit("MEMORY_HIGH", "memory", "memory.high", Kind::Bytes),
    limit("MEMORY_MAX", "memory", "memory.max", Kind::Bytes),
    limit("SWAP_MAX", "memory", "memory.swap.max", Kind::Bytes),
    limit("PIDS_MAX", "pids", "pids.max", Kind::Count),
    limit("CPU_MAX", "cpu", "cpu.max", Kind::Quota),
    limit("CPU_WEIGHT", "cpu", "cpu.weight", Kind::Weight),
    limit("IO_WEIGHT", "io", "io.weight", Kind::Weight),
];

/// Returns the limits that the document sets, each with the value for its file.
///
/// # Errors
/// A value is invalid.
pub fn of(document: &Document) -> Result<Vec<(&'static Limit, String)>> {
    let set = LIMITS.iter().filter_map(|limit| {
        let value = document.optional(limit.name)?;
        Some(limit.convert(value).map(|value| (limit, value)))
    });
    set.collect()
}

/// The control group that the document notes, links resolved; none if there is no group of the
/// cgroup2 tree there, or one that is not called NAME.
#[must_use]
pub fn group(document: &Document) -> Option<PathBuf> {
    let path = document.path("cgroup").ok()?.canonicalize().ok()?;
    let is_group = statfs(&path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    (is_group && path.file_name()?.to_str() == Some(document.name())).then_some(path)
}

/// Checks the value of the variable `name`. Accepts any value if it is not a limit.
///
/// # Errors
/// The value is invalid.
pub(crate) fn check(name: &str, value: &str) -> Result<()> {
    let limit = LIMITS.iter().find(|limit| limit.name == name);
    limit.map_or(Ok(()), |limit| limit.convert(value).map(drop))
}

impl Limit {
    /// Converts the value of the variable to the value for the file.
    fn convert(&self, value: &str) -> Result<String> {
        let name = self.name;
        match self.kind {
            Kind::Bytes | Kind::Count | Kind::Quota if value == "max" => Ok(value.to_owned()),
            Kind::Bytes if value == "0" => Ok(value.to_owned()),
            Kind::Bytes => ob_document::log::bytes(value)
                .map(|bytes| bytes.to_string())
                .map_err(|_| {
                    anyhow!("{name}={value} is not a size; expected a size such as 512M, or max")
                }),
            Kind::Count => match value.parse::<u32>() {
                Ok(count) if count > 0 => Ok(count.to_string()),
                _ => Err(anyhow!(
                    "{name}={value} is not a number; expected a number above 0, or max"
                )),
            },
            Kind::Quota => quota(value).ok_or_else(|| {
                anyhow!(
                    "{name}={value} is not a share; expected a share of one CPU such as 50%, or max"
                )
            }),
            Kind::Weight => {
                let weight: u32 = value.parse().unwrap_or(0);
                ensure!(
                    (1..=10_000).contains(&weight),
                    "{name}={value} is not a weight; expected 1 to 10000, where 100 is the default"
                );
                Ok(weight.to_string())
            }
        }
    }
}

/// Converts `50%` to `QUOTA PERIOD`, with a period of 100000 microseconds. Checks `QUOTA PERIOD`.
fn quota(value: &str) -> Option<String> {
    if let Some(percent) = value.strip_suffix('%') {
        let percent: u64 = percent.trim().parse().ok()?;
        return (1..=100_000)
            .contains(&percent)
            .then(|| format!("{} 100000", percent * 1000));
    }
    let mut words = value.split_whitespace();
    let quota = words
        .next()
        .filter(|word| *word == "max" || word.parse::<u64>().is_ok())?;
    let period: u64 = words.next()?.parse().ok()?;
    words.next().is_none().then(|| format!("{quota} {period}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_converted_to_kernel_format() {
        for (name, value, written) in [
            ("MEMORY_MAX", "64M", "67108864"),
            ("MEMORY_HIGH", "max", "max"),
            ("SWAP_MAX", "0", "0"),
            ("PIDS_MAX", "100", "100"),
            ("CPU_MAX", "50%", "50000 100000"),
            ("CPU_MAX", "250%", "250000 100000"),
            ("CPU_MAX", "2000 10000", "2000 10000"),
            ("CPU_WEIGHT", "20", "20"),
            ("IO_WEIGHT", "10000", "10000"),
        ] {
            let line = format!("{{\"NAME\":\"a\",\"{name}\":\"{value}\"}}");
            let limits = of(&Document::parse(&line).unwrap()).unwrap();
            assert_eq!((limits[0].0.name, limits[0].1.as_str()), (name, written));
        }
        for (name, value) in [
            ("MEMORY_MAX", "64X"),
            ("MEMORY_MAX", "-1"),
            ("PIDS_MAX", "0"),
            ("CPU_MAX", "50"),
            ("CPU_MAX", "0%"),
            ("CPU_MAX", "1 2 3"),
            ("CPU_WEIGHT", "max"),
            ("IO_WEIGHT", "10001"),
        ] {
            let error = check(name, value).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{name}={value} is not")),
                "{error}"
            );
        }
    }
}
