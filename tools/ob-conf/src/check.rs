//! `ob-conf --check`: every problem of a configuration, where it stands, and what to do about it.

use crate::conf::{self, Assignment, Conf, normal};
use crate::misspelt::{self, FREE};
use ob_confine::userns;
use ob_document::{
    Cable, Document, Hook, Kind, Ownership, VARIABLES, closed, closest, one_line, printable,
};
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
    /// How a boot treats it.
    pub weight: Weight,
}

/// How a boot treats a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It is refused: a protection would be missing.
    Refused,
    /// It fails, or reports the problem itself, where that matters.
    Met,
    /// It goes on, so the problem is reported.
    Passed,
    /// It goes on, as documented; the log alone has the problem.
    Noted,
}

/// The problems found so far.
struct Check<'a> {
    conf: &'a Conf,
    /// The values, if the commands in the configuration were run.
    document: Option<&'a Document>,
    trust: Ownership,
    problems: Vec<Problem>,
}

/// All problems of the configuration, sorted by line. Runs none of its commands, and changes nothing.
#[must_use]
pub fn problems(conf: &Conf) -> Vec<Problem> {
    let mut check = Check::new(conf, None);
    check.text();
    let base = check.base();
    check.trust(base.as_deref());
    check.name();
    if let Some(base) = &base {
        check.directories(base);
        check.hooks(base);
        check.shares(base);
        check.users(base);
    }
    check.cables(base.as_deref());
    check.protection(base.as_deref());
    check.problems.sort();
    check.problems
}

/// The problems that a boot of the configuration passes over, which has come to `document`. Sorted
/// by line.
#[must_use]
pub fn passed(conf: &Conf, document: &Document) -> Vec<Problem> {
    let mut check = Check::new(conf, Some(document));
    check.text();
    check.trust(document.path("BASE").ok());
    check.problems.sort();
    check.problems
}

impl Problem {
    /// It as it is printed: a line, then that of the configuration with a mark below the column.
    #[must_use]
    pub fn shown(&self, conf: &Conf) -> String {
        let file = printable(&conf.path.to_string_lossy());
        let (line, column, text) = (self.line, self.column, printable(&self.text));
        if line == 0 {
            return format!("{file}: {text}\n");
        }
        let shown = &conf.lines[line - 1];
        let before = shown[..column - 1].chars().count();
        let shown = printable(&shown.trim_end_matches('\r').replace('\t', " "));
        format!(
            "{file}:{line}:{column}: {text}\n    {shown}\n    {:before$}^\n",
            ""
        )
    }

    /// Returns the problem as one line that begins with `FILE:LINE: `.
    #[must_use]
    pub fn line(&self, conf: &Conf) -> String {
        let (file, line, text) = (conf.path.display(), self.line, &self.text);
        match line {
            0 => format!("{file}: {text}"),
            line => format!("{file}:{line}: {text}"),
        }
    }
}

impl<'a> Check<'a> {
    fn new(conf: &'a Conf, document: Option<&'a Document>) -> Self {
        Check {
            conf,
            document,
            trust: Ownership::default(),
            problems: misspelt::problems(conf),
        }
    }

    fn add(&mut self, weight: Weight, line: usize, column: usize, problem: impl Display) {
        self.problems.push(Problem {
            line,
            column,
            text: problem.to_string(),
            weight,
        });
    }

    /// Adds a problem that a boot meets.
    fn tell(&mut self, line: usize, column: usize, problem: impl Display) {
        self.add(Weight::Met, line, column, problem);
    }

    fn tell_value(&mut self, assignment: Assignment, problem: impl Display) {
        let column = self.column(assignment);
        self.tell(assignment.line, column, problem);
    }

    /// Where the value of an assignment begins.
    fn column(&self, assignment: Assignment) -> usize {
        let raw = assignment.raw;
        let blanks = raw.len() - raw.trim_start().len();
        self.conf.lines[assignment.line - 1].len() - raw.len() + blanks + 1
    }

    /// The text that counts as the value of a variable; none if it is a command that was not run.
    fn value(&self, name: &str) -> Option<String> {
        match self.document {
            Some(document) => document.optional(name).map(str::to_owned),
            None => {
                let assignment = self.conf.assigned(name)?;
                assignment.command().is_none().then(|| assignment.value())
            }
        }
    }

    /// Tells the problem of the variable's value, or if it has none the problem of its default, which stands on no line.
    fn tell_variable(&mut self, name: &str, problem: impl Display) {
        match self.conf.assigned(name) {
            Some(assignment) => self.tell_value(assignment, problem),
            None => self.tell(0, 0, problem),
        }
    }

    /// What the text itself has: lines that look like assignments and are none, values that look
    /// like those of a shell, and variables that are assigned again.
    fn text(&mut self) {
        let refused: Vec<usize> = self.problems.iter().map(|problem| problem.line).collect();
        let conf = self.conf;
        for (index, line) in conf.lines.iter().enumerate() {
            if !refused.contains(&(index + 1)) {
                self.ignored(index + 1, line);
            }
        }
        let mut seen: Vec<Assignment> = Vec::new();
        for assignment in conf.assignments() {
            let Assignment { line, name, .. } = assignment;
            if refused.contains(&line) || name.starts_with(FREE) {
                continue;
            }
            let Some(variable) = VARIABLES.iter().find(|variable| variable.name == name) else {
                let known = VARIABLES.iter().map(|variable| variable.name);
                let remedy = match closest(name, known) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("begin the name of one of your own with {FREE}"),
                };
                let text = format!("{name} is not a variable; {remedy}");
                self.add(Weight::Passed, line, 1, text);
                continue;
            };
            let first = seen.iter().find(|first| first.name == name);
            match first.map(|first| first.line) {
                Some(first) if variable.kind != Kind::Lines => {
                    let text = format!("is ignored: {name} is assigned on line {first} already");
                    self.add(Weight::Noted, line, 1, text);
                    continue;
                }
                _ => seen.push(assignment),
            }
            if let Some(text) = self.odd(assignment) {
                let column = self.column(assignment);
                self.add(Weight::Passed, line, column, text);
            }
        }
    }

    /// A line that looks like an assignment and is none.
    fn ignored(&mut self, number: usize, line: &str) {
        let bare = line.trim_start_matches(['\u{feff}', ' ', '\t']);
        let bare = bare.strip_prefix("export ").unwrap_or(bare).trim_start();
        let Some((word, _)) = bare.split_once('=') else {
            if !bare.trim().is_empty() && !bare.starts_with('#') {
                let text = "is no assignment; write VAR=value, or # before a remark";
                self.add(Weight::Passed, number, 1, text);
            }
            return;
        };
        let name = word.trim_end();
        let is_assignment = bare.len() == line.len() && (name == word || name == "SHARE");
        if !is_assignment && VARIABLES.iter().any(|variable| variable.name == name) {
            let text = format!(
                "is ignored: {name}= must stand at the first column, with nothing before the ="
            );
            self.add(Weight::Passed, number, 1, text);
        }
    }

    /// Returns why a value, which is literal, looks wrong.
    fn odd(&self, assignment: Assignment) -> Option<&'static str> {
        let is_printed = assignment.command().is_some();
        let value = if is_printed {
            let mut variables = self.document?.variables();
            variables.find(|(name, _)| *name == assignment.name)?.1
        } else {
            assignment.value()
        };
        if value.starts_with(['"', '\'']) {
            Some("the quotes are part of the value; leave them out")
        } else if value.contains(['$', '`']) || value.starts_with('~') {
            Some("is taken as it stands; nothing is expanded")
        } else if value.contains(" #") {
            Some("the remark is part of the value; give it a line of its own")
        } else if assignment.raw.contains('\\') && !is_printed {
            Some("a backslash is dropped; write two for one")
        } else {
            None
        }
    }

    /// Reports the files that decide which programs root runs and that another user can change.
    fn trust(&mut self, base: Option<&Path>) {
        let conf = self.conf;
        self.judge(0, &conf.path);
        let line = |name: &str| conf.assigned(name).map_or(0, |assignment| assignment.line);
        if let Some(base) = base {
            self.judge(line("BASE"), base);
        }
        for assignment in conf.assignments() {
            let directory = match assignment.name {
                "NAME" | "LOG" | "BASE" => Some(conf.directory()),
                _ => base,
            };
            if let (Some(command), Some(directory)) = (assignment.command(), directory)
                && let Some(program) = Hook::new(&command, directory).program()
            {
                self.judge(assignment.line, &program);
            }
        }
        if let Some(log) = self.value("LOG")
            && let Ok(log) = std::path::absolute(log)
            && let Some(directory) = log.parent()
        {
            self.judge(line("LOG"), directory);
        }
        let Some(base) = base else { return };
        for name in ["PREMOUNT", "POSTMOUNT", "INIT"] {
            if let Some(program) = self
                .value(name)
                .and_then(|hook| Hook::new(&hook, base).program())
            {
                self.judge(line(name), &program);
            }
        }
        if let Some(profile) = self.value("SECCOMP")
            && !["none", "default"].contains(&profile.as_str())
        {
            self.judge(line("SECCOMP"), &normal(base, &profile));
        }
    }

    fn judge(&mut self, line: usize, path: &Path) {
        for reason in self.trust.reasons(path) {
            self.add(Weight::Passed, line, 1, reason);
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
        if self.is_command("BASE", conf.directory()) {
            return None;
        }
        let Some(assignment) = conf.assigned("BASE") else {
            self.tell(0, 0, "BASE is not set; add the line BASE=.");
            return None;
        };
        let base = conf.directory().join(assignment.value());
        match base.canonicalize() {
            Ok(base) if base.is_dir() => Some(base),
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
        let conf = self.conf;
        if self.is_command("NAME", conf.directory()) {
            return;
        }
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
        if let [_, upper, _, work] = &paths[..]
            && let (Ok(upper), Ok(there)) = (upper.metadata(), work.metadata())
            && upper.dev() != there.dev()
        {
            let text = format!("WORK={} is not on the filesystem of UPPER", work.display());
            self.tell_variable("WORK", text);
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

    fn cables(&mut self, base: Option<&Path>) {
        let conf = self.conf;
        if self.is_command("CABLES", base.unwrap_or(conf.directory())) {
            return;
        }
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
        let name = conf.assigned("NAME");
        if name.is_some_and(|name| name.command().is_some()) {
            return;
        }
        let name = name.map_or_else(|| conf.default_name(), |name| name.value());
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
                self.tell_value(assignment, one_line(&error));
            }
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
    fn check_reports_each_refusal_with_its_position() {
        assert_eq!(told("BASE=.\nLOG_MAX= 7X\nPROTECT=yes"), [(2, 10)]);
        assert_eq!(told("BASE=.\nSTOP_TIMEOUT=soon"), [(2, 14)]);
    }

    #[test]
    fn caret_is_below_the_value_after_multibyte_letters() {
        let conf = Conf::parse(Path::new("/a.conf"), "ä=".as_bytes()).unwrap();
        let (line, column, text) = (1, 4, "x".to_owned());
        let problem = Problem {
            line,
            column,
            text,
            weight: Weight::Met,
        };
        assert_eq!(problem.shown(&conf), "/a.conf:1:4: x\n    ä=\n      ^\n");
    }
}
