//! The syntax of a configuration, subhost.conf(5).
//!
//! A line that begins with `VAR=` at the first column is an assignment. Values are literal: there
//! is no quoting, no expansion and no comment after a value. A backslash is removed and the
//! character after it kept. `!COMMAND` stands for the first line of the output of the command.

use anyhow::{Context, Result, bail, ensure};
use ob_document::{Ownership, confid};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The text of a configuration.
pub struct Conf {
    /// The absolute path. Symbolic links are not resolved: the default of NAME is the given file
    /// name.
    pub path: PathBuf,
    /// The lines, without the newlines.
    pub lines: Vec<String>,
    /// The device and the inode of the file, `DEV:INO`; `None` if the text is not from a file.
    pub confid: Option<String>,
}

/// An assignment of a value to a variable.
#[derive(Clone, Copy)]
pub struct Assignment<'a> {
    /// The number of the line, from 1.
    pub line: usize,
    /// The variable.
    pub name: &'a str,
    /// The text after the `=`.
    pub raw: &'a str,
}

impl Conf {
    /// Reads a file. Fails if it is a directory, or with the number of the line that is not UTF-8.
    pub fn read(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let mut file = File::open(path).with_context(context)?;
        let status = file.metadata().with_context(context)?;
        ensure!(!status.is_dir(), "{}: is a directory", path.display());
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(context)?;
        Ok(Conf {
            confid: Some(confid(&status)),
            ..Conf::parse(path, &bytes)?
        })
    }

    /// Like [`Conf::read`], for a command that only looks at a subhost.
    ///
    /// Also fails, before the file is read, if another user can change it or it is not a regular
    /// file.
    pub fn look(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let reasons = Ownership::default().reasons(&std::path::absolute(path)?);
        refuse_insecure(path, &reasons)?;
        ensure!(
            path.metadata().with_context(context)?.is_file(),
            "{}: is no regular file",
            path.display()
        );
        Conf::read(path)
    }

    /// Like [`Conf::read`], for the content of the file at `path`.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let lines = bytes.split(|byte| *byte == b'\n').enumerate();
        let lines: Result<Vec<String>> = lines
            .map(|(index, line)| {
                let line = std::str::from_utf8(line)
                    .ok()
                    .filter(|line| !line.contains('\0'));
                line.map(str::to_owned)
                    .with_context(|| format!("{}:{}: not UTF-8 text", path.display(), index + 1))
            })
            .collect();
        Ok(Conf {
            path: std::path::absolute(path).with_context(|| path.display().to_string())?,
            lines: lines?,
            confid: None,
        })
    }

    /// Returns all assignments, of unknown variables too, in order.
    pub fn assignments(&self) -> impl Iterator<Item = Assignment<'_>> {
        self.lines.iter().enumerate().filter_map(|(index, line)| {
            let (name, raw) = line.split_once('=')?;
            // Only SHARE may have blanks before the =.
            let name = if name.trim_end_matches(' ') == "SHARE" {
                "SHARE"
            } else {
                name
            };
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            (!name.is_empty() && name.chars().all(word)).then_some(Assignment {
                line: index + 1,
                name,
                raw,
            })
        })
    }

    /// Returns the first assignment of the variable `name`, which takes effect; `None` if its value
    /// is empty.
    pub fn assigned(&self, name: &str) -> Option<Assignment<'_>> {
        self.assignments()
            .find(|assignment| assignment.name == name)
            .filter(|assignment| !assignment.value().is_empty())
    }

    /// Returns the directory of the file, against which a relative BASE is resolved.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Returns `error` with the prefix `FILE:LINE: `.
    pub fn at(&self, line: usize, error: anyhow::Error) -> anyhow::Error {
        error.context(format!("{}:{line}", self.path.display()))
    }

    /// Returns the default of NAME: the name of the file without `.conf`.
    pub fn default_name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(".conf").unwrap_or(&name).to_owned()
    }
}

impl Assignment<'_> {
    /// Returns the value: trimmed, and without the backslashes.
    pub fn value(&self) -> String {
        let blank: &[char] = if self.name == "SHARE" {
            &[' ', '\r']
        } else {
            &[' ', '\t', '\r']
        };
        let mut value = String::new();
        let mut characters = self.raw.trim_matches(blank).chars();
        while let Some(character) = characters.next() {
            if character == '\\' {
                value.extend(characters.next());
            } else {
                value.push(character);
            }
        }
        value
    }

    /// Returns the command of a value `!COMMAND`; `None` for another value, and for SHARE.
    pub fn command(&self) -> Option<String> {
        let value = self.value();
        let command = value.strip_prefix('!').filter(|_| self.name != "SHARE")?;
        Some(command.trim_start().to_owned())
    }
}

/// Returns `path` below `base` without `.` and without doubled and trailing slashes, so that two
/// spellings of a path are equal.
pub fn normal(base: &Path, path: &str) -> PathBuf {
    base.join(path).components().collect()
}

/// Fails with the first of `reasons` why the configuration `conf` or its layers are insecure.
pub(crate) fn refuse_insecure(conf: &Path, reasons: &[String]) -> Result<()> {
    match reasons.first() {
        Some(reason) => bail!("{}: is not trusted: {reason}", conf.display()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(lines: &str) -> Conf {
        Conf {
            path: "/opt/mta.conf".into(),
            lines: lines.split('\n').map(str::to_owned).collect(),
            confid: None,
        }
    }

    fn value(line: &str) -> String {
        let conf = conf(line);
        conf.assignments().next().unwrap().value()
    }

    #[test]
    fn values_are_literal_and_trimmed() {
        assert_eq!(value("A= \t x  y \r"), "x  y");
        assert_eq!(value("A=\"$x\" `y` ~ # z"), "\"$x\" `y` ~ # z");
        assert_eq!(value(r"A=a\tb\\c"), r"atb\c");
    }

    #[test]
    fn only_plain_assignments_at_column_1_count() {
        let conf =
            conf("# c\n BASE=1\nexport BASE=2\nBASE =3\nBASE=4\nBASE=5\nSHARE  = /x\nbase=6");
        assert_eq!(conf.assigned("BASE").unwrap().value(), "4");
        let shares: Vec<_> = conf.assignments().filter(|a| a.name == "SHARE").collect();
        assert_eq!((shares.len(), shares[0].value().as_str()), (1, "/x"));
    }

    #[test]
    fn empty_first_assignment_means_the_default() {
        assert!(conf("LIVE=\nLIVE=x").assigned("LIVE").is_none());
    }

    #[test]
    fn byte_order_mark_hides_the_first_name() {
        assert!(conf("\u{feff}NAME=x").assigned("NAME").is_none());
    }

    #[test]
    fn command_is_the_text_after_the_exclamation_mark() {
        let conf = conf("NAME=! echo x\nSHARE=!no");
        let commands: Vec<_> = conf.assignments().map(|a| a.command()).collect();
        assert_eq!(commands, [Some("echo x".to_owned()), None]);
    }
}
