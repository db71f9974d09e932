//! Programs under test, watched from outside; every wait is for an event and has an end.

#![allow(dead_code)] // each test program uses some of it

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The program.
pub const REAPER: &str = env!("CARGO_BIN_EXE_ob-reaper");
/// Longer than anything here takes on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// Waits until `done`; panics with `what` if that does not come.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// `ob-reaper` with these arguments.
pub fn reaper(args: &[&str]) -> Command {
    let mut command = Command::new(REAPER);
    command.args(args);
    // A directory that may not be searched makes of "not found" a "permission denied".
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// A shell that runs `script` as pid 1 of a pid namespace (and a user namespace, if we are not root); $REAPER is the program.
pub fn world(script: &str) -> Command {
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.arg("-Ur");
    }
    command.args(["-mpf", "--kill-child", "--mount-proc", "sh", "-c", script]);
    command.env("REAPER", REAPER);
    command
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct End {
    /// Its status; None if a signal ended it.
    pub status: Option<i32>,
    /// What had not been read yet of its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A running program. It is killed when it goes out of scope.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Running {
    /// Starts it, with pipes.
    pub fn start(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts (unshare is of util-linux)");
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

    /// The next line of its standard output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(BOUND).expect("a line of output")
    }

    /// Waits until it says `ready` and all below it sleep: a shell that gets a signal just before it begins to wait for
    /// something heeds it only afterwards.
    pub fn ready(&self) {
        assert_eq!(self.line(), "ready");
        until("all of them sleep", || {
            below(self.pid()).iter().all(|&pid| state(pid) == Some('S'))
        });
    }

    /// Writes to its standard input.
    pub fn tell(&mut self, text: &str) {
        self.input
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Ends its standard input.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The pid, seen from here, of pid 1 of a [`world`], once that is the reaper.
    pub fn pid1(&self) -> i32 {
        let mut found = 0;
        until("ob-reaper is pid 1", || {
            found = children(self.pid()).first().copied().unwrap_or(0);
            name(found) == "ob-reaper" && waits(found)
        });
        found
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Whether it runs still.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn end(mut self) -> End {
        until("the program ends", || !self.lives());
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

/// Runs a program to its end.
pub fn run(command: Command) -> End {
    let mut running = Running::start(command);
    running.hang_up();
    running.end()
}

/// Sends a signal.
pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}

/// The children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// All processes below a process.
fn below(pid: i32) -> Vec<i32> {
    let children = children(pid);
    let more: Vec<i32> = children.iter().flat_map(|&child| below(child)).collect();
    [children, more].concat()
}

/// The short name of a process.
pub fn name(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// The letter of its state; none when it is gone.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')?..].chars().nth(2)
}

/// A line of /proc/PID/status.
pub fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Whether the process is in its loop with no signal left to look at.
pub fn waits(pid: i32) -> bool {
    let calls = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    state(pid) == Some('S')
        && status(pid, "ShdPnd") == "0000000000000000"
        && (calls.contains("sigtimedwait") || calls.len() < 2)
}

/// The descriptors that a process has open.
pub fn descriptors(pid: i32) -> Vec<String> {
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    open.sort();
    open
}
