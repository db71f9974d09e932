//! The request to pid 1 to end the subhost. A custom pid 1 is asked in the way that it understands:
//! by a signal or by a command.

use anyhow::Result;
use nix::libc;
use nix::sys::signal::Signal;
use ob_document::{Document, log, signal};
use ob_sys::process::{pidfd_signal, pidfd_signal_number, set_cloexec_from};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

/// systemd(1) halts after SIGRTMIN+3, and executes itself again after TERM.
const HALT_SYSTEMD: i32 = 37;

/// A way to ask pid 1.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Signal(i32),
    /// A command and its arguments, which runs inside.
    Command(Vec<String>),
}

/// What pid 1 does after the request.
pub enum Answer {
    /// Pid 1 may exit, but runs no shutdown scripts.
    Default,
    /// Pid 1 handles the signal: it runs its shutdown scripts.
    Handled,
    /// The command, which may still run, has asked pid 1 to do so.
    Running(Child),
}

/// Returns whether pid 1 may run shutdown scripts, which takes STOP_TIMEOUT at most.
pub fn is_custom(document: &Document) -> bool {
    let mut variables = ["INIT", "STOP_SIGNAL", "STOP_COMMAND"].iter();
    variables.any(|variable| document.has(variable))
}

/// Asks pid 1 to end the subhost, and continues it if another process has stopped it.
pub fn ask(document: &Document, pid1: &OwnedFd) -> Answer {
    let answer = send_request(document, pid1);
    let _ = pidfd_signal(pid1, Signal::SIGCONT);
    answer
}

fn send_request(document: &Document, pid1: &OwnedFd) -> Answer {
    let process = document.number("pid").ok().filter(|_| is_custom(document));
    let Some(process) = process.map(Process::read) else {
        let _ = pidfd_signal(pid1, Signal::SIGTERM);
        return Answer::Default;
    };
    match configured(document).unwrap_or_else(|| process.request()) {
        Request::Signal(signal) => {
            let _ = pidfd_signal_number(pid1, signal);
            if process.handles(signal) {
                Answer::Handled
            } else {
                Answer::Default
            }
        }
        Request::Command(command) => run(document, &command).map_or_else(
            |_| {
                let _ = pidfd_signal(pid1, Signal::SIGTERM);
                Answer::Default
            },
            Answer::Running,
        ),
    }
}

/// Returns the request of STOP_COMMAND or STOP_SIGNAL.
fn configured(document: &Document) -> Option<Request> {
    let command = document.list("STOP_COMMAND").unwrap_or_default();
    if !command.is_empty() {
        return Some(Request::Command(
            command.into_iter().map(str::to_owned).collect(),
        ));
    }
    let signal = signal::parse(document.optional("STOP_SIGNAL")?).ok()?;
    Some(Request::Signal(signal))
}

/// Starts a command inside. Its output goes to the log.
fn run(document: &Document, command: &[String]) -> Result<Child> {
    let log = log::open(document.path("LOG")?)?;
    set_cloexec_from(3)?;
    let enter = std::env::current_exe()?.with_file_name("ob-enter");
    let child = Command::new(enter)
        .args(["--no-pty", "--", document.name()])
        .args(command)
        .env_remove("OB_COMMAND")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(child)
}

/// Pid 1 as /proc shows it. Root inside chooses the names, and with them only the request.
struct Process {
    /// The last part of the path of its program.
    program: String,
    /// The names by which it was started.
    names: String,
    /// The signals that it catches or blocks, one bit each.
    handled: u64,
}

impl Process {
    fn read(pid: u64) -> Self {
        let file = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let text = |name: &str| String::from_utf8_lossy(&file(name)).into_owned();
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        Process {
            // The kernel appends " (deleted)" to the path of a program that was replaced.
            program: program.trim_end_matches(" (deleted)").to_owned(),
            names: text("comm") + &text("cmdline").replace('\0', "\n"),
            // It may begin to wait between two reads, but not end and begin between three.
            handled: waiting(&text("syscall"))
                | handled(&text("status"))
                | waiting(&text("syscall")),
        }
    }

    /// Returns whether the process handles a signal. The kernel discards a signal to pid 1 that is
    /// neither blocked nor caught, pid_namespaces(7).
    fn handles(&self, signal: i32) -> bool {
        self.handled >> (signal - 1) & 1 == 1
    }

    /// Returns how this program is asked to halt.
    fn request(&self) -> Request {
        let command = |words: [&str; 2]| Request::Command(words.map(str::to_owned).into());
        let is_init = self
            .names
            .lines()
            .take(3)
            .any(|name| name.rsplit('/').next() == Some("init"));
        match self.program.as_str() {
            "systemd" => Request::Signal(HALT_SYSTEMD),
            // USR2 is "poweroff", TERM is "reboot".
            "busybox" if is_init => Request::Signal(Signal::SIGUSR2 as i32),
            // sysvinit ignores TERM and reads requests from a FIFO.
            "init" if !self.handles(Signal::SIGTERM as i32) => command(["telinit", "0"]),
            // runit(8) blocks TERM. `runit-init 0` creates /etc/runit/stopit and sends CONT.
            "runit" => command(["runit-init", "0"]),
            // openrc-init(8), dinit(8), s6-svscan(8), finit(8), tini(1), ob-reaper(1).
            _ => Request::Signal(Signal::SIGTERM as i32),
        }
    }
}

/// Returns all signals if the process waits in rt_sigtimedwait(2), as busybox init does.
///
/// For that time the kernel removes the signals from the mask in /proc/PID/status, see
/// do_sigtimedwait().
fn waiting(syscall: &str) -> u64 {
    let number = syscall.split(' ').next().and_then(|word| word.parse().ok());
    if number == Some(libc::SYS_rt_sigtimedwait) {
        u64::MAX
    } else {
        0
    }
}

/// Returns the signals in the lines SigBlk and SigCgt of /proc/PID/status. A process that uses
/// signalfd(2) blocks its signals.
fn handled(status: &str) -> u64 {
    let masks = status.lines().filter_map(|line| {
        let mask = line
            .strip_prefix("SigBlk:")
            .or_else(|| line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    masks.fold(0, |all, mask| all | mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_inits_get_the_signal_that_they_handle() {
        let term = 1 << (Signal::SIGTERM as i32 - 1);
        for (program, names, handled, request) in [
            ("systemd", "systemd\n/sbin/init\n", term, "Signal(37)"),
            ("busybox", "init\n/sbin/init\n", term, "Signal(12)"),
            ("busybox", "busybox\nbusybox\ninit\n", term, "Signal(12)"),
            ("busybox", "sh\n/bin/sh\n-c\nexec init", term, "Signal(15)"),
            (
                "init",
                "init\ninit [2]\n",
                0,
                r#"Command(["telinit", "0"])"#,
            ),
            ("init", "init\n/sbin/init\n", term, "Signal(15)"),
            (
                "runit",
                "runit\nrunit\n",
                term,
                r#"Command(["runit-init", "0"])"#,
            ),
            (
                "openrc-init",
                "openrc-init\n/sbin/openrc-init\n",
                term,
                "Signal(15)",
            ),
            ("dash", "sh\n/bin/sh\n", 0, "Signal(15)"),
        ] {
            let (program, names) = (program.to_owned(), names.to_owned());
            let process = Process {
                program,
                names,
                handled,
            };
            assert_eq!(
                format!("{:?}", process.request()),
                request,
                "{}",
                process.names
            );
        }
    }

    #[test]
    fn caught_and_blocked_signals_are_handled() {
        let status =
            "SigBlk:\t0000000000000800\nSigIgn:\t0000000000000001\nSigCgt:\t0000001000004000\n";
        let (program, names) = (String::new(), String::new());
        let process = Process {
            program,
            names,
            handled: handled(status),
        };
        let signals: Vec<i32> = (1..=64).filter(|signal| process.handles(*signal)).collect();
        assert_eq!(signals, [12, 15, 37]);
    }
}
