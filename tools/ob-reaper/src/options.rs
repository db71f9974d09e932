//! The command line, parsed.

use crate::command::{Command, StatusSet};
use crate::message::report;
use crate::sys::{self, Args};
use crate::{number, pid1, signal};

const VERSION: &[u8] = concat!("ob-reaper ", env!("CARGO_PKG_VERSION"), "\n").as_bytes();

const HELP: &[u8] = b"\
Usage: ob-reaper [--with-stand-in] NAME [SECONDS]
                                              pid 1 of the subhost NAME
       ob-reaper [OPTION...] -- CMD [ARG...]  run CMD as its init
       ob-reaper --stand-in [FIFO]            wait for a write to FIFO

As pid 1, reaps orphans and exits when no child is left. TERM, INT and PWR end
the subhost: TERM to all processes, KILL after SECONDS, STOP_TIMEOUT or 10.
--with-stand-in adds a placeholder child, so that a subhost without services
stays up.

Options for CMD, the same as in tini:
  -s       become a subreaper: adopt orphans even if this is not pid 1
  -g       forward signals to the process group of CMD
  -w       print a message for every zombie that is reaped
  -e CODE  exit with 0 if CMD exits with CODE (may be repeated)
  -p SIG   get SIG when the parent exits
  -v       print more messages; -vv prints most
  -h, --help      print this
  -V, --version   print the version

Examples:
  exec /.reaper mta                      the last line of an INIT script
  ob-reaper -s -g -- sh -c 'make check'  run a build and reap its orphans
";

/// Seconds between SIGTERM and SIGKILL if neither SECONDS nor STOP_TIMEOUT is given.
const DEFAULT_STOP_TIMEOUT: u32 = 10;

/// What the command line asks for.
pub enum Task<'a> {
    /// Run as pid 1 of a subhost.
    Pid1(pid1::Options),
    /// Run a command, as its init.
    Command(Command<'a>),
    /// Run as the placeholder.
    Placeholder,
    /// Print a text.
    Print(&'static [u8]),
}

/// An invalid command line: the reason, and the argument in question.
pub struct Misuse<'a> {
    what: &'static str,
    argument: &'a [u8],
}

impl Misuse<'_> {
    /// Prints the reason as one line on standard error.
    pub fn report(&self) {
        let hint = b"; see ob-reaper --help";
        report(&[self.what.as_bytes(), self.argument, hint]);
    }
}

/// Parses the command line.
///
/// # Errors
/// An argument is unknown, missing, invalid or one too many.
pub fn parse(args: &Args) -> Result<Task<'_>, Misuse<'_>> {
    let Some(first) = args.get(1) else {
        return Err(misuse("neither NAME nor -- CMD", b""));
    };
    match first {
        b"--stand-in" => expect_end(args, 3).map(|()| Task::Placeholder),
        b"--with-stand-in" => parse_pid1(args, 2, true),
        [b'-', ..] => parse_command(args),
        _ => parse_pid1(args, 1, false),
    }
}

/// Parses `NAME [SECONDS]`, where NAME has the index `name`.
fn parse_pid1(args: &Args, name: usize, placeholder: bool) -> Result<Task<'_>, Misuse<'_>> {
    if args.get(name).is_none() {
        return Err(misuse("NAME is missing", b""));
    }
    expect_end(args, name + 2)?;
    let stop_timeout = match args.get(name + 1) {
        Some(text) => {
            number::parse(text, u32::MAX).ok_or(misuse("not a number of seconds: ", text))?
        }
        None => sys::getenv(c"STOP_TIMEOUT")
            .and_then(|text| number::parse(text, u32::MAX))
            .unwrap_or(DEFAULT_STOP_TIMEOUT),
    };
    Ok(Task::Pid1(pid1::Options {
        name,
        stop_timeout,
        placeholder,
    }))
}

/// Parses `[OPTION...] [--] CMD [ARG...]` as tini does.
///
/// Options may be joined (`-sg`), and end at the first operand.
fn parse_command(args: &Args) -> Result<Task<'_>, Misuse<'_>> {
    let mut command = Command {
        args,
        first: 1,
        subreaper: sys::getenv(c"TINI_SUBREAPER").is_some(),
        signal_group: sys::getenv(c"TINI_KILL_PROCESS_GROUP").is_some(),
        report_zombies: false,
        verbosity: sys::getenv(c"TINI_VERBOSITY")
            .and_then(|text| number::parse(text, 9))
            .unwrap_or(1),
        parent_death_signal: None,
        success: StatusSet::default(),
    };
    while let Some(argument) = args.get(command.first) {
        let letters = match argument {
            b"--" => {
                command.first += 1;
                break;
            }
            b"--help" => return Ok(Task::Print(HELP)),
            b"--version" => return Ok(Task::Print(VERSION)),
            [b'-', b'-', ..] => return Err(misuse("there is no option ", argument)),
            [b'-', letters @ ..] if !letters.is_empty() => letters,
            _ => break,
        };
        command.first += 1;
        if let Some(task) = parse_letters(&mut command, letters)? {
            return Ok(task);
        }
    }
    match args.get(command.first) {
        Some(_) => Ok(Task::Command(command)),
        None => Err(misuse("there is no command to run", b"")),
    }
}

/// Parses the letters of one argument. A value is the rest of it, or else the next argument.
fn parse_letters<'a>(
    command: &mut Command<'a>,
    mut letters: &'a [u8],
) -> Result<Option<Task<'a>>, Misuse<'a>> {
    while let [letter, rest @ ..] = letters {
        match letter {
            b's' => command.subreaper = true,
            b'g' => command.signal_group = true,
            b'w' => command.report_zombies = true,
            b'v' => command.verbosity += 1,
            b'h' => return Ok(Some(Task::Print(HELP))),
            b'V' => return Ok(Some(Task::Print(VERSION))),
            b'e' | b'p' => {
                let value = if rest.is_empty() {
                    let next = command.args.get(command.first);
                    command.first += 1;
                    next.ok_or(misuse("an option lacks its value: -", &letters[..1]))?
                } else {
                    rest
                };
                set_value(command, *letter, value)?;
                return Ok(None);
            }
            _ => return Err(misuse("there is no option -", &letters[..1])),
        }
        letters = rest;
    }
    Ok(None)
}

/// Sets the option `letter`, `p` or `e`, to `value`.
fn set_value<'a>(command: &mut Command<'a>, letter: u8, value: &'a [u8]) -> Result<(), Misuse<'a>> {
    if letter == b'p' {
        let signal = signal::parse(value).ok_or(misuse("there is no signal ", value))?;
        command.parent_death_signal = Some(signal);
    } else {
        let status = number::parse(value, 255).and_then(|status| u8::try_from(status).ok());
        command
            .success
            .add(status.ok_or(misuse("not a status from 0 to 255: ", value))?);
    }
    Ok(())
}

/// Fails if there is an argument with the index `end`.
fn expect_end(args: &Args, end: usize) -> Result<(), Misuse<'_>> {
    match args.get(end) {
        Some(argument) => Err(misuse("unexpected argument: ", argument)),
        None => Ok(()),
    }
}

fn misuse<'a>(what: &'static str, argument: &'a [u8]) -> Misuse<'a> {
    Misuse { what, argument }
}
