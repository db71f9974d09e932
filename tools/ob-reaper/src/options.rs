//! The command line.

use crate::command::{Codes, Command};
use crate::line::{number, say};
use crate::sys::{self, Args};
use crate::{HELP, VERSION, signal};

/// Seconds between TERM and KILL, if neither SECONDS nor STOP_TIMEOUT is given.
const PATIENCE: u32 = 10;

/// What is to be done.
pub enum Task<'a> {
    /// Be pid 1 of a subhost.
    Reap(Reap),
    /// Run a command.
    Run(Command<'a>),
    /// Be the stand-in.
    StandIn,
    /// Print a text.
    Print(&'static [u8]),
}

/// The duties of pid 1.
#[derive(Clone, Copy)]
pub struct Reap {
    /// Which argument names the subhost.
    pub name: usize,
    /// Seconds between TERM and KILL.
    pub patience: u32,
    /// Whether it is to have a stand-in as its child.
    pub stand_in: bool,
}

/// An argument that is not understood, and what about it.
pub struct Misuse<'a> {
    what: &'static str,
    argument: &'a [u8],
}

impl Misuse<'_> {
    /// Says so.
    pub fn tell(&self) {
        say(&[
            self.what.as_bytes(),
            self.argument,
            b"; see ob-reaper --help",
        ]);
    }
}

/// Finds out what is to be done.
///
/// # Errors
/// An argument that is unknown, missing or too many.
pub fn parse(args: &Args) -> Result<Task<'_>, Misuse<'_>> {
    let Some(first) = args.get(1) else {
        return Err(misuse("neither NAME nor -- CMD", b""));
    };
    match first {
        b"--stand-in" => at_most(args, 2).map(|()| Task::StandIn),
        b"--with-stand-in" => parse_name(args, 2, true),
        [b'-', ..] => parse_command(args),
        _ => parse_name(args, 1, false),
    }
}

/// `NAME [SECONDS]`
fn parse_name(args: &Args, name: usize, stand_in: bool) -> Result<Task<'_>, Misuse<'_>> {
    if args.get(name).is_none() {
        return Err(misuse("there is no NAME", b""));
    }
    at_most(args, name + 1)?;
    let patience = match args.get(name + 1) {
        Some(text) => number(text, u32::MAX).ok_or(misuse("not a number of seconds: ", text))?,
        None => sys::environment(c"STOP_TIMEOUT")
            .and_then(|text| number(text, u32::MAX))
            .unwrap_or(PATIENCE),
    };
    Ok(Task::Reap(Reap {
        name,
        patience,
        stand_in,
    }))
}

/// `[OPTION...] [--] CMD [ARG...]`, the options in tini's manner: joined or not, ending at the first operand.
fn parse_command(args: &Args) -> Result<Task<'_>, Misuse<'_>> {
    let mut command = Command {
        args,
        at: 1,
        subreaper: sys::environment(c"TINI_SUBREAPER").is_some(),
        group: sys::environment(c"TINI_KILL_PROCESS_GROUP").is_some(),
        warn: false,
        verbosity: sys::environment(c"TINI_VERBOSITY")
            .and_then(|text| number(text, 9))
            .unwrap_or(1),
        parent_death: None,
        fine: Codes::default(),
    };
    while let Some(argument) = args.get(command.at) {
        let letters = match argument {
            b"--" => {
                command.at += 1;
                break;
            }
            b"--help" => return Ok(Task::Print(HELP)),
            b"--version" => return Ok(Task::Print(VERSION)),
            [b'-', b'-', ..] => return Err(misuse("there is no option ", argument)),
            [b'-', letters @ ..] if !letters.is_empty() => letters,
            _ => break,
        };
        command.at += 1;
        if let Some(task) = parse_letters(&mut command, letters)? {
            return Ok(task);
        }
    }
    match args.get(command.at) {
        Some(_) => Ok(Task::Run(command)),
        None => Err(misuse("there is no command to run", b"")),
    }
}

/// The letters after one `-`. A value is the rest of them or else the next argument.
fn parse_letters<'a>(
    command: &mut Command<'a>,
    mut letters: &'a [u8],
) -> Result<Option<Task<'a>>, Misuse<'a>> {
    while let [letter, rest @ ..] = letters {
        match letter {
            b's' => command.subreaper = true,
            b'g' => command.group = true,
            b'w' => command.warn = true,
            b'v' => command.verbosity += 1,
            b'h' => return Ok(Some(Task::Print(HELP))),
            b'V' => return Ok(Some(Task::Print(VERSION))),
            b'e' | b'p' => {
                let value = if rest.is_empty() {
                    let next = command.args.get(command.at);
                    command.at += 1;
                    next.ok_or(misuse("an option lacks its value: -", &letters[..1]))?
                } else {
                    rest
                };
                set(command, *letter, value)?;
                return Ok(None);
            }
            _ => return Err(misuse("there is no option -", &letters[..1])),
        }
        letters = rest;
    }
    Ok(None)
}

fn set<'a>(command: &mut Command<'a>, letter: u8, value: &'a [u8]) -> Result<(), Misuse<'a>> {
    if letter == b'p' {
        let signal = signal::named(value).ok_or(misuse("there is no signal ", value))?;
        command.parent_death = Some(signal);
    } else {
        let code = number(value, 255).and_then(|code| u8::try_from(code).ok());
        command
            .fine
            .add(code.ok_or(misuse("not a status from 0 to 255: ", value))?);
    }
    Ok(())
}

fn at_most(args: &Args, last: usize) -> Result<(), Misuse<'_>> {
    match args.get(last + 1) {
        Some(more) => Err(misuse("unexpected argument: ", more)),
        None => Ok(()),
    }
}

fn misuse<'a>(what: &'static str, argument: &'a [u8]) -> Misuse<'a> {
    Misuse { what, argument }
}
