//! The limits of a subhost as a whole, in the words of its control group, cgroups(7).

use anyhow::{Result, anyhow, ensure};
use ob_document::Document;

/// A limit: its variable, and where the kernel wants it.
pub struct Limit {
    /// The variable.
    pub name: &'static str,
    /// The controller of the second version of control groups.
    pub controller: &'static str,
    /// The file in the group.
    pub file: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Bytes,
    Count,
    /// `50%` of one processor, or the kernel's own `QUOTA PERIOD` in microseconds.
    Share,
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
    limit("CPU_MAX", "cpu", "cpu.max", Kind::Share),
    limit("CPU_WEIGHT", "cpu", "cpu.weight", Kind::Weight),
    limit("IO_WEIGHT", "io", "io.weight", Kind::Weight),
];

/// The limits of the document, each with what is to be written to its file. Fails if a value cannot be.
pub fn of(document: &Document) -> Result<Vec<(&'static Limit, String)>> {
    let set = LIMITS.iter().filter_map(|limit| {
        let value = document.optional(limit.name)?;
        Some(limit.written(value).map(|written| (limit, written)))
    });
    set.collect()
}

/// Refuses a value that cannot be; a name that is no limit has none.
pub(crate) fn check(name: &str, value: &str) -> Result<()> {
    let limit = LIMITS.iter().find(|limit| limit.name == name);
    limit.map_or(Ok(()), |limit| limit.written(value).map(drop))
}

impl Limit {
    fn written(&self, value: &str) -> Result<String> {
        let name = self.name;
        match self.kind {
            Kind::Bytes | Kind::Count | Kind::Share if value == "max" => Ok(value.to_owned()),
            Kind::Bytes if value == "0" => Ok(value.to_owned()),
            Kind::Bytes => ob_document::log::bytes(value)
                .map(|bytes| bytes.to_string())
                .map_err(|_| anyhow!("{name}={value} is not a size such as 512M, and not max")),
            Kind::Count => match value.parse::<u32>() {
                Ok(count) if count > 0 => Ok(count.to_string()),
                _ => Err(anyhow!("{name}={value} is not a number, and not max")),
            },
            Kind::Share => share(value)
                .ok_or_else(|| anyhow!("{name}={value} is not a share such as 50%, and not max")),
            Kind::Weight => {
                let weight: u32 = value.parse().unwrap_or(0);
                ensure!(
                    (1..=10_000).contains(&weight),
                    "{name}={value} is not a weight from 1 to 10000; 100 is that of all others"
                );
                Ok(weight.to_string())
            }
        }
    }
}

/// In microseconds out of every 100000, or as it stands.
fn share(value: &str) -> Option<String> {
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
