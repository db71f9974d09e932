//! The check of the lines of a configuration.

use crate::conf::Assignment;
use crate::findings::Findings;
use crate::problem::{Weight, unknown_variable};
use ob_document::{FREE, Kind, VARIABLES};

impl Findings<'_> {
    /// Reports lines that are not assignments but look similar, unknown variables, variables that
    /// are assigned twice, and values with shell syntax.
    pub(crate) fn check_lines(&mut self) {
        let refused: Vec<usize> = self.problems.iter().map(|problem| problem.line).collect();
        let conf = self.conf;
        for (index, line) in conf.lines.iter().enumerate() {
            if !refused.contains(&(index + 1)) {
                self.check_ignored(index + 1, line);
            }
        }
        let mut seen: Vec<Assignment> = Vec::new();
        for assignment in conf.assignments() {
            let Assignment { line, name, .. } = assignment;
            if refused.contains(&line) {
                continue;
            }
            let variable = VARIABLES.iter().find(|variable| variable.name == name);
            if variable.is_none() && !name.starts_with(FREE) {
                self.add(Weight::Passed, line, 1, unknown_variable(name));
                continue;
            }
            let first = seen.iter().find(|first| first.name == name);
            match first.map(|first| first.line) {
                Some(first) if variable.is_none_or(|known| known.kind != Kind::Lines) => {
                    let text = format!("is ignored: {name} is assigned on line {first} already");
                    self.add(Weight::Noted, line, 1, text);
                    continue;
                }
                _ => seen.push(assignment),
            }
            // The program that uses a free variable may read shell syntax.
            if let Some(text) = variable.and_then(|_| self.odd(assignment)) {
                let column = self.column(assignment);
                self.add(Weight::Passed, line, column, text);
            }
        }
    }

    /// Reports a line that is ignored although it looks like an assignment.
    fn check_ignored(&mut self, number: usize, line: &str) {
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

    /// Returns the problem of a value with the syntax of a shell: values are literal.
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
            Some("the remark is part of the value; put it on a separate line")
        } else if assignment.raw.contains('\\') && !is_printed {
            Some("a backslash is dropped; write two for one")
        } else {
            None
        }
    }
}
