//! What the kernel tells of a subhost that has reached its limits, for the log.

use anyhow::Result;
use ob_confine::cgroup_limits::LIMITS;
use ob_document::Document;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Something that is counted.
struct Count {
    variable: &'static str,
    file: &'static str,
    key: &'static str,
    /// What has happened, before the number, after one, and after any other.
    text: [&'static str; 3],
}

const COUNTS: &[Count] = &[
    Count {
        variable: "MEMORY_MAX",
        file: "memory.events",
        key: "oom_kill",
        text: [
            "killed ",
            " process for want of memory",
            " processes for want of memory",
        ],
    },
    Count {
        variable: "MEMORY_MAX",
        file: "memory.events",
        key: "max",
        text: ["had memory taken back ", " time", " times"],
    },
    Count {
        variable: "MEMORY_HIGH",
        file: "memory.events",
        key: "high",
        text: ["slowed it down for its memory ", " time", " times"],
    },
    Count {
        variable: "PIDS_MAX",
        file: "pids.events",
        key: "max",
        text: ["refused a new process ", " time", " times"],
    },
    Count {
        variable: "CPU_MAX",
        file: "cpu.stat",
        key: "throttled_usec",
        text: ["made it wait ", "", ""],
    },
];

/// The limits of one subhost that count.
pub struct LimitEvents {
    counters: Vec<Counter>,
}

struct Counter {
    count: &'static Count,
    limit: String,
    file: File,
    told: u64,
}

impl LimitEvents {
    /// Begins to watch the limits of the document; none if it has none.
    pub fn of(document: &Document) -> Result<Self> {
        let mut counters = Vec::new();
        if !LIMITS.iter().any(|limit| document.has(limit.name)) {
            return Ok(LimitEvents { counters });
        }
        let group: &Path = document.path("cgroup")?;
        for count in COUNTS {
            if let Some(limit) = document.optional(count.variable) {
                let counter = Counter {
                    count,
                    limit: limit.to_owned(),
                    file: File::open(group.join(count.file))?,
                    told: 0,
                };
                counter.number(); // a file that was never read always tells of a change
                counters.push(counter);
            }
        }
        Ok(LimitEvents { counters })
    }

    /// The files that become ready (`POLLPRI`) when something is to be told.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // Statistics tell nobody of a change.
        let telling = self
            .counters
            .iter()
            .filter(|one| one.count.file.ends_with("events"));
        telling.map(|one| one.file.as_fd())
    }

    /// What has happened since it was told last. Only when a number has doubled, so that a subhost at its limit does not fill its
    /// log, or at the `end`.
    pub fn lines(&mut self, is_last: bool) -> Vec<String> {
        let changed = self.counters.iter_mut().filter_map(|one| {
            let number = one.number().unwrap_or(one.told);
            let due = number > one.told && (is_last || number >= one.told * 2);
            due.then(|| {
                one.told = number;
                one.one_line()
            })
        });
        changed.collect()
    }
}

impl Counter {
    fn number(&self) -> Option<u64> {
        // From the beginning: reading is what makes the file tell of the next change.
        let mut buffer = [0; 4096];
        let length = self.file.read_at(&mut buffer, 0).ok()?;
        let text = str::from_utf8(&buffer[..length]).ok()?;
        value(text, self.count.key)
    }

    fn one_line(&self) -> String {
        let [before, one, more] = self.count.text;
        let after = if self.told == 1 { one } else { more };
        let number = if self.count.key.ends_with("usec") {
            format!(
                "{}.{} seconds",
                self.told / 1_000_000,
                self.told / 100_000 % 10
            )
        } else {
            self.told.to_string()
        };
        format!(
            "{}={} has {before}{number}{after}",
            self.count.variable, self.limit
        )
    }
}

/// The number behind `key` in a table of the kernel's.
fn value(table: &str, key: &str) -> Option<u64> {
    let mut lines = table.lines();
    lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_matches_only_as_a_whole_word() {
        let table = "low 0\nhigh 3\nmax 12\noom 1\noom_kill 7\noom_group_kill 0\n";
        assert_eq!(value(table, "oom"), Some(1));
        assert_eq!(value(table, "oom_kill"), Some(7));
        assert_eq!(value(table, "max"), Some(12));
        assert_eq!(value(table, "min"), None);
    }
}
