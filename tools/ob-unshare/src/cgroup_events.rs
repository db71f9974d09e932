//! Reads how often a subhost has reached the limits of its control group, for the log.

use anyhow::Result;
use ob_confine::cgroup_limits::LIMITS;
use ob_document::Document;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A counter of the kernel, cgroups(7), and the words for the log.
struct Count {
    variable: &'static str,
    file: &'static str,
    key: &'static str,
    /// The words before the number, after the number 1, and after other numbers.
    text: [&'static str; 3],
}

const COUNTS: &[Count] = &[
    Count {
        variable: "MEMORY_MAX",
        file: "memory.events",
        key: "oom_kill",
        text: [
            "killed ",
            " process, out of memory",
            " processes, out of memory",
        ],
    },
    Count {
        variable: "MEMORY_MAX",
        file: "memory.events",
        key: "max",
        text: ["had its memory reclaimed ", " time", " times"],
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

/// The counters of one subhost.
pub struct LimitEvents {
    counters: Vec<Counter>,
}

struct Counter {
    count: &'static Count,
    limit: String,
    file: File,
    logged: u64,
}

impl LimitEvents {
    /// Opens the counters of the limits in the document. Without limits it has no counter.
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
                    logged: 0,
                };
                counter.number(); // poll(2) reports a change of a file that was never read
                counters.push(counter);
            }
        }
        Ok(LimitEvents { counters })
    }

    /// Returns the files for which poll(2) reports `POLLPRI` when a counter has changed.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // The kernel notifies of changes in *.events, not in cpu.stat.
        let notifying = self
            .counters
            .iter()
            .filter(|one| one.count.file.ends_with("events"));
        notifying.map(|one| one.file.as_fd())
    }

    /// Returns a line for each counter that has doubled since the previous call; `is_last`: that
    /// has changed.
    ///
    /// A subhost at its limit does not fill its log.
    pub fn lines(&mut self, is_last: bool) -> Vec<String> {
        let changed = self.counters.iter_mut().filter_map(|one| {
            let number = one.number().unwrap_or(one.logged);
            let due = number > one.logged && (is_last || number >= one.logged * 2);
            due.then(|| {
                one.logged = number;
                one.one_line()
            })
        });
        changed.collect()
    }
}

impl Counter {
    fn number(&self) -> Option<u64> {
        // Reading from the start makes poll(2) report the next change.
        let mut buffer = [0; 4096];
        let length = self.file.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).ok()?;
        value(text, self.count.key)
    }

    fn one_line(&self) -> String {
        let [before, one, more] = self.count.text;
        let after = if self.logged == 1 { one } else { more };
        let number = if self.count.key.ends_with("usec") {
            format!(
                "{}.{} seconds",
                self.logged / 1_000_000,
                self.logged / 100_000 % 10
            )
        } else {
            self.logged.to_string()
        };
        format!(
            "{}={} has {before}{number}{after}",
            self.count.variable, self.limit
        )
    }
}

/// Returns the number after `key` in a flat keyed file of cgroupfs.
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
