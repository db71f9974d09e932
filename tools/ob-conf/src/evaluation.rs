//! The evaluation of a configuration: from the assignments to a document.

use crate::conf::{self, Conf, normal};
use crate::misspelt;
use crate::stages;
use anyhow::{Context, Result, anyhow, bail, ensure};
use ob_confine::protect;
use ob_document::{Cable, Document, FREE, Hook, Kind, Ownership, Share, VARIABLES, Variable};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

/// The evaluation of a configuration and of the assignments on a command line.
pub struct Evaluation<'a> {
    conf: &'a Conf,
    given: &'a [(String, String)],
    wanted: &'a [String],
    looks: bool,
}

impl<'a> Evaluation<'a> {
    /// Prepares the evaluation of `conf`.
    ///
    /// An assignment in `given` overrides an assignment in the file. `wanted` are the variables to
    /// evaluate; all if it is empty.
    #[must_use]
    pub fn new(conf: &'a Conf, given: &'a [(String, String)], wanted: &'a [String]) -> Self {
        Evaluation {
            conf,
            given,
            wanted,
            looks: false,
        }
    }

    /// Prepares the evaluation for a command that only looks at a subhost.
    ///
    /// Then a value that is a command is refused and not run, and a layer that another user can
    /// replace is refused.
    #[must_use]
    pub fn look(self) -> Self {
        Evaluation {
            looks: true,
            ..self
        }
    }

    /// Returns the document. Runs only the `!` commands of the wanted variables, and each of them
    /// once.
    ///
    /// Fails at the first invalid value, with its file and line.
    pub fn document(&self) -> Result<Document> {
        if !self.looks {
            self.refuse_misspelt()?;
        }
        let mut document = self.named()?;
        let others = &VARIABLES[3..]; // after NAME, LOG and BASE
        let free = self.free();
        let known = others.iter().map(|variable| variable.name);
        if known.chain(["BASE"]).any(|name| self.wants(name)) || !free.is_empty() {
            let base = self.base()?;
            document.set("BASE", text(&base)?);
            for variable in others.iter().filter(|variable| self.wants(variable.name)) {
                if let Some(value) = self.evaluate(variable, &base)? {
                    document.set(variable.name, value);
                }
            }
            for name in free {
                if let Some(value) = self.value(name, &base)? {
                    document.set(name, value);
                }
            }
        }
        Cable::of(&document)
            .context("CABLES")
            .map_err(|error| self.at("CABLES", error))?;
        if !self.wanted.is_empty() {
            document.retain(self.wanted);
        }
        if self.looks {
            self.refuse_insecure_layers(&document)?;
        }
        Ok(document)
    }

    /// Fails if a line was probably meant to protect the host and has no effect.
    fn refuse_misspelt(&self) -> Result<()> {
        match misspelt::problems(self.conf).first() {
            Some(problem) => bail!(problem.line(self.conf)),
            None => Ok(()),
        }
    }

    /// Fails if another user can replace a layer, BASE included.
    fn refuse_insecure_layers(&self, document: &Document) -> Result<()> {
        for path in ["BASE", "LOWER", "UPPER"] {
            if let Ok(path) = document.path(path) {
                // The owner may be a user inside the subhost: that user cannot replace the layer.
                let reasons = Ownership::default().reasons_of_place(path);
                conf::refuse_insecure(&self.conf.path, &reasons)?;
            }
        }
        Ok(())
    }

    /// Returns a document with NAME, CONFIG and LOG.
    ///
    /// BASE is not known yet, so the commands of these variables run in the directory of the
    /// configuration. The current directory of the caller would be arbitrary.
    fn named(&self) -> Result<Document> {
        let directory = self.conf.directory();
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
            let log = std::path::absolute(&log).with_context(|| format!("LOG={log}"))?;
            let log = text(&normal(Path::new("/"), &text(&log)?))?;
            check("LOG", &log).map_err(|error| self.at("LOG", error))?;
            document.set("LOG", log);
        }
        Ok(document)
    }

    /// Returns BASE as an absolute path without symbolic links.
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

    /// Returns the value of a variable, its default if it is not set; `None` without a default.
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
        let value = match variable.name {
            // A shell rejects 08: a number with a leading zero is octal there.
            "STOP_TIMEOUT" => value.parse::<u32>()?.to_string(),
            _ => value,
        };
        Ok(Some(match variable.kind {
            Kind::Path => text(&normal(base, &value))?.into(),
            Kind::Words if variable.name == "PIPELINE" => {
                let stages = stages::resolve(&value, self.conf.directory());
                stages
                    .map_err(|error| self.at(variable.name, error))?
                    .into()
            }
            Kind::Words => words(&value),
            Kind::Text | Kind::Lines => value.into(),
        }))
    }

    /// Returns the wanted variables that begin with [`FREE`].
    fn free(&self) -> BTreeSet<&str> {
        let assigned = self.conf.assignments().map(|assignment| assignment.name);
        let given = self.given.iter().map(|(name, _)| name.as_str());
        let names = assigned.chain(given);
        names
            .filter(|name| name.starts_with(FREE) && self.wants(name))
            .collect()
    }

    /// Returns the values of a [`Kind::Lines`] variable: the given values, then the values in the
    /// file. Makes HOST of a share absolute.
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

    /// Returns the value of a variable, and runs its command in `directory`; `None` if the value is
    /// empty or the variable is not assigned.
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
                    "{name}=!{command} is a command, which only a boot runs; name the subhost \
                     while it runs"
                );
                Err(self.conf.at(assignment.line, error))
            }
            Some(command) => first_line(&command, directory, &self.conf.path)
                .with_context(|| format!("{name}=!{command}"))
                .map_err(|error| self.conf.at(assignment.line, error))
                .map(Some),
        }
    }

    /// Returns whether the variable `name` must be evaluated.
    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == name)
    }

    /// Returns `error` with the file and the line where the variable is assigned; with the file
    /// alone if it is not assigned there.
    fn at(&self, name: &str, error: anyhow::Error) -> anyhow::Error {
        match self.conf.assigned(name) {
            Some(assignment) => self.conf.at(assignment.line, error),
            None => error.context(self.conf.path.display().to_string()),
        }
    }
}

/// Fails if a value is invalid by itself, regardless of other variables.
pub(crate) fn check(name: &str, value: &str) -> Result<()> {
    match name {
        "STOP_TIMEOUT" => value
            .parse::<u32>()
            .map(drop)
            .map_err(|_| anyhow!("STOP_TIMEOUT={value} is not a number of seconds")),
        "STOP_SIGNAL" => ob_document::signal::parse(value)
            .map(drop)
            .context("STOP_SIGNAL"),
        "SHARE" | "SHARE_RO" => Share::parse(value)
            .and_then(|share| share.ensure_visible())
            .with_context(|| format!("{name}={value}")),
        "LOG" => {
            ensure!(
                !is_descriptor(Path::new(value)),
                "LOG={value} is another file in each process; set LOG to a regular file, and read \
                 it with overlay-log --follow"
            );
            Ok(())
        }
        "LOG_MAX" => ob_document::log::bytes(value).map(drop).context("LOG_MAX"),
        name => protect::check(name, value),
    }
}

/// Returns whether `path` stands for a descriptor or the terminal of the process that opens it.
fn is_descriptor(path: &Path) -> bool {
    let mut names: Vec<&OsStr> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    let mut names = names.into_iter();
    let mut next = || names.next().and_then(OsStr::to_str).unwrap_or_default();
    match next() {
        "dev" => ["fd", "stdin", "stdout", "stderr", "tty"].contains(&next()),
        "proc" => {
            let process = next();
            ["self", "thread-self"].contains(&process)
                || process.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    }
}

/// Returns a share `HOST[:DEST[:OPTIONS]]` with HOST made absolute.
fn share(base: &Path, value: &str) -> Result<String> {
    let (host, inside) = value.split_once(':').unwrap_or((value, ""));
    let colon = if value.contains(':') { ":" } else { "" };
    Ok(text(&normal(base, host))? + colon + inside)
}

/// Runs a command and returns the first line of its output, trimmed.
///
/// Ignores the exit status. Fails if the line is empty.
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
    let output = String::from_utf8(output.stdout).context("its output is not UTF-8")?;
    let line = output.lines().next().unwrap_or_default().trim();
    ensure!(
        !line.is_empty() && !line.contains('\0'),
        "the command printed nothing on its first line"
    );
    Ok(line.to_owned())
}

/// Returns a list of the words in `value`.
pub fn words(value: &str) -> Value {
    value.split_whitespace().map(Value::from).collect()
}

/// Returns a path as text. Fails if it is not UTF-8: a document is JSON.
fn text(path: &Path) -> Result<String> {
    let text = path.to_str();
    text.map(str::to_owned)
        .with_context(|| format!("the path {} is not UTF-8", path.display()))
}
