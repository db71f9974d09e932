//! The attacks from the other sides: not from inside, but by a pipeline, a configuration, a caller,
//! a neighbour. Each is a test in `tests/tests/all/security`, whose name begins with the number of
//! the attack.

use std::fmt::Write;

/// Where the tests are.
const TESTS: [(&str, &str); 6] = [
    (
        "callers",
        include_str!("../../tests/all/security/callers.rs"),
    ),
    (
        "commands",
        include_str!("../../tests/all/security/commands.rs"),
    ),
    ("facts", include_str!("../../tests/all/security/facts.rs")),
    ("layers", include_str!("../../tests/all/security/layers.rs")),
    ("mounts", include_str!("../../tests/all/security/mounts.rs")),
    (
        "streams",
        include_str!("../../tests/all/security/streams.rs"),
    ),
];

const INSIDE: &str = "root inside";
const USER: &str = "a user of the host";
const SUDO: &str = "a user with a rule of sudo";
const CONF: &str = "a mistake in a configuration";
const STAGE: &str = "a stage or a document of another";
const NEIGHBOUR: &str = "a neighbour";
const HOST: &str = "a fault of the host";

/// Number, attack, by whom.
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str)] = &[
    ("A1", "boot `PROTECT=strict` with a stage that leaves out the fact `userns`", STAGE),
    ("A2", "boot again while a process of the host keeps the last overlay on UPPER mounted", HOST),
    ("A3", "misspell `ro` in a share, as `SHARE=/d:/x:readonly`", CONF),
    ("F1", "write a setuid program into a file of the host that is bound inside (`/etc/adjtime`)", INSIDE),
    ("F2", "put a file `web` with a `!` command where root types `overlay-list web`", USER),
    ("F3", "give a command a configuration of the user, to run commands or read files as root", SUDO),
    ("F4", "clone the document of a running subhost and let the clone fail", STAGE),
    ("F5", "clone the document of a running subhost, boot the clone and stop it", STAGE),
    ("F6", "boot the name of a network namespace that an administrator made, for its removal", STAGE),
    ("F7", "replace `/bin/sh` by a program that ignores TERM, so that no stop ends", INSIDE),
    ("F8", "misspell a protection (`PROTCT=strict`), which boots without it", CONF),
    ("F9", "boot a protection whose stage was replaced", STAGE),
    ("F10", "leave out the stage that makes the network, and be in that of the host", STAGE),
    ("F11", "rename the directory above a masked file, and read it after the next boot", INSIDE),
    ("F12", "have a link deleted that belongs to a neighbour of a similar name", NEIGHBOUR),
    ("F13", "send escape sequences to the terminal of an administrator", INSIDE),
    ("F14", "forge the document that is given to `--undo`", STAGE),
    ("F15", "name a subhost like a control group of the host", CONF),
    ("F16", "use a descriptor of the caller: the peer of a socket, a pipe that a shell reads, a FIFO, a file, a device", INSIDE),
    ("F17", "nest directories so deep that a comparison crashes", INSIDE),
    ("F18", "own what decides what a boot runs: a directory above, a hook, a profile", USER),
    ("F19", "put a tool into the working directory of a caller with an empty or relative PATH", USER),
    ("F20", "put a newline, a `$(…)` or a `%` into a name or a path", CONF),
    ("F21", "change the mode of `/dev/null` of the host", INSIDE),
    ("R1", "mount into a share, and have the mount appear on the host", INSIDE),
    ("R2", "write to a share that was shared read-only while the subhost ran", INSIDE),
    ("R3", "use a layer of another subhost as a layer", CONF),
    ("R6", "stop a command that has entered, so that no stop of the subhost ends", USER),
    ("R16", "read slowly from a command that has entered, so that it does not end", USER),
    ("C1", "use a rule for one command with other arguments", SUDO),
    ("C2", "choose the environment of a command that sudo runs", SUDO),
    ("C3", "look into a command that sudo runs, or get a core of it", SUDO),
    ("C4", "stop or hang up a command that sudo runs, to block the next command", SUDO),
    ("C5", "name a socket or a descriptor for the message of readiness that is no such thing, or takes nothing", SUDO),
    ("C6", "own the directory in which root makes a new subhost, and put a link in the place of the new directory", USER),
    ("C7", "name an image that is a FIFO, an option, or has a hostile partition table", CONF),
    ("C8", "open a device by a node of an image, or of a lower level (from `yes` on)", INSIDE),
    ("C9", "replace the configuration between two reads of one boot, for another name or log", USER),
    ("C10", "fill the filesystem of `/var/lib/subhosts`, so that a range of ids is lost or given twice", INSIDE),
    ("C11", "lay a link where the name of a network namespace will be", HOST),
    ("C12", "lay a link, a directory or a FIFO where a full log is moved", USER),
    ("C13", "make the directory of the states before the first boot", USER),
    ("C14", "have zsh or fish evaluate the name of a subhost or a file", USER),
    ("C15", "enter a subhost that was booted in a chroot, and be in the root of the host", INSIDE),
];

/// Returns the table for the page.
///
/// The names of the tests of a row begin with its number. A row without a test is open.
pub(crate) fn rows() -> String {
    let mut rows = String::from(
        "\n| # | Attack | By whom | Outcome | Tests |\n| --- | --- | --- | --- | --- |\n",
    );
    for (number, attack, whom) in ROWS {
        let tests = tests(number);
        let outcome = if tests.is_empty() {
            "**open**"
        } else {
            "stands"
        };
        let _ = writeln!(
            rows,
            "| {number} | {attack} | {whom} | {outcome} | {} |",
            tests.join(", ")
        );
    }
    rows.push('\n');
    rows
}

/// Returns the tests for the attack `number`, by module: one by its name, several by the common
/// beginning of their names.
fn tests(number: &str) -> Vec<String> {
    let (letter, digits) = number.split_at(1);
    let prefix = format!("{}{digits:0>2}_", letter.to_lowercase());
    let found = TESTS.map(|(module, text)| {
        let tests: Vec<&str> = names(text)
            .filter(|name| name.starts_with(&prefix))
            .collect();
        match tests[..] {
            [] => None,
            [name] => Some(format!("`{module}::{name}`")),
            _ => Some(format!("`{module}::{prefix}*` ({})", tests.len())),
        }
    });
    found.into_iter().flatten().collect()
}

/// Returns the names of the functions that follow `#[test]` in a source.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("#[test]\n").skip(1);
    after.filter_map(|text| text.trim_start().strip_prefix("fn ")?.split('(').next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_number_is_there_once_and_finds_its_tests() {
        let numbers: BTreeSet<_> = ROWS.iter().map(|(number, ..)| number).collect();
        assert_eq!(numbers.len(), ROWS.len());
        let found = tests("F16");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("`streams::f16_*` ("), "{found:?}");
        assert_eq!(tests("C99"), [""; 0]);
        // F1 is not F16.
        assert!(tests("F1").iter().all(|name| name.contains("::f01_")));
    }
}
