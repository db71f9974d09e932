//! The collection of the problems of one configuration, which the checks share.

use crate::conf::{Assignment, Conf};
use crate::problem::{Problem, Weight};
use ob_document::{Document, Hook, Ownership, VARIABLES};
use std::fmt::Display;
use std::path::Path;

/// The problems of a configuration that were found so far.
pub(crate) struct Findings<'a> {
    pub(crate) conf: &'a Conf,
    /// The values, if the configuration was evaluated.
    pub(crate) document: Option<&'a Document>,
    pub(crate) ownership: Ownership,
    pub(crate) problems: Vec<Problem>,
}

impl<'a> Findings<'a> {
    /// Begins with the problems that were found by other means.
    pub(crate) fn new(
        conf: &'a Conf,
        document: Option<&'a Document>,
        problems: Vec<Problem>,
    ) -> Self {
        Findings {
            conf,
            document,
            ownership: Ownership::default(),
            problems,
        }
    }

    /// Adds a problem.
    pub(crate) fn add(
        &mut self,
        weight: Weight,
        line: usize,
        column: usize,
        problem: impl Display,
    ) {
        self.problems.push(Problem {
            line,
            column,
            text: problem.to_string(),
            weight,
        });
    }

    /// Adds a problem of the weight [`Weight::Met`].
    pub(crate) fn report(&mut self, line: usize, column: usize, problem: impl Display) {
        self.add(Weight::Met, line, column, problem);
    }

    /// Adds a problem of the value of an assignment.
    pub(crate) fn report_value(&mut self, assignment: Assignment, problem: impl Display) {
        let column = self.column(assignment);
        self.report(assignment.line, column, problem);
    }

    /// Returns the column of the value of an assignment.
    pub(crate) fn column(&self, assignment: Assignment) -> usize {
        let raw = assignment.raw;
        let blanks = raw.len() - raw.trim_start().len();
        self.conf.lines[assignment.line - 1].len() - raw.len() + blanks + 1
    }

    /// Returns the value of a variable; `None` if it is not set, or is a command that was not run.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        match self.document {
            Some(document) => document.optional(name).map(str::to_owned),
            None => {
                let assignment = self.conf.assigned(name)?;
                assignment.command().is_none().then(|| assignment.value())
            }
        }
    }

    /// Adds a problem of the value of a variable. A default is on no line.
    pub(crate) fn report_variable(&mut self, name: &str, problem: impl Display) {
        match self.conf.assigned(name) {
            Some(assignment) => self.report_value(assignment, problem),
            None => self.report(0, 0, problem),
        }
    }

    /// Returns whether the value of a variable is a command. Does not run the command, but adds a
    /// problem if it is not executable.
    pub(crate) fn check_command(&mut self, name: &str, directory: &Path) -> bool {
        let conf = self.conf;
        let Some(assignment) = conf.assigned(name) else {
            return false;
        };
        let Some(command) = assignment.command() else {
            return false;
        };
        if let Err(error) = Hook::new(&command, directory).check() {
            self.report_value(assignment, error);
        }
        true
    }

    /// Returns the text that is assigned to a variable, or its default.
    pub(crate) fn assigned_or_default(&self, name: &str) -> String {
        let default = || {
            VARIABLES
                .iter()
                .find(|variable| variable.name == name)?
                .default
        };
        let assigned = self
            .conf
            .assigned(name)
            .map(|assignment| assignment.value());
        assigned.unwrap_or_else(|| default().unwrap_or_default().to_owned())
    }
}
