//! An init for a command: starts it, forwards signals, reaps, and exits with its status.
//!
//! The options have the same letters as in tini.

use crate::exit_status::{CANNOT_RUN, NOT_FOUND};
use crate::message::{Failure, report};
use crate::number::Decimal;
use crate::reap::{Children, reap};
use crate::sys::{self, Args, Errno, SignalSet};
use core::ffi::c_int;

/// A command and the options of its init.
pub struct Command<'a> {
    /// The command line that contains the command.
    pub args: &'a Args,
    /// Index of the first argument of the command.
    pub first: usize,
    /// `-s`: become a subreaper.
    pub subreaper: bool,
    /// `-g`: forward signals to the process group of the command.
    pub signal_group: bool,
    /// `-w`: report each zombie.
    pub report_zombies: bool,
    /// 1 for warnings, plus one for each `-v`.
    pub verbosity: u32,
    /// `-p`: the signal for this process when its parent exits.
    pub parent_death_signal: Option<c_int>,
    /// `-e`: statuses of the command for which the exit status is 0.
    pub success: StatusSet,
}

/// What this process inherited from its caller and the command must inherit too.
struct Inherited {
    signal_mask: SignalSet,
    sigchld_ignored: bool,
    foreground: bool,
}

/// A set of exit statuses.
#[derive(Default)]
pub struct StatusSet([u32; 8]);

impl StatusSet {
    /// Adds `status` to the set.
    pub fn add(&mut self, status: u8) {
        self.0[usize::from(status / 32)] |= 1 << (status % 32);
    }

    /// Returns whether the set contains `status`.
    pub fn contains(&self, status: u8) -> bool {
        self.0[usize::from(status / 32)] & 1 << (status % 32) != 0
    }
}

impl Command<'_> {
    /// Runs the command until it exits. Returns its status, or 128+N if signal N killed it.
    ///
    /// Returns 126 or 127 if the command cannot be executed.
    ///
    /// # Errors
    /// An option cannot be applied, or no process can be created.
    pub fn run(&self) -> Result<u8, Failure<'_>> {
        self.apply_options()?;
        let signals = SignalSet::all_but_faults();
        let inherited = Inherited {
            signal_mask: signals.block(),
            sigchld_ignored: sys::reset_sigchld(),
            foreground: sys::is_foreground(),
        };
        let child = self.start(&inherited)?;

        let mut exited = None;
        let status = loop {
            let children = reap(|pid, status| {
                if pid == child {
                    exited = Some(status.code());
                } else if self.report_zombies || self.verbosity > 2 {
                    let pid = Decimal::new(pid as u32);
                    report(&[b"Reaped zombie process with pid=", pid.text()]);
                }
            });
            if let Some(status) = exited {
                break status;
            }
            let signal = match children {
                // Another process has reaped the command, so its status is unknown.
                Children::None => return Err(self.failure("wait for", Errno::NO_CHILD)),
                Children::Running => signals.wait(),
                Children::Unknown => signals.poll(),
            };
            if let Some(signal) = signal {
                self.forward(signal, child);
            }
        };
        if inherited.foreground {
            sys::take_foreground_from(child);
        }
        self.report_at(2, b" ended with status ", i32::from(status));
        Ok(if self.success.contains(status) {
            0
        } else {
            status
        })
    }

    fn apply_options(&self) -> Result<(), Failure<'_>> {
        if let Some(signal) = self.parent_death_signal {
            let set = sys::set_parent_death_signal(signal);
            set.map_err(|why| self.failure("set -p for", why))?;
        }
        if self.subreaper {
            sys::become_subreaper().map_err(|why| self.failure("be a subreaper for", why))?;
        } else if self.verbosity > 0 && sys::pid() != 1 && !sys::is_subreaper() {
            report(&[b"neither pid 1 nor a subreaper, so zombie reaping won't work: say -s"]);
        }
        Ok(())
    }

    /// Starts the command in a new process group. Returns its pid.
    fn start(&self, inherited: &Inherited) -> Result<i32, Failure<'_>> {
        let child = sys::fork(|| {
            sys::create_process_group(0);
            if inherited.foreground {
                // In the child, so that the command has the terminal from its first instruction.
                sys::become_foreground();
            }
            if inherited.sigchld_ignored {
                sys::ignore_sigchld();
            }
            inherited.signal_mask.block();
            let why = self.args.exec(self.first);
            self.failure("run", why).report();
            if why == Errno::NO_SUCH_FILE {
                NOT_FOUND
            } else {
                CANNOT_RUN
            }
        })
        .map_err(|why| self.failure("make a process for", why))?;
        // Both processes do this, so that the group exists for -g whichever runs first. After the
        // child has called execve, setpgid fails here with EACCES, and the child has done it.
        sys::create_process_group(child);
        self.report_at(2, b" started as pid ", child);
        Ok(child)
    }

    /// Forwards `signal` to the command or its process group.
    fn forward(&self, signal: c_int, child: i32) {
        // The kernel sends SIGTTIN and SIGTTOU to a background process that uses the terminal,
        // here to this process. It sends them to the command too if that uses the terminal.
        if matches!(signal, libc::SIGCHLD | libc::SIGTTIN | libc::SIGTTOU) {
            return;
        }
        self.report_at(3, b": passing on signal ", signal);
        let target = if self.signal_group { -child } else { child };
        match sys::kill(target, signal) {
            Ok(()) | Err(Errno::NO_SUCH_PROCESS) => {}
            Err(why) => self.failure("pass a signal on to", why).report(),
        }
    }

    /// Reports `what` and `number` if the verbosity is at least `verbosity`.
    fn report_at(&self, verbosity: u32, what: &[u8], number: i32) {
        if self.verbosity >= verbosity {
            let number = Decimal::new(number as u32);
            report(&[self.name(), what, number.text()]);
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
        self.args.get(self.first).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_set_holds_exactly_the_added_code() {
        for code in 0..=255 {
            let mut set = StatusSet::default();
            set.add(code);
            for other in 0..=255 {
                assert_eq!(set.contains(other), other == code, "{code} {other}");
            }
        }
    }
}
