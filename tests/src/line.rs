//! A line of sh that is run in a world, and its result.

use crate::BOUND;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

/// A line of sh that is going to be run.
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

    /// With one more variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With `text` as its standard input, which is empty else.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        text.clone_into(&mut self.input);
        self
    }

    /// Runs it to its end, and to the end of its output: something that it left behind with that open is waited for too.
    #[track_caller]
    pub fn run(self) -> Done {
        self.start().wait()
    }

    /// Starts it.
    #[must_use]
    pub fn start(mut self) -> Running {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("sh and nsenter(1) are needed");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let input = self.input;
        // It may end without having read it.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
        let out = read_all(child.stdout.take().expect("it is a pipe"));
        let err = read_all(child.stderr.take().expect("it is a pipe"));
        Running {
            child,
            line: self.line,
            out,
            err,
        }
    }
}

/// A line of sh that runs. It is killed when it goes out of scope.
pub struct Running {
    child: Child,
    line: String,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Running {
    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Done {
        let deadline = Instant::now() + BOUND;
        let left = || deadline.saturating_duration_since(Instant::now());
        let (out, err) = (self.out.recv_timeout(left()), self.err.recv_timeout(left()));
        let (Ok(out), Ok(err)) = (out.clone(), err.clone()) else {
            panic!("no end of: {}\nof its output: {out:?}, {err:?}", self.line);
        };
        let status = self.child.wait().expect("its status");
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

    /// The number of its process, on the machine: nsenter(1), whose child is in the world.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs still.
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

/// How a line ended and what it said.
#[derive(Debug, Clone)]
pub struct Done {
    /// The line.
    pub line: String,
    /// Its status, 128+N if signal N ended it.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Done {
    /// What it printed, without the last newline; panics if it has failed.
    #[track_caller]
    pub fn ok(mut self) -> String {
        assert!(self.status == 0, "{self:#?}");
        if self.out.ends_with('\n') {
            self.out.pop();
        }
        self.out
    }

    /// Checks that it has failed with `status` and said one line, which holds all of `words`.
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
