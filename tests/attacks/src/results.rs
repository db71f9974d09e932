//! What was measured, on which kernel, and how the page shows it.

use crate::{Ends, Entry, Kind, LEVELS, Level, sides, table};
use serde_json::{Value, json};
use std::fmt::Write;

/// The kernels and their results, the oldest first.
pub const KERNELS: [(&str, &str); 3] = [
    ("6.1", include_str!("../results/6.1.json")),
    ("6.12", include_str!("../results/6.12.json")),
    ("6.18", include_str!("../results/6.18.json")),
];

/// What stands before and behind the tables of the results on the page, and the table of the other
/// sides.
const MARKS: [&str; 2] = [
    "<!-- Made by `make attacks` from what the tests have measured. -->\n",
    "<!-- Here the table ends. -->\n",
];
const SIDES: [&str; 2] = [
    "<!-- Made by `make attacks` from the names of the tests. -->\n",
    "<!-- Here the table of the other sides ends. -->\n",
];

/// The outcome of one entry at one level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measured {
    /// The entry.
    pub name: String,
    /// The level.
    pub level: Level,
    /// How it ended.
    pub ends: Ends,
    /// What the program said: the reason, if it did not get through.
    pub why: String,
}

impl Measured {
    /// As a line of JSON.
    #[must_use]
    pub fn line(&self) -> String {
        let Measured { name, ends, .. } = self;
        json!({"name": name, "level": self.level.word(), "ends": ends.word(), "why": self.why})
            .to_string()
    }

    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |key| value.get(key).and_then(Value::as_str);
        Some(Measured {
            name: text("name")?.to_owned(),
            level: Level::of(text("level")?)?,
            ends: Ends::of(text("ends")?)?,
            why: text("why")?.to_owned(),
        })
    }
}

/// What was measured on `kernel`, such as "6.12"; nothing if it was never measured.
///
/// # Panics
/// If a line is no result.
#[must_use]
pub fn of_kernel(kernel: &str) -> Vec<Measured> {
    let known = KERNELS.iter().find(|(name, _)| *name == kernel);
    let lines = known.map_or("", |(_, lines)| lines).lines();
    lines
        .map(|line| Measured::parse(line).unwrap_or_else(|| panic!("no result: {line}")))
        .collect()
}

/// The kernel of a `uname -r`.
#[must_use]
pub fn kernel(release: &str) -> String {
    let mut parts = release.split(['.', '-']);
    let mut part = || parts.next().unwrap_or_default();
    format!("{}.{}", part(), part())
}

/// The page with the tables between their marks; none if it has no marks.
#[must_use]
pub fn put_into(page: &str) -> Option<String> {
    let page = put_between(page, MARKS, &rows())?;
    put_between(&page, SIDES, &sides::rows())
}

fn put_between(page: &str, [begin, end]: [&str; 2], rows: &str) -> Option<String> {
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some([before, begin, rows, end, after].concat())
}

fn rows() -> String {
    let measured: Vec<_> = KERNELS
        .iter()
        .map(|(kernel, _)| (*kernel, of_kernel(kernel)))
        .collect();
    let mut rows = String::new();
    for (kind, head) in [
        (Kind::Attack, "| # | Attack |"),
        (Kind::Work, "| | Administration |"),
    ] {
        let _ = write!(
            rows,
            "\n{head} no | yes | strict |\n| --- | --- | --- | --- | --- |\n"
        );
        for entry in table().into_iter().filter(|entry| entry.kind == kind) {
            let number = match entry.number {
                0 => String::new(),
                number => number.to_string(),
            };
            let [no, yes, strict] = LEVELS.map(|level| cell(entry, level, &measured));
            let _ = writeln!(
                rows,
                "| {number} | {} | {no} | {yes} | {strict} |",
                entry.words
            );
        }
    }
    rows.push('\n');
    rows
}

/// One word if all kernels agree, else one for each outcome with the kernels that it was seen on.
fn cell(entry: &Entry, level: Level, measured: &[(&str, Vec<Measured>)]) -> String {
    let mut groups: Vec<(Ends, Vec<&str>)> = Vec::new();
    for (kernel, results) in measured {
        let is_it = |one: &&Measured| one.name == entry.name && one.level == level;
        let ends = results
            .iter()
            .find(is_it)
            .map_or(Ends::NotTried, |one| one.ends);
        match groups.iter_mut().find(|(other, _)| *other == ends) {
            Some((_, kernels)) => kernels.push(kernel),
            None => groups.push((ends, vec![kernel])),
        }
    }
    let tried: Vec<_> = groups
        .iter()
        .filter(|(ends, _)| *ends != Ends::NotTried)
        .collect();
    match (tried.as_slice(), groups.as_slice()) {
        ([], _) => "not tried".to_owned(),
        (_, [(ends, _)]) => emphasis(*ends).to_owned(),
        _ => {
            let with_kernels = tried
                .iter()
                .map(|(ends, kernels)| format!("{} ({})", emphasis(*ends), kernels.join(", ")));
            with_kernels.collect::<Vec<_>>().join(", ")
        }
    }
}

fn emphasis(ends: Ends) -> &'static str {
    match ends {
        Ends::Falls => "**falls**",
        Ends::Refused => "**refused**",
        other => other.word(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_agree_are_one_word() {
        let entry = table()[0];
        let show = |outcomes: [Option<Ends>; 3]| {
            let kernels = ["6.1", "6.12", "6.18"].into_iter().zip(outcomes);
            let measured: Vec<_> = kernels
                .map(|(kernel, ends)| {
                    let one = ends.map(|ends| Measured {
                        name: entry.name.to_owned(),
                        level: Level::Yes,
                        ends,
                        why: String::new(),
                    });
                    (kernel, one.into_iter().collect())
                })
                .collect();
            cell(entry, Level::Yes, &measured)
        };
        let (falls, stands, not) = (Some(Ends::Falls), Some(Ends::Stands), Some(Ends::NotTried));
        assert_eq!(show([stands, stands, stands]), "stands");
        assert_eq!(
            show([stands, falls, stands]),
            "stands (6.1, 6.18), **falls** (6.12)"
        );
        assert_eq!(show([not, falls, None]), "**falls** (6.12)");
        assert_eq!(show([not, not, None]), "not tried");
    }

    #[test]
    fn a_result_is_a_line_and_back() {
        let one = Measured {
            name: "disk".to_owned(),
            level: Level::Strict,
            ends: Ends::NotTried,
            why: "there are \"no\" disks".to_owned(),
        };
        assert_eq!(Measured::parse(&one.line()), Some(one));
        assert_eq!(Measured::parse("{}"), None);
        assert_eq!(kernel("6.12.43+deb13-amd64"), "6.12");
    }

    #[test]
    fn each_result_is_of_an_entry() {
        for (kernel, _) in KERNELS {
            let unknown = |one: &Measured| crate::find(&one.name).is_none();
            assert!(!of_kernel(kernel).iter().any(unknown), "{kernel}");
        }
    }
}
