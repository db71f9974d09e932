//! Commands that a configuration names: hooks (PREMOUNT, POSTMOUNT, INIT) and `!` commands.

use crate::{Document, VARIABLES};
use anyhow::{Result, bail};
use nix::unistd::{AccessFlags, access};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command of the configuration: words divided by blanks, with wildcards and nothing else of a shell's tongue.
pub struct Hook<'a> {
    words: &'a str,
    base: &'a Path,
}

impl<'a> Hook<'a> {
    /// Takes the value of a variable; `base` is the directory that it runs in.
    #[must_use]
    pub fn new(words: &'a str, base: &'a Path) -> Self {
        Hook { words, base }
    }

    /// The same for the variable `variable` of a document; none if it is not set.
    #[must_use]
    pub fn of(document: &'a Document, variable: &str) -> Option<Self> {
        let words = document.optional(variable)?;
        Some(Hook::new(words, document.path("BASE").ok()?))
    }

    /// Fails if the first word is not an executable file: below `base` if it has a slash, else on PATH.
    pub fn check(&self) -> Result<()> {
        let word = self.words.split_whitespace().next().unwrap_or_default();
        if word.contains(['*', '?', '[']) || self.program().is_some() {
            return Ok(());
        }
        if !word.contains('/') && is_executable(&self.base.join(word)) {
            bail!("'{word}' is not on PATH; write ./{word} for the one in BASE");
        }
        bail!("'{word}' is not an executable file");
    }

    /// Returns the path of the program that the first word names; none if there is none, or a
    /// wildcard hides it.
    #[must_use]
    pub fn program(&self) -> Option<PathBuf> {
        let word = self.words.split_whitespace().next()?;
        if word.contains('/') {
            return Some(self.base.join(word)).filter(|path| is_executable(path));
        }
        std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|directory| self.base.join(directory).join(word))
            .find(|path| is_executable(path))
    }

    /// The command with the words after it as `arguments`, in `base`, nothing on stdin, the caller's environment.
    ///
    /// A shell divides the words and expands the wildcards, since that is how they are defined; it evaluates nothing.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"exec $0 "$@""#, self.words])
            .args(arguments)
            .current_dir(self.base)
            .stdin(Stdio::null());
        command
    }

    /// The command of a hook: as [`Hook::command`], with the plan, `ACTION` and `UNSHARED` in its environment.
    pub fn with_plan(
        &self,
        document: &Document,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let mut command = self.command(arguments);
        for variable in VARIABLES {
            command.env_remove(variable.name);
        }
        if std::env::var_os("ACTION").is_none() {
            command.env("ACTION", "overlay-boot");
        }
        command.env("UNSHARED", "yes").envs(document.environment());
        command
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}
