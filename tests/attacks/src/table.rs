//! The table of all entries and their expected results.

use crate::{
    Try, administration, calls, cgroups, devices, entering, files, mounts, network, processes,
    procfs, sysfs, terminal, users,
};

/// A level of protection, the value of PROTECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// No restriction, the default.
    No,
    /// Without the capabilities and system calls that services do not need.
    Yes,
    /// With a user namespace.
    Strict,
}

/// All levels, in the order of the columns.
pub const LEVELS: [Level; 3] = [Level::No, Level::Yes, Level::Strict];

impl Level {
    /// Returns the value in a configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        ["no", "yes", "strict"][self as usize]
    }

    /// Returns the level with this value.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        LEVELS.into_iter().find(|level| level.word() == word)
    }
}

/// The result of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// The attack succeeded.
    Falls,
    /// The attack failed.
    Stands,
    /// The work was done.
    Works,
    /// The work was refused.
    Refused,
    /// The entry cannot run on this kernel.
    NotTried,
}

/// Expected of an attack that fails at every level.
pub(crate) const ALWAYS: [Ends; 3] = [Ends::Stands; 3];

/// Expected of an attack that needs the capabilities of root on the host.
pub(crate) const FROM_YES: [Ends; 3] = [Ends::Falls, Ends::Stands, Ends::Stands];

/// Expected of an attack that needs only uid 0, even with few capabilities.
pub(crate) const STRICT: [Ends; 3] = [Ends::Falls, Ends::Falls, Ends::Stands];

impl Ends {
    /// Returns the word in the results and in the table of the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Ends::Falls => "falls",
            Ends::Stands => "stands",
            Ends::Works => "works",
            Ends::Refused => "refused",
            Ends::NotTried => "not tried",
        }
    }

    /// Returns the result with this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        use Ends::{Falls, NotTried, Refused, Stands, Works};
        let all = [Falls, Stands, Works, Refused, NotTried];
        all.into_iter().find(|ends| ends.word() == word)
    }
}

/// The kind of an entry decides what success means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An attack must fail.
    Attack,
    /// Ordinary administration must succeed.
    Work,
}

/// The place where an entry runs.
#[derive(Clone, Copy)]
pub enum Part {
    /// The function runs inside.
    Inside(fn() -> Try),
    /// The function runs inside while the test acts outside. The test decides the result.
    Both(fn() -> Try),
    /// The test alone runs it, outside.
    Outside,
}

/// A row of the table.
pub struct Entry {
    /// The number of the attack in the tests and on the page; 0 for further attacks.
    pub number: u8,
    /// The name on the command line and in the results.
    pub name: &'static str,
    /// The description.
    pub words: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The expected results at each of [`LEVELS`].
    pub expected: [Ends; 3],
    /// The place, with the function.
    pub part: Part,
}

impl Entry {
    const fn new(
        number: u8,
        name: &'static str,
        words: &'static str,
        kind: Kind,
        expected: [Ends; 3],
        part: Part,
    ) -> Self {
        Entry {
            number,
            name,
            words,
            kind,
            expected,
            part,
        }
    }

    /// Makes an attack that needs no accomplice outside.
    pub(crate) const fn inside(
        number: u8,
        name: &'static str,
        words: &'static str,
        expected: [Ends; 3],
        function: fn() -> Try,
    ) -> Self {
        let part = Part::Inside(function);
        Entry::new(number, name, words, Kind::Attack, expected, part)
    }

    /// Makes an attack with an accomplice outside, which the test plays by the name of the entry.
    pub(crate) const fn both(
        number: u8,
        name: &'static str,
        words: &'static str,
        expected: [Ends; 3],
        function: fn() -> Try,
    ) -> Self {
        let part = Part::Both(function);
        Entry::new(number, name, words, Kind::Attack, expected, part)
    }

    /// Makes an attack from outside.
    pub(crate) const fn outside(
        number: u8,
        name: &'static str,
        words: &'static str,
        expected: [Ends; 3],
    ) -> Self {
        Entry::new(number, name, words, Kind::Attack, expected, Part::Outside)
    }

    /// Makes an entry of ordinary administration, which has no number.
    pub(crate) const fn work(
        name: &'static str,
        words: &'static str,
        expected: [Ends; 3],
        function: fn() -> Try,
    ) -> Self {
        let part = Part::Inside(function);
        Entry::new(0, name, words, Kind::Work, expected, part)
    }

    /// Returns the expected result at `level`.
    #[must_use]
    pub fn expected(&self, level: Level) -> Ends {
        self.expected[level as usize]
    }

    /// Returns the result for an exit status; `None` for a status that is not a result.
    #[must_use]
    pub fn ends(&self, status: i32) -> Option<Ends> {
        match (status, self.kind) {
            (0, Kind::Attack) => Some(Ends::Falls),
            (1, Kind::Attack) => Some(Ends::Stands),
            (0, Kind::Work) => Some(Ends::Works),
            (1, Kind::Work) => Some(Ends::Refused),
            (2, _) => Some(Ends::NotTried),
            _ => None,
        }
    }
}

/// Returns all entries: attacks by number, further attacks by subject, then administration.
#[must_use]
pub fn table() -> Vec<&'static Entry> {
    let subjects = [
        users::ENTRIES,
        entering::ENTRIES,
        terminal::ENTRIES,
        processes::ENTRIES,
        devices::ENTRIES,
        files::ENTRIES,
        mounts::ENTRIES,
        cgroups::ENTRIES,
        procfs::ENTRIES,
        sysfs::ENTRIES,
        calls::ENTRIES,
        network::ENTRIES,
    ];
    let work = administration::SUBJECTS.iter().copied();
    let mut table: Vec<_> = subjects.into_iter().chain(work).flatten().collect();
    table.sort_by_key(|entry| match entry.number {
        0 => (entry.kind == Kind::Work, u8::MAX),
        number => (false, number),
    });
    table
}

/// Returns the entry with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    table().into_iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_expectations_fit_their_kind() {
        let table = table();
        let names: BTreeSet<_> = table.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), table.len());
        for entry in table {
            let possible = [0, 1, 2].map(|status| entry.ends(status));
            let fits = |ends: &Ends| possible.contains(&Some(*ends));
            assert!(entry.expected.iter().all(fits), "{}", entry.name);
        }
    }
}
