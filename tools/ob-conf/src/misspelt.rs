//! Lines that were meant to protect the host from a subhost, or to limit it, and have no effect as
//! they stand. A subhost that boots without a protection looks like one that has it, so such a
//! configuration is refused.

use crate::conf::{Assignment, Conf};
use crate::problem::{Problem, Weight};
use ob_document::{Kind, VARIABLES, distance};

/// The variables without which a subhost may do more.
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

/// Words that are as near to one of them as a slip of the finger, but are words.
const WORDS: &[&str] = &[
    "PROJECT",
    "PROTEST",
    "USERS",
    "LIMITS",
    "MEMORYMIN",
    "CPUMAP",
];

/// Words that may stand before an assignment in a shell.
const SHELL: &[&str] = &[
    "export", "declare", "typeset", "local", "readonly", "set", "env", "let",
];

/// The prefix of variables that belong to the user and are no slip.
pub const FREE: &str = "X_";

/// Returns a problem for each such line.
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
                    "{name} is assigned on line {first} already, and otherwise; remove one of the two"
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

fn kind(name: &str) -> Option<Kind> {
    let variable = VARIABLES.iter().find(|variable| variable.name == name);
    variable.map(|variable| variable.kind)
}

/// Why a line that is ignored was meant to protect, with the column where that begins.
fn ignored(line: &str) -> Option<(usize, String)> {
    // A byte order mark, blanks of all kinds, and other characters that are not seen.
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
    // A text with blanks in it is prose, if it is not the very name.
    let meant = near(&name).filter(|meant| words.len() == 1 || letters(meant) == letters(&name))?;
    Some(if letters(meant) == letters(&name) {
        let how = "at the first column, in capitals, with nothing before the =";
        (column, format!("is ignored; write {meant}= {how}"))
    } else {
        let free = format!("begin the name of a variable of your own with {FREE}");
        let name = left.trim_end();
        (
            column,
            format!("{name} is not a variable; did you mean {meant}? Else {free}"),
        )
    })
}

/// The variable that `name` was most probably meant to be.
fn near(name: &str) -> Option<&'static str> {
    let name = letters(name);
    if WORDS.contains(&name.as_str()) {
        return None;
    }
    let is_near = |meant: &str| match meant.len() {
        // Half the words of a language are one letter away from so short a name.
        ..5 => {
            let is_longer = name.starts_with(meant) && name.len() == meant.len() + 1;
            let is_shorter = meant.starts_with(&name) && name.len() + 1 == meant.len();
            let is_swapped = name.len() == meant.len() && distance(&name, meant) == 1 && {
                let sorted = |text: &str| {
                    let mut letters: Vec<char> = text.chars().collect();
                    letters.sort_unstable();
                    letters
                };
                sorted(&name) == sorted(meant)
            };
            name == meant || is_longer || is_shorter || is_swapped
        }
        // PROTECTION, PROTECTED
        length if name.starts_with(meant) => name.len() <= length + 3,
        length if name.len().abs_diff(length) > 2 => false,
        length => match distance(&name, meant) {
            ..2 => true,
            2 => length >= 8 && name.starts_with(&meant[..1]),
            _ => false,
        },
    };
    let found = PROTECTIONS.iter().copied();
    found.into_iter().find(|meant| is_near(&letters(meant)))
}

/// Letters and digits alone, in capitals.
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

    #[test]
    fn near_misses_of_a_protection_are_refused() {
        for line in [
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
        ] {
            assert_eq!(refused(line).len(), 1, "{line}");
        }
    }

    #[test]
    fn other_lines_are_not_refused() {
        for line in [
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
        ] {
            assert!(refused(line).is_empty(), "{line}");
        }
    }
}
