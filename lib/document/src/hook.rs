//! The commands in a configuration: hooks (PREMOUNT, POSTMOUNT, INIT) and values such as `!CMD`.

use crate::{Document, VARIABLES};
use anyhow::{Result, bail};
use nix::unistd::{AccessFlags, access};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command of the configuration: words separated by blanks. Wildcards are the only shell syntax.
pub struct Hook<'a> {
    words: &'a str,
    base: &'a Path,
}

impl<'a> Hook<'a> {
    /// Creates the command `words`, which runs in the directory `base`.
    #[must_use]
    pub fn new(words: &'a str, base: &'a Path) -> Self {
        Hook { words, base }
    }

    /// Creates the command that is the value of `variable`; `None` if that is not set.
    #[must_use]
    pub fn of(document: &'a Document, variable: &str) -> Option<Self> {
        let words = document.optional(variable)?;
        Some(Hook::new(words, document.path("BASE").ok()?))
    }

    /// Fails if the first word is not an executable file.
    ///
    /// A word with a slash is a path relative to `base`; another word is looked up on PATH. A word
    /// with a wildcard passes: only the shell expands it.
    pub fn check(&self) -> Result<()> {
        let word = self.words.split_whitespace().next().unwrap_or_default();
        if word.contains(['*', '?', '[']) || self.program().is_some() {
            return Ok(());
        }
        if !word.contains('/') && is_executable(&self.base.join(word)) {
            bail!("'{word}' is not on PATH; write ./{word} for the file in BASE");
        }
        bail!("'{word}' is not an executable file");
    }

    /// Returns the path of the program that the first word names; `None` if it does not exist or
    /// the word has a wildcard.
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

    /// Returns the command with `arguments` appended, to run in `base` with /dev/null on stdin and
    /// the environment of the caller.
    ///
    /// A shell splits the words and expands the wildcards, as subhost.conf(5) defines them. The
    /// words are the value of `$0`, so the shell evaluates nothing else in them.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"exec $0 "$@""#, self.words])
            .args(arguments)
            .current_dir(self.base)
            .stdin(Stdio::null());
        command
    }

    /// Like [`Hook::command`], with the plan, `ACTION` and `UNSHARED` in the environment: a hook.
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
