//! `ob-conf --check`: every problem of a configuration, where it stands, and what to do about it.

use crate::conf::{self, Assignment, Conf, normal};
use ob_confine::userns;
use ob_document::{Cable, Document, Hook, Kind, VARIABLES, closed, doubt, nearest, sentence};
use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The manual's advice for the length of NAME: then NAME0.4094 is a possible name of a link.
const ADVISED_NAME: usize = 12;

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line, from 1; 0 if it is one of the file as a whole.
    pub line: usize,
    /// The byte of the line, from 1; one behind the last if something is missing there.
    pub column: usize,
    /// What is wrong, and the remedy.
    pub text: String,
}

/// The problems found so far.
struct Check<'a> {
    conf: &'a Conf,
    problems: Vec<Problem>,
}

/// All problems of the configuration, sorted by line. Runs none of its commands, and changes nothing.
#[must_use]
pub fn problems(conf: &Conf) -> Vec<Problem> {
    let mut check = Check {
        conf,
        problems: Vec::new(),
    };
    check.syntax();
    check.repetitions();
    check.permissions(0, &conf.path);
    let base = check.base();
    check.name();
    if let Some(base) = &base {
        check.directories(base);
        check.hooks(base);
        check.shares(base);
        check.users(base);
    }
    check.cables();
    check.protection(base.as_deref());
    check.problems.sort();
    check.problems
}

impl Problem {
    /// It as it is printed: a line, then that of the configuration with a mark below the column.
    #[must_use]
    pub fn shown(&self, conf: &Conf) -> String {
        let (file, line, column) = (conf.path.display(), self.line, self.column);
        let text = &self.text;
        if line == 0 {
            return format!("{file}: {text}\n");
        }
        let shown = conf.lines[line - 1].replace('\t', " ");
        let before = shown[..column - 1].chars().count();
        format!(
            "{file}:{line}:{column}: {text}\n    {shown}\n    {:before$}^\n",
            ""
        )
    }
}

impl Check<'_> {
    fn tell(&mut self, line: usize, column: usize, problem: impl Display) {
        self.problems.push(Problem {
            line,
            column,
            text: problem.to_string(),
        });
    }

    fn tell_value(&mut self, assignment: Assignment, problem: impl Display) {
        let raw = assignment.raw;
        let blanks = raw.len() - raw.trim_start().len();
        let column = self.conf.lines[assignment.line - 1].len() - raw.len() + blanks + 1;
        self.tell(assignment.line, column, problem);
    }

    /// Tells the problem of the variable's value, or if it has none the problem of its default, which stands on no line.
    fn tell_variable(&mut self, name: &str, problem: impl Display) {
        match self.conf.assigned(name) {
            Some(assignment) => self.tell_value(assignment, problem),
            None => self.tell(0, 0, problem),
        }
    }

    /// Lines that look like assignments and are none, and values that look like a shell's.
    fn syntax(&mut self) {
        let conf = self.conf;
        for (index, line) in conf.lines.iter().enumerate() {
            let bare = line.trim_start_matches(['\u{feff}', ' ', '\t']);
            let bare = bare.strip_prefix("export ").unwrap_or(bare).trim_start();
            let Some((word, _)) = bare.split_once('=') else {
                if !bare.trim().is_empty() && !bare.starts_with('#') {
                    self.tell(
                        index + 1,
                        1,
                        "is no assignment; write VAR=value, or # before a remark",
                    );
                }
                continue;
            };
            let name = word.trim_end();
            if bare.len() == line.len() && (name == word || name == "SHARE")
                || name.starts_with('#')
            {
                continue;
            }
            if VARIABLES.iter().any(|variable| variable.name == name) {
                self.tell(
                    index + 1,
                    1,
                    format!("is ignored: {name}= must stand at the first column, with nothing before the ="),
                );
            }
        }
        for assignment in conf.assignments() {
            let known = VARIABLES.iter().map(|variable| variable.name);
            if !known.clone().any(|name| name == assignment.name) {
                let name = assignment.name;
                let meant = nearest(name, known)
                    .map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                self.tell(
                    assignment.line,
                    1,
                    format!("{name} is not a variable{meant}"),
                );
                continue;
            }
            if assignment.command().is_some() {
                continue;
            }
            let value = assignment.value();
            if value.starts_with(['"', '\'']) {
                self.tell_value(
                    assignment,
                    "the quotes are part of the value; leave them out",
                );
            } else if value.contains(['$', '`']) || value.starts_with('~') {
                self.tell_value(assignment, "is taken as it stands; nothing is expanded");
            } else if value.contains(" #") {
                self.tell_value(
                    assignment,
                    "the remark is part of the value; give it a line of its own",
                );
            } else if assignment.raw.contains('\\') {
                self.tell_value(assignment, "a backslash is dropped; write two for one");
            }
        }
    }

    /// Variables that are assigned again: the first counts.
    fn repetitions(&mut self) {
        let conf = self.conf;
        let mut seen: Vec<Assignment> = Vec::new();
        for assignment in conf.assignments() {
            let known = VARIABLES
                .iter()
                .find(|variable| variable.name == assignment.name);
            if known.is_none_or(|variable| variable.kind == Kind::Lines) {
                continue;
            }
            match seen.iter().find(|first| first.name == assignment.name) {
                Some(first) => {
                    let line = first.line;
                    let name = assignment.name;
                    self.tell(
                        assignment.line,
                        1,
                        format!("is ignored: {name} is assigned on line {line} already"),
                    );
                }
                None => seen.push(assignment),
            }
        }
    }

    /// A value that is a command is not run: only whether it could be is looked at.
    fn is_command(&mut self, name: &str, directory: &Path) -> bool {
        let conf = self.conf;
        let Some(assignment) = conf.assigned(name) else {
            return false;
        };
        let Some(command) = assignment.command() else {
            return false;
        };
        if let Err(error) = Hook::new(&command, directory).check() {
            self.tell_value(assignment, error);
        }
        true
    }

    fn base(&mut self) -> Option<PathBuf> {
        let conf = self.conf;
        if self.is_command("BASE", Path::new(".")) {
            return None;
        }
        let Some(assignment) = conf.assigned("BASE") else {
            self.tell(0, 0, "BASE is not set; add the line BASE=.");
            return None;
        };
        let base = conf.directory().join(assignment.value());
        match base.canonicalize() {
            Ok(base) if base.is_dir() => {
                self.permissions(assignment.line, &base);
                Some(base)
            }
            Ok(_) => {
                self.tell_value(assignment, format!("{} is not a directory", base.display()));
                None
            }
            Err(error) => {
                self.tell_value(assignment, format!("{}: {error}", base.display()));
                None
            }
        }
    }

    fn name(&mut self) {
        if self.is_command("NAME", Path::new(".")) {
            return;
        }
        let conf = self.conf;
        let assigned = conf.assigned("NAME").map(|assignment| assignment.value());
        let name = assigned.unwrap_or_else(|| conf.default_name());
        if let Err(error) = Document::new(&name) {
            self.tell_variable("NAME", error);
        } else if name.len() > ADVISED_NAME {
            let length = name.len();
            self.tell_variable(
                "NAME",
                format!("'{name}' has {length} characters; {ADVISED_NAME} leave room for the names of links"),
            );
        }
    }

    fn directories(&mut self, base: &Path) {
        let mut paths = Vec::new();
        for name in ["LOWER", "UPPER", "LIVE", "WORK"] {
            if self.is_command(name, base) {
                continue;
            }
            let assigned = self
                .conf
                .assigned(name)
                .map(|assignment| assignment.value());
            let default = VARIABLES.iter().find(|variable| variable.name == name);
            let value = assigned
                .unwrap_or_else(|| default.and_then(|v| v.default).unwrap_or("").to_owned());
            let path = normal(base, &value);
            let overlay = paths.first() != paths.get(1);
            if !path.is_dir() && (name != "WORK" || overlay) {
                let remedy = if path.exists() {
                    "is not a directory".to_owned()
                } else {
                    format!("does not exist; mkdir {}", path.display())
                };
                self.tell_variable(name, format!("{name}={} {remedy}", path.display()));
            }
            if let Some(closed) = closed(&path).filter(|_| name == "UPPER") {
                self.tell_variable(name, closed);
            }
            paths.push(path);
        }
        let [lower, upper, live, work] = &paths[..] else {
            return;
        };
        if let (Ok(upper), Ok(there)) = (upper.metadata(), work.metadata())
            && upper.dev() != there.dev()
        {
            let text = format!("WORK={} is not on the filesystem of UPPER", work.display());
            self.tell_variable("WORK", text);
        }
        if lower == upper {
            return;
        }
        let is_in = |one: &Path, other: &Path| match (one.canonicalize(), other.canonicalize()) {
            (Ok(one), Ok(other)) => one.starts_with(other),
            _ => false,
        };
        for (name, path, other_name, other) in [
            ("WORK", work, "UPPER", upper),
            ("LIVE", live, "UPPER", upper),
            ("LIVE", live, "WORK", work),
        ] {
            if is_in(path, other) || is_in(other, path) {
                let (path, other) = (path.display(), other.display());
                let text = format!(
                    "{name}={path} and {other_name}={other} lie one in the other; they must stand side by side"
                );
                self.tell_variable(name, text);
            }
        }
        for (name, written) in [("UPPER", upper), ("WORK", work)] {
            if is_in(lower, written) {
                let (lower, written) = (lower.display(), written.display());
                let text = format!("LOWER={lower} is {name}={written}, or lies in it");
                self.tell_variable("LOWER", text);
            }
        }
    }

    fn hooks(&mut self, base: &Path) {
        for name in ["PREMOUNT", "POSTMOUNT", "INIT"] {
            if self.is_command(name, base) {
                continue;
            }
            if let Some(assignment) = self.conf.assigned(name)
                && let Err(error) = Hook::new(&assignment.value(), base).check()
            {
                self.tell_value(assignment, error);
            }
        }
    }

    fn shares(&mut self, base: &Path) {
        let conf = self.conf;
        for assignment in conf.assignments() {
            let value = assignment.value();
            let host = value.split(':').next().unwrap_or_default();
            let is_share = ["SHARE", "SHARE_RO"].contains(&assignment.name);
            if is_share && !host.is_empty() && !base.join(host).exists() {
                self.tell_value(assignment, format!("{host} does not exist on the host"));
            }
        }
    }

    fn cables(&mut self) {
        if self.is_command("CABLES", Path::new(".")) {
            return;
        }
        let conf = self.conf;
        let Some(assignment) = conf.assigned("CABLES") else {
            return;
        };
        let mut cables = Vec::new();
        for word in assignment.value().split_whitespace() {
            match Cable::parse(word) {
                Ok(cable) => cables.push(cable),
                Err(error) => self.tell_value(assignment, error),
            }
        }
        for cable in &cables {
            let (Cable::Pair { bridge, .. } | Cable::Vlan { bridge, .. }) = cable;
            if let Some(bridge) = bridge
                && !Path::new("/sys/class/net")
                    .join(bridge)
                    .join("bridge")
                    .exists()
            {
                self.tell_value(assignment, format!("there is no bridge {bridge} now"));
            }
        }
        let name = conf.assigned("NAME").map(|assignment| assignment.value());
        let name = name.unwrap_or_else(|| conf.default_name());
        if let Err(error) = Cable::links(&name, &cables) {
            self.tell_value(assignment, error);
        }
    }

    /// What root makes in a user namespace must be out of the reach of others.
    fn users(&mut self, base: &Path) {
        let value = |name| Some(self.conf.assigned(name)?.value());
        let wanted = match (value("USERNS"), value("PROTECT")) {
            (Some(wish), _) => wish != "no" && !wish.starts_with('!'),
            (None, level) => level.as_deref() == Some("strict"),
        };
        let upper = value("UPPER").unwrap_or_else(|| "root".to_owned());
        let upper = normal(base, &upper);
        if wanted && upper.is_dir() && userns::is_closed(&upper).is_ok_and(|closed| !closed) {
            let text = format!(
                "others can reach {}, where a setuid file made inside is real; chmod 700 {}",
                upper.display(),
                base.display()
            );
            self.tell_variable("USERNS", text);
        }
    }

    /// Values that boot would refuse.
    fn protection(&mut self, base: Option<&Path>) {
        let conf = self.conf;
        for assignment in conf.assignments() {
            let mut value = assignment.value();
            if assignment.name == "SECCOMP" && !["none", "default"].contains(&value.as_str()) {
                let Some(base) = base else { continue };
                value = normal(base, &value).display().to_string();
            }
            let counts = match VARIABLES.iter().find(|v| v.name == assignment.name) {
                Some(variable) if variable.kind == Kind::Lines => true,
                _ => conf
                    .assigned(assignment.name)
                    .is_some_and(|a| a.line == assignment.line),
            };
            if counts
                && !value.is_empty()
                && assignment.command().is_none()
                && let Err(error) = conf::check(assignment.name, &value)
            {
                self.tell_value(assignment, sentence(&error));
            }
        }
    }

    /// What others may write is theirs to say what root runs.
    fn permissions(&mut self, line: usize, path: &Path) {
        if let Some(doubt) = doubt(path) {
            self.tell(line, 1, doubt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(usize, usize)> {
        let conf = Conf::parse(Path::new("/a.conf"), text.as_bytes()).unwrap();
        let problems = problems(&conf).into_iter();
        problems
            .filter(|problem| problem.line > 0)
            .map(|problem| (problem.line, problem.column))
            .collect()
    }

    #[test]
    fn what_boot_would_refuse_is_told_with_its_place() {
        assert_eq!(told("BASE=.\nLOG_MAX= 7X\nPROTECT=yes"), [(2, 10)]);
        assert_eq!(told("BASE=.\nSTOP_TIMEOUT=soon"), [(2, 14)]);
    }

    #[test]
    fn the_mark_stands_below_the_value_also_behind_letters_of_many_bytes() {
        let conf = Conf::parse(Path::new("/a.conf"), "ä=".as_bytes()).unwrap();
        let (line, column, text) = (1, 4, "x".to_owned());
        let problem = Problem { line, column, text };
        assert_eq!(problem.shown(&conf), "/a.conf:1:4: x\n    ä=\n      ^\n");
    }
}
