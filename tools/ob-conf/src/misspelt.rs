//! Lines that look like the assignment of a protection or a limit, and have no effect.
//!
//! A subhost without the protection looks like a subhost with it, so such a configuration is
//! refused.

use crate::conf::{Assignment, Conf};
use crate::problem::{Problem, Weight};
use ob_document::{FREE, Kind, VARIABLES, distance};

/// The variables that protect the host from a subhost, or limit it.
const PROTECTIONS: &[&str] = &[
    "PROTECT",
    "USERNS",
    "CAPS",
    "DROP_CAPS",
    "SECCOMP",
    "NO_NEW_PRIVS",
    "READONLY",
    "MASK",
    "SHARE_RO",
    "RLIMITS",
    "MEMORY_MAX",
    "MEMORY_HIGH",
    "SWAP_MAX",
    "PIDS_MAX",
    "CPU_MAX",
    "CPU_WEIGHT",
    "IO_WEIGHT",
];

/// English words that are as close to a protection as a typing error, and are accepted.
const WORDS: &[&str] = &[
    "PROJECT",
    "PROTEST",
    "USERS",
    "LIMITS",
    "MEMORYMIN",
    "CPUMAP",
];

/// Words that may precede an assignment in a shell.
const SHELL: &[&str] = &[
    "export", "declare", "typeset", "local", "readonly", "set", "env", "let",
];

/// Returns a problem for each line that looks like the assignment of a protection and has no
/// effect.
#[must_use]
pub fn problems(conf: &Conf) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |line, column, text| {
        problems.push(Problem {
            line,
            column,
            text,
            weight: Weight::Refused,
        });
    };
    for (index, line) in conf.lines.iter().enumerate() {
        if let Some((column, text)) = ignored(line) {
            refuse(index + 1, column, text);
        }
    }
    let mut seen: Vec<Assignment> = Vec::new();
    for assignment in conf.assignments() {
        let Assignment { line, name, .. } = assignment;
        if !PROTECTIONS.contains(&name) || kind(name) == Some(Kind::Lines) {
            continue;
        }
        let first = seen.iter().find(|first| first.name == name);
        match first {
            Some(first) if first.value() == assignment.value() => {}
            Some(Assignment { line: first, .. }) => refuse(
                line,
                1,
                format!(
                    "{name} is assigned on line {first} already, and otherwise; remove one of the \
                     two"
                ),
            ),
            None if assignment.value().is_empty() => refuse(
                line,
                1,
                format!(
                    "{name} has no value, which protects nothing; give it one, or remove the line"
                ),
            ),
            None => {}
        }
        seen.push(assignment);
    }
    problems.sort();
    problems
}

/// Returns the kind of the variable `name`; `None` if it is unknown.
fn kind(name: &str) -> Option<Kind> {
    let variable = VARIABLES.iter().find(|variable| variable.name == name);
    variable.map(|variable| variable.kind)
}

/// Returns the problem, and its column, of a line that is ignored although it resembles the
/// assignment of a protection.
fn ignored(line: &str) -> Option<(usize, String)> {
    // A byte order mark, blanks, and invisible characters.
    let bare =
        line.trim_start_matches(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii());
    let column = line.len() - bare.len() + 1;
    if !bare.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    let Some((left, _)) = bare.split_once('=') else {
        let word = bare.split(|c: char| c.is_whitespace() || c == ':').next()?;
        let is_meant = PROTECTIONS.contains(&word);
        return is_meant.then(|| (column, format!("is no assignment; write {word}=VALUE")));
    };
    let mut words: Vec<&str> = left.split_whitespace().collect();
    while words.len() > 1 && (SHELL.contains(&words[0]) || words[0].starts_with('-')) {
        words.remove(0);
    }
    let name = words.concat();
    if name.starts_with(FREE) || column == 1 && kind(left).is_some() {
        return None;
    }
    // A text with blanks is prose, unless it is exactly a name.
    let known = near(&name).filter(|known| words.len() == 1 || letters(known) == letters(&name))?;
    Some(if letters(known) == letters(&name) {
        let how = "at the first column, in capitals, with nothing before the =";
        (column, format!("is ignored; write {known}= {how}"))
    } else {
        let free = format!("begin the name of a variable for other programs with {FREE}");
        let name = left.trim_end();
        (
            column,
            format!("{name} is not a variable; did you mean {known}? Else {free}"),
        )
    })
}

/// Returns the protection that `name` is probably a misspelling of.
fn near(name: &str) -> Option<&'static str> {
    let name = letters(name);
    if WORDS.contains(&name.as_str()) {
        return None;
    }
    let found = PROTECTIONS.iter().copied();
    found
        .into_iter()
        .find(|known| is_near(&name, &letters(known)))
}

/// Returns whether `name` is probably a misspelling of `known`, both in the form of [`letters`].
fn is_near(name: &str, known: &str) -> bool {
    match known.len() {
        // Many English words differ in one letter from so short a name.
        ..5 => {
            let is_longer = name.starts_with(known) && name.len() == known.len() + 1;
            let is_shorter = known.starts_with(name) && name.len() + 1 == known.len();
            let is_swapped = name.len() == known.len() && distance(name, known) == 1 && {
                let sorted = |text: &str| {
                    let mut letters: Vec<char> = text.chars().collect();
                    letters.sort_unstable();
                    letters
                };
                sorted(name) == sorted(known)
            };
            name == known || is_longer || is_shorter || is_swapped
        }
        // PROTECTION, PROTECTED
        length if name.starts_with(known) => name.len() <= length + 3,
        length if name.len().abs_diff(length) > 2 => false,
        length => match distance(name, known) {
            ..2 => true,
            2 => length >= 8 && name.starts_with(&known[..1]),
            _ => false,
        },
    }
}

/// Returns the ASCII letters and digits of a name, in capitals.
fn letters(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|c| c.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn refused(text: &str) -> Vec<usize> {
        let conf = Conf::parse(Path::new("/a.conf"), text.as_bytes()).unwrap();
        let problems = problems(&conf).into_iter();
        problems.map(|problem| problem.line).collect()
    }

    const NEAR: &[&str] = &[
        "PROTCT=strict",
        "PRTOECT=strict",
        "PROTECTT=strict",
        "PROTECTION=strict",
        "PROTEKT=strict",
        " PROTECT=strict",
        "\tPROTECT=strict",
        "\u{a0}PROTECT=strict",
        "PROTECT =strict",
        "PROTECT\u{a0}=strict",
        "PRO TECT=strict",
        "export PROTECT=strict",
        "export PROTCT=strict",
        "declare -x PROTECT=strict",
        "readonly PROTECT=strict",
        "\u{feff}PROTECT=strict",
        "\u{200b}PROTECT=strict",
        "\u{420}ROTECT=strict",
        "PR\u{41e}TECT=strict",
        "protect=strict",
        "Protect=strict",
        "PROTECT+=strict",
        "PROTECT:=strict",
        "PROTECT: strict",
        "PROTECT strict",
        "PROTECT=",
        "PROTECT= ",
        "PROTECT=yes\nPROTECT=strict",
        "SHARE_R0=/x",
        "SHARE_RO =/x",
        "MASKS=/x",
        "MAKS=/x",
        "USER_NS=auto",
        "USERN=auto",
        "READ_ONLY=yes",
        "READONYL=yes",
        "CAP=none",
        "CAPSS=none",
        "DROP_CAP=chown",
        "SECOMP=default",
        "NO_NEW_PRIV=yes",
        "NONEWPRIVS=yes",
        "RLIMIT=core=0",
        "MEMORYMAX=1G",
        "MEMORY_MX=1G",
        "PID_MAX=9",
        "CPUS_MAX=1",
    ];

    const OTHER: &[&str] = &[
        "PROTECT=strict",
        "PROTECT=strict\nPROTECT=strict",
        "#PROTECT=",
        "# PROTECT = strict",
        "; PROTECT=strict",
        "  # PROTECT=x",
        "SHARE_RO=",
        "SHARE_RO=/a\nSHARE_RO=/b",
        "SETENV=PROTECT=x",
        "INIT=env PROTECT=yes ./init",
        "X_PROTECT=",
        "X_PROTCT=1",
        " X_MASK=1",
        " LOWER=/x",
        "export LOWER=/x",
        "LOWER =/x",
        "lower=/x",
        "LOWRE=/x",
        "PORT=1",
        "MASTER=a",
        "PROJECT=a",
        "PRODUCT=a",
        "USER=a",
        "USERS=a",
        "USERNAME=a",
        "LIMITS=a",
        "TASK=a",
        "MARK=a",
        "MASS=a",
        "MAPS=a",
        "CARS=a",
        "CUPS=a",
        "CAST=a",
        "SHARED=a",
        "SHARES=a",
        "READY=a",
        "READER=a",
        "CPU=a",
        "CPU_MIN=a",
        "MEMORY=a",
        "MEMORY_MIN=a",
        "PIDFILE=a",
        "WEIGHT=a",
        "CPU_MAP=a",
        "NLIMIT=a",
        "SWAP=a",
        "Mask the files of the host",
        "Protect me = please",
    ];

    #[test]
    fn near_misses_of_a_protection_are_refused() {
        for line in NEAR {
            assert_eq!(refused(line).len(), 1, "{line}");
        }
    }

    #[test]
    fn other_lines_are_not_refused() {
        for line in OTHER {
            assert!(refused(line).is_empty(), "{line}");
        }
    }
}
