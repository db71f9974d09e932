//! Lines of sh that run in a world, and their results.

use crate::BOUND;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

/// A line of sh that has not started.
pub struct Line {
    command: Command,
    line: String,
    input: String,
}

impl Line {
    /// Takes `command`, which enters a world and runs the text `line` there.
    pub(crate) fn new(command: Command, line: &str) -> Self {
        Line {
            command,
            line: line.to_owned(),
            input: String::new(),
        }
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the standard input, which is empty by default.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        text.clone_into(&mut self.input);
        self
    }

    /// Runs the line until it has exited and its output has reached EOF: a background process that
    /// holds the output open delays the return.
    #[track_caller]
    pub fn run(self) -> Done {
        self.start().wait()
    }

    /// Starts the line in the background.
    #[must_use]
    pub fn start(mut self) -> Running {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .expect("run sh; the tests need sh and nsenter(1)");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = self.input;
        // EPIPE if the line exits without reading all of its input.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
        let out = read_all(child.stdout.take().expect("a pipe"));
        let err = read_all(child.stderr.take().expect("a pipe"));
        Running {
            child,
            line: self.line,
            out,
            err,
        }
    }
}

/// A line of sh that runs. Dropping the value kills the line.
pub struct Running {
    child: Child,
    line: String,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Running {
    /// Waits until the line has exited.
    #[track_caller]
    pub fn wait(mut self) -> Done {
        let deadline = Instant::now() + BOUND;
        let left = || deadline.saturating_duration_since(Instant::now());
        let (out, err) = (self.out.recv_timeout(left()), self.err.recv_timeout(left()));
        let (Ok(out), Ok(err)) = (out.clone(), err.clone()) else {
            panic!(
                "timeout: {}\nstandard output: {out:?}, standard error: {err:?}",
                self.line
            );
        };
        let status = self.child.wait().expect("wait for the line");
        let status = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Done {
            line: self.line.clone(),
            status,
            out,
            err,
        }
    }

    /// Returns the pid of the process on the machine: nsenter(1), whose child is in the world.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the line still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The result of a line.
#[derive(Debug, Clone)]
pub struct Done {
    /// The line.
    pub line: String,
    /// The exit status, or 128+N if signal N killed the line.
    pub status: i32,
    /// The standard output.
    pub out: String,
    /// The standard error.
    pub err: String,
}

impl Done {
    /// Returns the standard output without the last newline; panics if the status is not 0.
    #[track_caller]
    pub fn ok(mut self) -> String {
        assert!(self.status == 0, "{self:#?}");
        if self.out.ends_with('\n') {
            self.out.pop();
        }
        self.out
    }

    /// Checks that the line exited with `status` and printed one line on standard error that
    /// contains all of `words`.
    #[track_caller]
    pub fn fails(&self, status: i32, words: &[&str]) -> &Self {
        assert_eq!(self.status, status, "{self:#?}");
        assert_eq!(self.err.lines().count(), 1, "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "no '{word}' in {self:#?}");
        }
        self
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        sender.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    receiver
}
