//! What all the tools have in common at the prompt: help, version, usage errors, one line for a failure.

use crate::{closest, printable};
use anyhow::{Result, anyhow};
use lexopt::{Arg, Parser};
use nix::errno::Errno;
use ob_sys::process::{keep_absolute_path, reset_sigchld};
use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// Names the command that has become the tool, or leaves all to it: what the user has typed.
const COMMAND: &str = "OB_COMMAND";

/// A tool as the user sees it.
pub struct Tool {
    /// Its own name, for the log; its messages begin with it unless it was called by a command of ours.
    pub name: &'static str,
    /// What `--help` prints; the long options in it are those that a mistyped one is compared with.
    pub help: &'static str,
    /// The status for "the tool failed": 1 for a filter, 125 for what runs a command (env(1)).
    pub failed: u8,
}

/// The tool was called in a way that it does not understand: status 2.
#[derive(Debug)]
pub struct Usage(pub String);

/// The failure has been reported already, by the stage before us: status 1, not a word.
#[derive(Debug)]
pub struct Silent;

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("reported already")
    }
}

impl std::error::Error for Usage {}
impl std::error::Error for Silent {}

impl Tool {
    /// Runs `body` on the command line; its error becomes one line on stderr and the status: 2 for [`Usage`], 1 without a
    /// word for [`Silent`], else [`Tool::failed`].
    pub fn main(&self, body: impl FnOnce(&Tool, Parser) -> Result<ExitCode>) -> ExitCode {
        reset_sigchld();
        keep_absolute_path();
        self.report(body(self, Parser::from_env()))
    }

    /// Turns the result of a tool into its exit status, as [`Tool::main`] does, telling an error on stderr.
    pub fn report(&self, result: Result<ExitCode>) -> ExitCode {
        let error = match result {
            Ok(status) => return status,
            Err(error) => error,
        };
        if error.is::<Silent>() {
            return ExitCode::from(1);
        }
        self.complain(&error);
        if error.is::<Usage>() || error.is::<lexopt::Error>() {
            return ExitCode::from(2);
        }
        ExitCode::from(self.failed)
    }

    /// Prints the error as the one line that it is, on stderr.
    pub fn complain(&self, error: &anyhow::Error) {
        self.warn(&one_line(error));
    }

    /// Prints a line on stderr that begins with the tool's name.
    pub fn warn(&self, text: &str) {
        // Not eprintln, which would panic where stderr is closed.
        let _ = writeln!(
            std::io::stderr(),
            "{}: {}",
            printable(&self.typed()),
            printable(text)
        );
    }

    /// What the user has typed: the tool's name, or that of the script that stands for it.
    fn typed(&self) -> Cow<'static, str> {
        match std::env::var(COMMAND) {
            Ok(command) => command.into(),
            Err(_) => self.name.into(),
        }
    }

    /// Handles an argument that the tool itself does not take: help, version, or a usage error that names the nearest option.
    ///
    /// Ends the process for the first two, as lexopt's own examples do: nothing has been made yet.
    pub fn common(&self, arg: &Arg) -> anyhow::Error {
        match arg {
            Arg::Short('h') | Arg::Long("help") => self.say(self.help),
            Arg::Short('V') | Arg::Long("version") => {
                self.say(&format!("{} {}\n", self.typed(), env!("CARGO_PKG_VERSION")))
            }
            Arg::Long(option) => {
                anyhow!(unknown_option(
                    &self.typed(),
                    self.help,
                    &format!("--{option}")
                ))
            }
            Arg::Short(option) => {
                anyhow!(unknown_option(
                    &self.typed(),
                    self.help,
                    &format!("-{option}")
                ))
            }
            Arg::Value(value) => anyhow!(Usage(format!(
                "unexpected argument '{}'; see {} --help",
                value.to_string_lossy(),
                self.typed()
            ))),
        }
    }

    fn say(&self, text: &str) -> ! {
        let status = match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => 0,
            Err(_) => i32::from(self.failed),
        };
        std::process::exit(status)
    }
}

/// What is wrong with an `option` that the tool `name` has not: what it was meant to be, if a long one in `help` is near.
#[must_use]
pub fn unknown_option(name: &str, help: &str, option: &str) -> Usage {
    let option = option.split('=').next().unwrap_or_default();
    let known = help
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.len() > 2 && word.starts_with("--"))
        .chain(["--help", "--version"]);
    let meant = option.strip_prefix("--").and_then(|word| {
        let known = known.filter_map(|option| option.strip_prefix("--"));
        closest(word, known)
    });
    Usage(match meant {
        Some(meant) => format!("there is no option {option}; did you mean --{meant}?"),
        None => format!("there is no option {option}; see {name} --help"),
    })
}

/// Returns the error and its causes as one line for a terminal, errors of the kernel in words
/// alone.
#[must_use]
pub fn one_line(error: &anyhow::Error) -> String {
    let causes = error.chain().map(|cause| {
        let errno = cause.downcast_ref::<Errno>().copied();
        let io = cause.downcast_ref::<std::io::Error>();
        let errno = errno.or_else(|| io?.raw_os_error().map(Errno::from_raw));
        errno.map_or_else(|| cause.to_string(), |errno| errno.desc().to_owned())
    });
    printable(&causes.collect::<Vec<_>>().join(": ").replace('\n', " "))
}
