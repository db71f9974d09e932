//! The command line of a tool: help, version, usage errors, and one line for a failure.

use crate::{closest, printable};
use anyhow::{Result, anyhow};
use lexopt::{Arg, Parser};
use nix::errno::Errno;
use ob_sys::process::{keep_absolute_path, reset_sigchld};
use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// The environment variable with the name of the script that executes the tool: the name that the
/// user has typed.
const COMMAND: &str = "OB_COMMAND";

/// The name, the help text and the exit status of a tool.
pub struct Tool {
    /// The name of the tool, for the log. Messages begin with it, or with the value of
    /// `OB_COMMAND`.
    pub name: &'static str,
    /// The output of `--help`. An unknown option is compared with the long options in this text.
    pub help: &'static str,
    /// The status of a failure: 1 for a filter, 125 for a tool that executes a command, env(1).
    pub failed: u8,
}

/// A usage error: status 2.
#[derive(Debug)]
pub struct Usage(pub String);

/// A failure that the previous stage has reported: status 1 without a message.
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
    /// Runs `body` on the command line, reports its error on stderr, and returns the exit status.
    ///
    /// The status of an error is 2 for [`Usage`], 1 for [`Silent`], else [`Tool::failed`].
    pub fn main(&self, body: impl FnOnce(&Tool, Parser) -> Result<ExitCode>) -> ExitCode {
        reset_sigchld();
        keep_absolute_path();
        self.report(body(self, Parser::from_env()))
    }

    /// Reports an error on stderr, and returns the exit status, see [`Tool::main`].
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

    /// Prints the error as one line on stderr.
    pub fn complain(&self, error: &anyhow::Error) {
        self.warn(&one_line(error));
    }

    /// Prints a line on stderr that begins with the name of the tool.
    pub fn warn(&self, text: &str) {
        // eprintln! would panic if stderr is closed.
        let _ = writeln!(
            std::io::stderr(),
            "{}: {}",
            printable(&self.typed()),
            printable(text)
        );
    }

    /// Returns the name that the user has typed: that of the tool or of the script that executed
    /// it.
    fn typed(&self) -> Cow<'static, str> {
        match std::env::var(COMMAND) {
            Ok(command) => command.into(),
            Err(_) => self.name.into(),
        }
    }

    /// Handles an argument that the tool does not: help, version, or an unknown argument.
    ///
    /// Prints the help or the version and exits: the tool has not created anything yet. Returns a
    /// usage error for an unknown argument.
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

    /// Prints `text` on standard output and exits.
    fn say(&self, text: &str) -> ! {
        let status = match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => 0,
            Err(_) => i32::from(self.failed),
        };
        std::process::exit(status)
    }
}

/// Returns the usage error for an `option` that the tool `name` does not have. The error suggests
/// the closest long option in `help`.
#[must_use]
pub fn unknown_option(name: &str, help: &str, option: &str) -> Usage {
    let option = option.split('=').next().unwrap_or_default();
    let known = help
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.len() > 2 && word.starts_with("--"))
        .chain(["--help", "--version"]);
    let suggested = option.strip_prefix("--").and_then(|word| {
        let known = known.filter_map(|option| option.strip_prefix("--"));
        closest(word, known)
    });
    Usage(match suggested {
        Some(known) => format!("there is no option {option}; did you mean --{known}?"),
        None => format!("there is no option {option}; see {name} --help"),
    })
}

/// Returns the error and its causes as one line for a terminal, system errors without their number.
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
