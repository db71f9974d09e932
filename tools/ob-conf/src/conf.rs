//! The syntax of a configuration, subhost.conf(5), and what its variables come to.
//!
//! A line counts if it begins with `VAR=` at the first column. Values are literal: there is no quoting, no expansion, no
//! comment after a value; a backslash is dropped and the character after it kept. `!COMMAND` stands for the first line
//! that the command prints.

use crate::misspelt;
use anyhow::{Context, Result, anyhow, bail, ensure};
use ob_confine::protect;
use ob_document::{Cable, Document, Hook, Kind, Ownership, Share, VARIABLES, Variable, confid};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A configuration as it was read, nothing evaluated yet.
pub struct Conf {
    /// Its absolute path, links not resolved: NAME comes from the name under which it is called.
    pub path: PathBuf,
    /// Its lines, without the newlines.
    pub lines: Vec<String>,
    /// Which file was read, as `DEV:INO`; none if the text did not come from a file.
    pub confid: Option<String>,
}

/// One assignment.
#[derive(Clone, Copy)]
pub struct Assignment<'a> {
    /// The line, from 1.
    pub line: usize,
    /// The variable.
    pub name: &'a str,
    /// What stands after the `=`, as it stands there.
    pub raw: &'a str,
}

impl Conf {
    /// Reads the file. Fails if it is missing, unreadable, a directory, or not UTF-8 (then naming the line).
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

    /// Like [`Conf::read`], for a command that only looks: before anything is read, refuses what
    /// another user could have written, and what is no regular file.
    pub fn look(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        refuse(path, &std::path::absolute(path)?, Ownership::reasons)?;
        ensure!(
            path.metadata().with_context(context)?.is_file(),
            "{}: is no regular file",
            path.display()
        );
        Conf::read(path)
    }

    /// The same of what has been read from `path` already.
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

    /// All assignments, of unknown names too, in order.
    pub fn assignments(&self) -> impl Iterator<Item = Assignment<'_>> {
        self.lines.iter().enumerate().filter_map(|(index, line)| {
            let (name, raw) = line.split_once('=')?;
            // SHARE alone may have blanks before its =.
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

    /// What the variable `name` is assigned first, if that is not empty: the one that counts.
    pub fn assigned(&self, name: &str) -> Option<Assignment<'_>> {
        self.assignments()
            .find(|assignment| assignment.name == name)
            .filter(|assignment| !assignment.value().is_empty())
    }

    /// The directory that a relative BASE begins from.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// `FILE:LINE: ` and what is wrong there.
    pub fn at(&self, line: usize, error: anyhow::Error) -> anyhow::Error {
        error.context(format!("{}:{line}", self.path.display()))
    }

    /// What the subhost is called if NAME does not say: the file's name less `.conf`.
    pub fn default_name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(".conf").unwrap_or(&name).to_owned()
    }
}

impl<'a> Assignment<'a> {
    /// The value: trimmed, backslashes dropped.
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

    /// The command, if the value is one. SHARE has none.
    pub fn command(&self) -> Option<String> {
        let value = self.value();
        let command = value.strip_prefix('!').filter(|_| self.name != "SHARE")?;
        Some(command.trim_start().to_owned())
    }
}

/// Evaluates a configuration, with assignments of the command line before those of the file.
pub struct Evaluation<'a> {
    conf: &'a Conf,
    given: &'a [(String, String)],
    wanted: &'a [String],
    looks: bool,
}

impl<'a> Evaluation<'a> {
    /// `given`: assignments that count before the file's; `wanted`: the variables to evaluate, all if there are none.
    pub fn new(conf: &'a Conf, given: &'a [(String, String)], wanted: &'a [String]) -> Self {
        Evaluation {
            conf,
            given,
            wanted,
            looks: false,
        }
    }

    /// For a command that only looks at a subhost: a value that is a command is refused and not
    /// run, and so is a layer that another user could put in place.
    #[must_use]
    pub fn look(self) -> Self {
        Evaluation {
            looks: true,
            ..self
        }
    }

    /// The document. Runs the `!` commands of the wanted variables, each once, and no other.
    ///
    /// Fails at the first value that cannot be, with the file and line where it stands.
    pub fn document(&self) -> Result<Document> {
        let caller = std::env::current_dir().context("find the current directory")?;
        // The commands of these three run before BASE is known, and must not be looked for where
        // the caller happens to be.
        let directory = self.conf.directory();
        if !self.looks
            && let Some(problem) = misspelt::problems(self.conf).first()
        {
            bail!(problem.line(self.conf));
        }
        let name = match self.value("NAME", directory)? {
            Some(name) => name,
            None => self.conf.default_name(),
        };
        let mut document = Document::new(&name).map_err(|error| self.at("NAME", error))?;
        document.set("CONFIG", text(&self.conf.path)?);
        if let Some(confid) = &self.conf.confid {
            document.set("confid", confid.as_str());
        }
        if self.wants("LOG") {
            let log = self.value("LOG", directory)?;
            let log = log.unwrap_or_else(|| format!("/tmp/overlay-{name}.log"));
            document.set("LOG", text(&normal(&caller, &log))?);
        }
        let rest = &VARIABLES[3..];
        if self.wants("BASE") || rest.iter().any(|variable| self.wants(variable.name)) {
            let base = self.base()?;
            document.set("BASE", text(&base)?);
            for variable in rest.iter().filter(|variable| self.wants(variable.name)) {
                if let Some(value) = self.evaluate(variable, &base)? {
                    document.set(variable.name, value);
                }
            }
        }
        let cables: Result<Vec<Cable>> = document
            .list("CABLES")?
            .into_iter()
            .map(Cable::parse)
            .collect();
        cables
            .and_then(|cables| Cable::links(&name, &cables))
            .context("CABLES")
            .map_err(|error| self.at("CABLES", error))?;
        if !self.wanted.is_empty() {
            document.retain(self.wanted);
        }
        if self.looks {
            for path in ["BASE", "LOWER", "UPPER"] {
                if let Ok(path) = document.path(path) {
                    // A subhost decides about the files in a layer, not where the layer is.
                    refuse(&self.conf.path, path, Ownership::reasons_of_place)?;
                }
            }
        }
        Ok(document)
    }

    fn base(&self) -> Result<PathBuf> {
        let Some(base) = self.value("BASE", self.conf.directory())? else {
            bail!(
                "{}: BASE is not set; add the line BASE=.",
                self.conf.path.display()
            );
        };
        let base = self.conf.directory().join(base);
        let canonical = base
            .canonicalize()
            .map_err(anyhow::Error::from)
            .and_then(|path| {
                ensure!(path.is_dir(), "not a directory");
                Ok(path)
            });
        canonical
            .with_context(|| format!("BASE={}", base.display()))
            .map_err(|error| self.at("BASE", error))
    }

    fn evaluate(&self, variable: &Variable, base: &Path) -> Result<Option<Value>> {
        if variable.kind == Kind::Lines {
            return self.lines(variable.name, base);
        }
        let value = match self.value(variable.name, base)? {
            Some(value) => value,
            None => match variable.default {
                Some(default) => default.to_owned(),
                None => return Ok(None),
            },
        };
        let value = match (variable.name, value.as_str()) {
            ("SECCOMP", path) if !["none", "default"].contains(&path) => text(&normal(base, path))?,
            _ => value,
        };
        check(variable.name, &value).map_err(|error| self.at(variable.name, error))?;
        Ok(Some(match variable.kind {
            Kind::Path => text(&normal(base, &value))?.into(),
            Kind::Words => words(&value),
            Kind::Text | Kind::Lines => value.into(),
        }))
    }

    /// The values of a variable with many, those given before the file's. The host's path of a share is made absolute.
    fn lines(&self, name: &str, base: &Path) -> Result<Option<Value>> {
        let given = self.given.iter().filter(|(given, _)| given == name);
        let given = given.map(|(_, value)| (None, value.clone()));
        let assigned = self.conf.assignments();
        let assigned = assigned.filter(|assignment| assignment.name == name);
        let assigned = assigned.map(|assignment| (Some(assignment.line), assignment.value()));
        let mut lines: Vec<Value> = Vec::new();
        for (line, value) in given.chain(assigned) {
            if value.is_empty() {
                continue;
            }
            check(name, &value).map_err(|error| match line {
                Some(line) => self.conf.at(line, error),
                None => error,
            })?;
            lines.push(match name {
                "SHARE" | "SHARE_RO" => share(base, &value)?.into(),
                _ => value.into(),
            });
        }
        Ok(Some(lines)
            .filter(|lines| !lines.is_empty())
            .map(Value::Array))
    }

    /// The value of a variable, its command run in `directory`; none if it is empty or not assigned.
    fn value(&self, name: &str, directory: &Path) -> Result<Option<String>> {
        if let Some((_, value)) = self.given.iter().find(|(given, _)| given == name) {
            return Ok(Some(value.clone()).filter(|value| !value.is_empty()));
        }
        let Some(assignment) = self.conf.assigned(name) else {
            return Ok(None);
        };
        match assignment.command() {
            None => Ok(Some(assignment.value())),
            Some(command) if self.looks => {
                let error = anyhow!(
                    "{name}=!{command} is a command, which only a boot runs; name the subhost while it runs"
                );
                Err(self.conf.at(assignment.line, error))
            }
            Some(command) => first_line(&command, directory, &self.conf.path)
                .with_context(|| format!("{name}=!{command}"))
                .map_err(|error| self.conf.at(assignment.line, error))
                .map(Some),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == name)
    }

    /// Says where the variable is assigned that is wrong; only the file, if it is not.
    fn at(&self, name: &str, error: anyhow::Error) -> anyhow::Error {
        match self.conf.assigned(name) {
            Some(assignment) => self.conf.at(assignment.line, error),
            None => error.context(self.conf.path.display().to_string()),
        }
    }
}

/// Refuses what can be seen to be wrong from the value alone.
pub(crate) fn check(name: &str, value: &str) -> Result<()> {
    match name {
        "STOP_TIMEOUT" => value
            .parse::<u32>()
            .map(drop)
            .map_err(|_| anyhow!("STOP_TIMEOUT={value} is not a number of seconds")),
        "SHARE" | "SHARE_RO" => Share::parse(value)
            .map(drop)
            .with_context(|| format!("{name}={value}")),
        "LOG_MAX" => ob_document::log::bytes(value).map(drop).context("LOG_MAX"),
        name => protect::check(name, value),
    }
}

/// Refuses to look at the configuration `conf` if there are reasons about `path`.
fn refuse(
    conf: &Path,
    path: &Path,
    reasons: impl Fn(&mut Ownership, &Path) -> Vec<String>,
) -> Result<()> {
    match reasons(&mut Ownership::default(), path).first() {
        Some(reason) => bail!("{}: is not trusted: {reason}", conf.display()),
        None => Ok(()),
    }
}

/// `HOST[:DEST[:OPTIONS]]`, HOST absolute.
fn share(base: &Path, value: &str) -> Result<String> {
    let (host, inside) = value.split_once(':').unwrap_or((value, ""));
    let colon = if value.contains(':') { ":" } else { "" };
    Ok(text(&normal(base, host))? + colon + inside)
}

/// Runs the command and returns the first line of its output, trimmed. Its status does not matter, but an empty line fails.
fn first_line(command: &str, directory: &Path, conf: &Path) -> Result<String> {
    ensure!(!command.is_empty(), "there is no command");
    let command = Hook::new(command, directory);
    command.check()?;
    ob_sys::process::set_cloexec_from(3)?;
    let output = command
        .command(None::<&str>)
        .env("CONFIG", conf)
        .stderr(Stdio::inherit())
        .output()
        .context("run it")?;
    let output = String::from_utf8(output.stdout).context("what it printed is not UTF-8")?;
    let line = output.lines().next().unwrap_or_default().trim();
    ensure!(
        !line.is_empty() && !line.contains('\0'),
        "the command printed nothing on its first line"
    );
    Ok(line.to_owned())
}

/// `path` against `base`, less doubled and trailing slashes and dots, so that two spellings of a place compare as the same.
pub fn normal(base: &Path, path: &str) -> PathBuf {
    base.join(path).components().collect()
}

/// The words of a list.
pub fn words(value: &str) -> Value {
    value.split_whitespace().map(Value::from).collect()
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str();
    text.map(str::to_owned)
        .with_context(|| format!("the path {} is not UTF-8", path.display()))
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
