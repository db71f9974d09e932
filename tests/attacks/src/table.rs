//! The table: what there is to try, and what is expected to come of it.

use crate::{
    Try, administration, calls, cgroups, devices, entering, files, mounts, network, processes,
    procfs, sysfs, terminal, users,
};

/// How much PROTECT takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Nothing: the default.
    No,
    /// The capabilities and system calls that services do without.
    Yes,
    /// A user namespace.
    Strict,
}

/// All of them, in the order of the columns.
pub const LEVELS: [Level; 3] = [Level::No, Level::Yes, Level::Strict];

impl Level {
    /// Its word in a configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        ["no", "yes", "strict"][self as usize]
    }

    /// The level of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        LEVELS.into_iter().find(|level| level.word() == word)
    }
}

/// How a try ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// The attack got through.
    Falls,
    /// It did not.
    Stands,
    /// The work could be done.
    Works,
    /// It could not.
    Refused,
    /// It cannot be tried on this kernel.
    NotTried,
}

/// Expected of what no level lets through.
pub(crate) const ALWAYS: [Ends; 3] = [Ends::Stands; 3];

/// Expected of what root of the host may do.
pub(crate) const FROM_YES: [Ends; 3] = [Ends::Falls, Ends::Stands, Ends::Stands];

/// Expected of what uid 0 may do, be it with few capabilities.
pub(crate) const STRICT: [Ends; 3] = [Ends::Falls, Ends::Falls, Ends::Stands];

impl Ends {
    /// Its word in results and in the table of the page.
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

    /// The one with this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        use Ends::{Falls, NotTried, Refused, Stands, Works};
        let all = [Falls, Stands, Works, Refused, NotTried];
        all.into_iter().find(|ends| ends.word() == word)
    }
}

/// What an entry is, and with it what its success means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Should fail.
    Attack,
    /// Ordinary administration: should succeed.
    Work,
}

/// Who does it.
#[derive(Clone, Copy)]
pub enum Part {
    /// The function, inside.
    Inside(fn() -> Try),
    /// The same, while the test does something outside; the test may judge otherwise than the function.
    Both(fn() -> Try),
    /// The test alone, from outside.
    Outside,
}

/// One row of the table.
pub struct Entry {
    /// The number of the attack as tests and the page have it; 0 for what a hostile root would try next.
    pub number: u8,
    /// What it is called on the command line and in results.
    pub name: &'static str,
    /// What it does, in a few words.
    pub words: &'static str,
    /// Whether it is an attack.
    pub kind: Kind,
    /// What is to come of it at each of [`LEVELS`].
    pub expected: [Ends; 3],
    /// How it is done.
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

    /// An attack that needs nobody outside.
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

    /// An attack that needs somebody outside: the test knows who, by the name.
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

    /// An attack by somebody who is not inside.
    pub(crate) const fn outside(
        number: u8,
        name: &'static str,
        words: &'static str,
        expected: [Ends; 3],
    ) -> Self {
        Entry::new(number, name, words, Kind::Attack, expected, Part::Outside)
    }

    /// Ordinary administration. It has no number.
    pub(crate) const fn work(
        name: &'static str,
        words: &'static str,
        expected: [Ends; 3],
        function: fn() -> Try,
    ) -> Self {
        let part = Part::Inside(function);
        Entry::new(0, name, words, Kind::Work, expected, part)
    }

    /// What is expected of it at `level`.
    #[must_use]
    pub fn expected(&self, level: Level) -> Ends {
        self.expected[level as usize]
    }

    /// How it ends, by the status with which its program ended; none if that is not one of a try.
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

/// All entries: attacks by number, what would be tried next by subject, then administration.
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

/// The entry of this name.
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
