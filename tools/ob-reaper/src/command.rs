//! A command and its init: starts it, passes signals on, reaps, ends as it ended. The letters are tini's.

use crate::Failure;
use crate::line::{Decimal, say};
use crate::reap::{Left, reap};
use crate::sys::{self, Args, Errno, SignalSet};
use core::ffi::c_int;

/// env(1): the command was found but cannot be run.
const CANNOT_RUN: u8 = 126;
/// env(1): the command was not found.
const NOT_FOUND: u8 = 127;

/// A command and how to be its init.
pub struct Command<'a> {
    /// The command line that the command stands in.
    pub args: &'a Args,
    /// Where in it the command begins.
    pub at: usize,
    /// `-s`: orphans come to us although we are not pid 1.
    pub subreaper: bool,
    /// `-g`: signals go to the whole group.
    pub group: bool,
    /// `-w`: tell of each zombie.
    pub warn: bool,
    /// 1 warns, each `-v` adds one.
    pub verbosity: u32,
    /// `-p`: the signal that we want when our parent ends.
    pub parent_death: Option<c_int>,
    /// `-e`: statuses that count as 0.
    pub fine: Codes,
}

/// What we found when we were started, and what the command shall find.
struct Before {
    blocked: SignalSet,
    childless: bool,
    foreground: bool,
}

/// A set of exit statuses.
#[derive(Default)]
pub struct Codes([u32; 8]);

impl Codes {
    /// Adds `code`.
    pub fn add(&mut self, code: u8) {
        self.0[usize::from(code / 32)] |= 1 << (code % 32);
    }

    /// Whether `code` was added.
    pub fn has(&self, code: u8) -> bool {
        self.0[usize::from(code / 32)] & 1 << (code % 32) != 0
    }
}

impl Command<'_> {
    /// Runs the command to its end and returns its status, 128+N where signal N ended it.
    ///
    /// # Errors
    /// What keeps it from starting a process at all; a command that cannot be run has the status 126 or 127.
    pub fn run(&self) -> Result<u8, Failure<'_>> {
        self.become_init()?;
        let signals = SignalSet::all_but_faults();
        let before = Before {
            blocked: signals.block(),
            childless: sys::hear_of_children(),
            foreground: sys::in_foreground(),
        };
        let child = self.start(&before)?;

        let mut end = None;
        let status = loop {
            let left = reap(|pid, status| {
                if pid == child {
                    end = Some(status.code());
                } else if self.warn || self.verbosity > 2 {
                    say(&[b"Reaped zombie process with pid=", Decimal::new(pid).text()]);
                }
            });
            if let Some(status) = end {
                break status;
            }
            let signal = match left {
                // Somebody else took its status; we cannot know how it ended.
                Left::Nobody => return Err(self.failure("wait for", Errno::NO_CHILD)),
                Left::Living => signals.wait(),
                Left::Dead => signals.poll(),
            };
            if let Some(signal) = signal {
                self.pass_on(signal, child);
            }
        };
        if before.foreground {
            sys::take_foreground_from(child);
        }
        self.tell(2, b" ended with status ", i32::from(status));
        Ok(if self.fine.has(status) { 0 } else { status })
    }

    fn become_init(&self) -> Result<(), Failure<'_>> {
        if let Some(signal) = self.parent_death {
            sys::hear_of_parent(signal).map_err(|why| self.failure("set -p for", why))?;
        }
        if self.subreaper {
            sys::become_subreaper().map_err(|why| self.failure("be a subreaper for", why))?;
        } else if self.verbosity > 0 && sys::pid() != 1 && !sys::is_subreaper() {
            say(&[b"neither pid 1 nor a subreaper, so zombie reaping won't work: say -s"]);
        }
        Ok(())
    }

    fn start(&self, before: &Before) -> Result<i32, Failure<'_>> {
        let child = sys::fork(|| {
            sys::lead_group(0);
            if before.foreground {
                // Here, not in the parent: only so the command has the terminal from its first instruction on.
                sys::take_foreground();
            }
            if before.childless {
                sys::ignore_children();
            }
            before.blocked.block();
            let why = self.args.exec(self.at);
            self.failure("run", why).tell();
            if why == Errno::NO_SUCH_FILE {
                NOT_FOUND
            } else {
                CANNOT_RUN
            }
        })
        .map_err(|why| self.failure("make a process for", why))?;
        // Both do it, so that -g finds the group whoever runs first. It fails if the command runs already, and then it is done.
        sys::lead_group(child);
        self.tell(2, b" started as pid ", child);
        Ok(child)
    }

    fn pass_on(&self, signal: c_int, child: i32) {
        // TTIN and TTOU tell that we are in the background of the terminal; the command gets its own.
        if matches!(signal, libc::SIGCHLD | libc::SIGTTIN | libc::SIGTTOU) {
            return;
        }
        self.tell(3, b": passing on signal ", signal);
        match sys::kill(if self.group { -child } else { child }, signal) {
            Ok(()) | Err(Errno::NO_SUCH_PROCESS) => {}
            Err(why) => self.failure("pass a signal on to", why).tell(),
        }
    }

    fn tell(&self, verbosity: u32, what: &[u8], number: i32) {
        if self.verbosity >= verbosity {
            say(&[self.name(), what, Decimal::new(number).text()]);
        }
    }

    fn failure(&self, what: &'static str, why: Errno) -> Failure<'_> {
        Failure {
            what,
            object: self.name(),
            why,
        }
    }

    fn name(&self) -> &[u8] {
        self.args.get(self.at).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_set_holds_exactly_the_added_code() {
        for code in 0..=255 {
            let mut codes = Codes::default();
            codes.add(code);
            for other in 0..=255 {
                assert_eq!(codes.has(other), other == code, "{code} {other}");
            }
        }
    }
}
