//! `ob-conf --check`: reports every problem of a configuration with its line and a remedy.

use crate::conf::{Conf, normal};
use crate::evaluation;
use crate::findings::Findings;
use crate::misspelt;
use crate::problem::{Problem, Weight};
use crate::stages;
use ob_confine::userns;
use ob_document::{
    Cable, Document, FREE, Hook, Kind, VARIABLES, closed, one_line, remedy_of_missing,
};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The length of NAME that subhost.conf(5) advises: it leaves three bytes for the names of links.
const ADVISED_NAME: usize = 12;

/// Returns all problems of a configuration, sorted by line.
///
/// Runs none of the commands in it, and changes nothing.
#[must_use]
pub fn problems(conf: &Conf) -> Vec<Problem> {
    let mut check = Findings::new(conf, None, misspelt::problems(conf));
    check.check_lines();
    let base = check.base();
    check.check_ownership(base.as_deref());
    check.name();
    if let Some(base) = &base {
        check.directories(base);
        check.hooks(base);
        check.shares(base);
        check.users(base);
        check.free(base);
        check.services(base);
        check.init(base);
    }
    check.cables(base.as_deref());
    check.pipeline(base.as_deref());
    check.protection(base.as_deref());
    check.ram_size();
    check.problems.sort();
    check.problems
}

/// Returns the problems that do not prevent a boot, sorted by line. `document` is the result of the
/// evaluation.
#[must_use]
pub fn passed(conf: &Conf, document: &Document) -> Vec<Problem> {
    let mut check = Findings::new(conf, Some(document), misspelt::problems(conf));
    check.check_lines();
    check.check_ownership(document.path("BASE").ok());
    if let Ok(upper) = document.path("UPPER") {
        let line = conf.assigned("UPPER").map_or(0, |upper| upper.line);
        if let Some(closed) = closed(upper) {
            check.add(Weight::Noted, line, 1, closed);
        }
        if let Some(problem) = host_root(upper) {
            check.add(Weight::Passed, line, 1, problem);
        }
    }
    check.problems.sort();
    check.problems
}

/// Returns the problem of an UPPER that is the root of the host.
fn host_root(upper: &Path) -> Option<String> {
    let is_root = upper
        .canonicalize()
        .is_ok_and(|path| path == Path::new("/"));
    is_root.then(|| {
        "UPPER is the root of the host, which the subhost would change; set UPPER to another \
         directory"
            .to_owned()
    })
}

impl Findings<'_> {
    /// Reports a missing or invalid BASE, else returns it.
    fn base(&mut self) -> Option<PathBuf> {
        let conf = self.conf;
        if self.check_command("BASE", conf.directory()) {
            return None;
        }
        let Some(assignment) = conf.assigned("BASE") else {
            self.report(0, 0, "BASE is not set; add the line BASE=.");
            return None;
        };
        let base = conf.directory().join(assignment.value());
        match base.canonicalize() {
            Ok(base) if base.is_dir() => Some(base),
            Ok(_) => {
                self.report_value(assignment, format!("{} is not a directory", base.display()));
                None
            }
            Err(error) => {
                self.report_value(assignment, format!("{}: {error}", base.display()));
                None
            }
        }
    }

    /// Reports an invalid or too long NAME.
    fn name(&mut self) {
        let conf = self.conf;
        if self.check_command("NAME", conf.directory()) {
            return;
        }
        let assigned = conf.assigned("NAME").map(|assignment| assignment.value());
        let name = assigned.unwrap_or_else(|| conf.default_name());
        if let Err(error) = Document::new(&name) {
            self.report_variable("NAME", error);
        } else if name.len() > ADVISED_NAME {
            let length = name.len();
            self.report_variable(
                "NAME",
                format!(
                    "'{name}' has {length} characters; {ADVISED_NAME} leave room for the names of \
                     links"
                ),
            );
        }
    }

    /// Reports layers that do not exist, a closed UPPER, and a WORK on another filesystem.
    fn directories(&mut self, base: &Path) {
        let mut paths = Vec::new();
        for name in ["LOWER", "UPPER", "LIVE", "WORK"] {
            if self.check_command(name, base) {
                continue;
            }
            let path = normal(base, &self.assigned_or_default(name));
            let overlay = paths.first() != paths.get(1);
            if !path.is_dir() && (name != "WORK" || overlay) {
                let remedy = if path.exists() {
                    "is not a directory".to_owned()
                } else {
                    format!("does not exist; {}", remedy_of_missing(name, &path))
                };
                self.report_variable(name, format!("{name}={} {remedy}", path.display()));
            }
            if name == "UPPER" {
                for problem in closed(&path).into_iter().chain(host_root(&path)) {
                    self.report_variable(name, problem);
                }
            }
            paths.push(path);
        }
        let [lower, upper, live, work] = &paths[..] else {
            return;
        };
        let device = |path: &Path| Some(path.metadata().ok()?.dev());
        let devices = device(upper).zip(device(work));
        if devices.is_some_and(|(upper, work)| upper != work) {
            let text = format!("WORK={} is not on the filesystem of UPPER", work.display());
            self.report_variable("WORK", text);
        }
        if lower != upper {
            self.layers_are_apart(lower, upper, live, work);
        }
    }

    /// Reports layers of an overlay that contain one another.
    fn layers_are_apart(&mut self, lower: &Path, upper: &Path, live: &Path, work: &Path) {
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
                let text =
                    format!("{name}={path} and {other_name}={other} must not contain one another");
                self.report_variable(name, text);
            }
        }
        for (name, written) in [("UPPER", upper), ("WORK", work)] {
            if is_in(lower, written) {
                let (lower, written) = (lower.display(), written.display());
                let text = format!("LOWER={lower} is {name}={written}, or lies in it");
                self.report_variable("LOWER", text);
            }
        }
    }

    /// Reports hooks that are not executable.
    fn hooks(&mut self, base: &Path) {
        for name in ["PREMOUNT", "POSTMOUNT", "INIT"] {
            if self.check_command(name, base) {
                continue;
            }
            let Some(assignment) = self.conf.assigned(name) else {
                continue;
            };
            if let Err(error) = Hook::new(&assignment.value(), base).check() {
                self.report_value(assignment, error);
            }
        }
    }

    /// Reports the commands of variables that begin with [`FREE`] that are not executable.
    fn free(&mut self, base: &Path) {
        for assignment in self.conf.assignments() {
            if assignment.name.starts_with(FREE) {
                self.check_command(assignment.name, base);
            }
        }
    }

    /// Reports shares that do not exist on the host.
    fn shares(&mut self, base: &Path) {
        let conf = self.conf;
        for assignment in conf.assignments() {
            let value = assignment.value();
            let host = value.split(':').next().unwrap_or_default();
            let is_share = ["SHARE", "SHARE_RO"].contains(&assignment.name);
            if is_share && !host.is_empty() && !base.join(host).exists() {
                self.report_value(assignment, format!("{host} does not exist on the host"));
            }
        }
    }

    /// Reports invalid words of CABLES, missing bridges, and invalid names of links.
    fn cables(&mut self, base: Option<&Path>) {
        let conf = self.conf;
        if self.check_command("CABLES", base.unwrap_or(conf.directory())) {
            return;
        }
        let Some(assignment) = conf.assigned("CABLES") else {
            return;
        };
        let mut cables = Vec::new();
        for word in assignment.value().split_whitespace() {
            match Cable::parse(word) {
                Ok(cable) => cables.push(cable),
                Err(error) => self.report_value(assignment, error),
            }
        }
        for bridge in cables.iter().filter_map(Cable::bridge) {
            let directory = Path::new("/sys/class/net").join(bridge).join("bridge");
            if !directory.exists() {
                self.report_value(assignment, format!("there is no bridge {bridge} now"));
            }
        }
        let name = conf.assigned("NAME");
        if name.is_some_and(|name| name.command().is_some()) {
            return;
        }
        let name = name.map_or_else(|| conf.default_name(), |name| name.value());
        if let Err(error) = Cable::named(&name, cables) {
            self.report_value(assignment, error);
        }
    }

    /// Reports an empty stage of PIPELINE, or a program that does not exist, at its word.
    fn pipeline(&mut self, base: Option<&Path>) {
        let conf = self.conf;
        if self.check_command("PIPELINE", base.unwrap_or(conf.directory())) {
            return;
        }
        let Some(assignment) = conf.assigned("PIPELINE") else {
            return;
        };
        let value = assignment.value();
        let words: Vec<&str> = value.split_whitespace().collect();
        let Some(fault) = stages::fault(&words, conf.directory()) else {
            return;
        };
        let raw = assignment.raw;
        let word = raw.split_whitespace().nth(fault.word);
        let offset = word.map_or(raw.trim_end().len(), |word| {
            // A slice of the line begins at this many bytes after the line.
            word.as_ptr() as usize - raw.as_ptr() as usize
        });
        let column = conf.lines[assignment.line - 1].len() - raw.len() + offset + 1;
        self.report(assignment.line, column, fault.text);
    }

    /// Reports an UPPER that users of the host can reach, if the subhost has a user namespace.
    ///
    /// A file that root inside makes setuid is setuid for those users too.
    fn users(&mut self, base: &Path) {
        let value = |name| Some(self.conf.assigned(name)?.value());
        let wanted = match (value("USERNS"), value("PROTECT")) {
            (Some(setting), _) => setting != "no" && !setting.starts_with('!'),
            (None, level) => level.as_deref() == Some("strict"),
        };
        let upper = normal(base, &self.assigned_or_default("UPPER"));
        if wanted && upper.is_dir() && userns::is_closed(&upper).is_ok_and(|closed| !closed) {
            let text = format!(
                "other users can reach {}, where a setuid file from inside is effective; \
                 chmod 700 {}",
                upper.display(),
                base.display()
            );
            self.report_variable("USERNS", text);
        }
    }

    /// Reports values that a boot would refuse.
    fn protection(&mut self, base: Option<&Path>) {
        let conf = self.conf;
        for assignment in conf.assignments() {
            let mut value = assignment.value();
            if assignment.name == "SECCOMP" && !["none", "default"].contains(&value.as_str()) {
                let Some(base) = base else { continue };
                value = normal(base, &value).display().to_string();
            }
            let is_effective = match VARIABLES.iter().find(|v| v.name == assignment.name) {
                Some(variable) if variable.kind == Kind::Lines => true,
                _ => conf
                    .assigned(assignment.name)
                    .is_some_and(|a| a.line == assignment.line),
            };
            if !is_effective || value.is_empty() || assignment.command().is_some() {
                continue;
            }
            if let Err(error) = evaluation::check(assignment.name, &value) {
                self.report_value(assignment, one_line(&error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Weight;

    fn reported(text: &str) -> Vec<(usize, usize)> {
        let conf = Conf::parse(Path::new("/a.conf"), text.as_bytes()).unwrap();
        let problems = problems(&conf).into_iter();
        problems
            .filter(|problem| problem.line > 0)
            .map(|problem| (problem.line, problem.column))
            .collect()
    }

    #[test]
    fn check_reports_each_refusal_with_its_position() {
        assert_eq!(reported("BASE=.\nLOG_MAX= 7X\nPROTECT=yes"), [(2, 10)]);
        assert_eq!(reported("BASE=.\nSTOP_TIMEOUT=soon"), [(2, 14)]);
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
