//! Runs programs under test and observes them from outside. Every wait has a bound.

#![allow(dead_code)] // each test program uses a part of this module

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The path of the program under test.
pub const REAPER: &str = env!("CARGO_BIN_EXE_ob-reaper");
/// The bound of every wait, longer than any event takes on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// Waits until `done` returns true. Panics with `what` after [`BOUND`].
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "timed out: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns a command that runs `ob-reaper` with these arguments.
pub fn reaper(args: &[&str]) -> Command {
    let mut command = Command::new(REAPER);
    command.args(args);
    // If a directory of PATH cannot be searched, execvp fails with EACCES instead of ENOENT.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Returns a command in which a shell runs `script` as pid 1 of a new pid namespace.
///
/// `$REAPER` is the path of the program. An ordinary user also gets a new user namespace.
pub fn world(script: &str) -> Command {
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.arg("-Ur");
    }
    command.args(["-mpf", "--kill-child", "--mount-proc", "sh", "-c", script]);
    command.env("REAPER", REAPER);
    command
}

/// The exit status and the output of a program.
#[derive(Debug)]
pub struct End {
    /// The exit status; None if a signal killed the program.
    pub status: Option<i32>,
    /// The part of standard output that the test had not read yet.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A running program, killed when it is dropped.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Running {
    /// Starts the program, with pipes for its standard streams.
    pub fn start(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the program (unshare is in util-linux)");
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let (send, errors) = channel();
        let mut err = child.stderr.take().unwrap();
        thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            let _ = send.send(text);
        });
        let input = child.stdin.take();
        Running {
            child,
            input,
            lines,
            errors,
        }
    }

    /// Returns the next line of standard output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(BOUND).expect("a line of output")
    }

    /// Waits until the program prints `ready` and all its descendants sleep.
    ///
    /// A shell that gets a signal just before it waits for a child runs the trap only after the
    /// child has exited.
    pub fn ready(&self) {
        assert_eq!(self.line(), "ready");
        until("all descendants sleep", || {
            below(self.pid()).iter().all(|&pid| state(pid) == Some('S'))
        });
    }

    /// Writes `text` to standard input.
    pub fn tell(&mut self, text: &str) {
        self.input
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Closes standard input.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Returns the pid of the program.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits until pid 1 of a [`world`] is the reaper. Returns its pid in this pid namespace.
    pub fn pid1(&self) -> i32 {
        let mut found = 0;
        until("ob-reaper is pid 1", || {
            found = children(self.pid()).first().copied().unwrap_or(0);
            name(found) == "ob-reaper" && waits(found)
        });
        found
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Returns whether the program is running.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until the program exits.
    pub fn end(mut self) -> End {
        until("the program exits", || !self.lives());
        let status = self.child.wait().unwrap().code();
        let err = self.errors.recv_timeout(BOUND).expect("the end of stderr");
        let mut out = String::new();
        while let Ok(line) = self.lines.recv_timeout(BOUND) {
            out += &line;
            out.push('\n');
        }
        End { status, out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program with an empty standard input until it exits.
pub fn run(command: Command) -> End {
    let mut running = Running::start(command);
    running.hang_up();
    running.end()
}

/// Sends a signal to a process.
pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the process exists");
}

/// Returns the pids of the children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Returns the pids of all descendants of a process.
fn below(pid: i32) -> Vec<i32> {
    let children = children(pid);
    let more: Vec<i32> = children.iter().flat_map(|&child| below(child)).collect();
    [children, more].concat()
}

/// Returns the name of a process, `/proc/PID/comm`.
pub fn name(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Returns the letter of the state of a process, or None if there is no such process.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')?..].chars().nth(2)
}

/// Returns the value of `key` in `/proc/PID/status`.
pub fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Returns whether the process waits for signals and none is pending.
pub fn waits(pid: i32) -> bool {
    let calls = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    state(pid) == Some('S')
        && status(pid, "ShdPnd") == "0000000000000000"
        && (calls.contains("sigtimedwait") || calls.len() < 2)
}

/// Returns the numbers of the open descriptors of a process.
pub fn descriptors(pid: i32) -> Vec<String> {
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("read the descriptors")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    open.sort();
    open
}
