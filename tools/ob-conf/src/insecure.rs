//! The check of the owners and modes of the files that a configuration names.

use crate::conf::normal;
use crate::findings::Findings;
use crate::problem::Weight;
use crate::stages;
use ob_document::Hook;
use std::path::Path;

impl Findings<'_> {
    /// Reports each file that another user can change and that decides which programs root runs.
    pub(crate) fn check_ownership(&mut self, base: Option<&Path>) {
        let conf = self.conf;
        self.check_file(0, &conf.path);
        if let Some(base) = base {
            self.check_file(self.line("BASE"), base);
        }
        self.check_commands(base);
        let log = self
            .value("LOG")
            .and_then(|log| std::path::absolute(log).ok());
        if let Some(directory) = log.as_deref().and_then(Path::parent) {
            self.check_file(self.line("LOG"), directory);
        }
        if let Some(base) = base {
            self.check_hooks_and_profile(base);
        }
    }

    /// Reports each command of a value `!COMMAND` that another user can change.
    fn check_commands(&mut self, base: Option<&Path>) {
        let conf = self.conf;
        for assignment in conf.assignments() {
            let directory = match assignment.name {
                "NAME" | "LOG" | "BASE" => Some(conf.directory()),
                _ => base,
            };
            let (Some(command), Some(directory)) = (assignment.command(), directory) else {
                continue;
            };
            if let Some(program) = Hook::new(&command, directory).program() {
                self.check_file(assignment.line, &program);
            }
        }
    }

    /// Reports each hook and stage, and the seccomp profile, if another user can change it.
    fn check_hooks_and_profile(&mut self, base: &Path) {
        for name in ["PREMOUNT", "POSTMOUNT", "INIT"] {
            if let Some(program) = self
                .value(name)
                .and_then(|hook| Hook::new(&hook, base).program())
            {
                self.check_file(self.line(name), &program);
            }
        }
        let stages = match self.document {
            Some(document) => document.list("PIPELINE").unwrap_or_default().join(" "),
            None => self.value("PIPELINE").unwrap_or_default(),
        };
        for program in stages::programs(&stages, self.conf.directory()) {
            self.check_file(self.line("PIPELINE"), &program);
        }
        let profile = self.value("SECCOMP");
        if let Some(path) = profile.filter(|value| !["none", "default"].contains(&value.as_str())) {
            self.check_file(self.line("SECCOMP"), &normal(base, &path));
        }
    }

    /// Returns the line of a variable; 0 if it is not assigned.
    fn line(&self, name: &str) -> usize {
        let assigned = self.conf.assigned(name);
        assigned.map_or(0, |assignment| assignment.line)
    }

    /// Reports each reason why another user can change the file at `path`.
    fn check_file(&mut self, line: usize, path: &Path) {
        for reason in self.ownership.reasons(path) {
            self.add(Weight::Passed, line, 1, reason);
        }
    }
}
