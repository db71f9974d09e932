//! The problems of a configuration, and their output.

use crate::conf::Conf;
use ob_document::{FREE, VARIABLES, closest, printable};

/// A problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The number of the line, from 1; 0 for a problem of the whole file.
    pub line: usize,
    /// The byte in the line, from 1; one past the last byte if a text is missing there.
    pub column: usize,
    /// The reason and the remedy.
    pub text: String,
    /// The effect on a boot.
    pub weight: Weight,
}

/// The effect of a problem on a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The boot is refused: a protection would be missing.
    Refused,
    /// The boot fails, or reports the problem itself.
    Met,
    /// The boot continues, so a warning is printed and logged.
    Passed,
    /// The boot continues, as documented, so a warning is only logged.
    Noted,
}

/// Returns the reason why `name` cannot be assigned, and the remedy.
#[must_use]
pub fn unknown_variable(name: &str) -> String {
    let known = VARIABLES.iter().map(|variable| variable.name);
    let remedy = match closest(name, known) {
        Some(known) => format!("did you mean {known}?"),
        None => format!("begin the name of a variable for other programs with {FREE}"),
    };
    format!("{name} is not a variable; {remedy}")
}

impl Problem {
    /// Returns the problem, and the line of the configuration with a mark below the column.
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
