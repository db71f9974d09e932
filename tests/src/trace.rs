//! Faults put into one process of a line at one step: it is killed there, or the system call there fails.
//!
//! strace(1) injects too, but into every process that comes to its own N-th call, and it stays until the last of them has ended.
//! Here a process is known by its birth, so that each is hit alone, and all run free from the moment that it is.

use crate::{Done, Running, World, until};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// A process by its birth: `0` is that of the line, `0.2` its third child.
pub type Role = String;

/// What is to go wrong. Steps and calls are counted from 1, from the moment that the line's process becomes the program.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing: for counting.
    None,
    /// The process is killed when it is about to make its system call number `step`.
    Kill {
        /// Which process.
        role: Role,
        /// At which of its calls.
        step: usize,
    },
    /// The process is told `errno` instead of having its `nth` system call of the number `call` done.
    Error {
        /// Which process.
        role: Role,
        /// The number of the call.
        call: i64,
        /// Which of those.
        nth: usize,
        /// What it is told.
        errno: Errno,
    },
}

/// What a process has done.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// The names that it has had, the last one last.
    pub names: Vec<String>,
    /// How many system calls it has begun.
    pub steps: usize,
    /// How often which.
    pub calls: BTreeMap<i64, usize>,
}

/// How a line with a fault has ended.
#[derive(Debug)]
pub struct Traced {
    /// The line's own end.
    pub done: Done,
    /// Whether it came to the step of the fault.
    pub hit: bool,
    /// All processes that there were up to then.
    pub lives: BTreeMap<Role, Life>,
}

// Of linux/ptrace.h.
const ENTRY: u8 = 1;
const EXIT: u8 = 2;

/// How long nothing may happen before a line that has ended counts as over, with all that it has left running.
const SETTLED: Duration = Duration::from_millis(60);

impl World {
    /// Starts a line whose process will become `program` when it reads something from the file that is returned.
    pub(crate) fn hold(&self, program: &str) -> (Running, File, Pid) {
        if !self.has("go") {
            self.ok("mkfifo go");
        }
        let line = self
            .line(&format!("read -r go <go; exec {program}"))
            .start();
        let mut go = None;
        until("the line to begin", || {
            let flags = libc::O_NONBLOCK;
            let opened = OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(self.at("go"));
            go = opened.ok();
            go.is_some()
        });
        let go = go.expect("it is open");
        // What was started is nsenter, whose one child is in the world.
        let holder = line.id();
        let children = std::fs::read_to_string(format!("/proc/{holder}/task/{holder}/children"));
        let children = children.expect("the children of nsenter");
        let first = children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        let first = first.expect("a child of nsenter");
        (line, go, Pid::from_raw(first))
    }

    /// Runs `exec PROGRAM` with a fault in it. It ends when the program has; what that has left running goes on.
    ///
    /// Counting begins when the line's process becomes what `program` names, and ends a moment after it has ended.
    #[must_use]
    pub fn run_with(&self, program: &str, fault: &Fault) -> Traced {
        let (line, mut go, first) = self.hold(program);
        let word = program.split(' ').next().expect("a word").to_owned();
        let fault = fault.clone();
        let (sender, receiver) = channel();
        let tracer = thread::spawn(move || {
            // The end of this wakes us when the line is over.
            let mut bell = Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("cat(1) is needed");
            let _ = sender.send(bell.stdin.take());
            let options = Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACEEXEC
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACECLONE;
            ptrace::seize(first, options).expect("trace the line");
            ptrace::interrupt(first).expect("stop the line");
            go.write_all(b"go\n").expect("let the line go");
            let mut tracer = Tracer {
                word,
                fault,
                lives: BTreeMap::new(),
                known: HashMap::new(),
                early: Vec::new(),
                hit: false,
            };
            tracer
                .known
                .insert(first, Tracee::new("0".to_owned(), false));
            tracer.watch(&bell);
            let _ = bell.kill();
            let _ = bell.wait();
            // The kernel lets go of all that we trace when this thread ends.
            (tracer.lives, tracer.hit)
        });
        let bell = receiver.recv().expect("a tracer");
        let done = line.wait();
        thread::sleep(SETTLED);
        drop(bell);
        let (lives, hit) = tracer.join().expect("the tracer's end");
        Traced { done, hit, lives }
    }
}

/// A process that we trace.
struct Tracee {
    role: Role,
    /// Whether it is the program, or was born by it.
    counts: bool,
    children: usize,
    /// What its call is to end with.
    pending: Option<Errno>,
}

impl Tracee {
    fn new(role: Role, counts: bool) -> Self {
        Tracee {
            role,
            counts,
            children: 0,
            pending: None,
        }
    }
}

struct Tracer {
    word: String,
    fault: Fault,
    lives: BTreeMap<Role, Life>,
    known: HashMap<Pid, Tracee>,
    /// Stopped before we heard of their birth.
    early: Vec<Pid>,
    hit: bool,
}

impl Tracer {
    /// Goes on until the fault has happened, or the bell rings.
    fn watch(&mut self, bell: &Child) {
        let bell = Pid::from_raw(i32::try_from(bell.id()).expect("a number"));
        // Only what this thread has started or traces: others wait for theirs.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let status = match waitpid(None, Some(flags)) {
                Err(Errno::EINTR) => continue,
                status => status.expect("wait for what is traced"),
            };
            match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) if pid == bell => {
                    return;
                }
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => {
                    self.known.remove(&pid);
                }
                WaitStatus::PtraceSyscall(pid) => {
                    if self.step(pid) {
                        return;
                    }
                    go_on(pid, None);
                }
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                    self.name(pid);
                    go_on(pid, None);
                }
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_STOP) => {
                    if self.known.contains_key(&pid) {
                        go_on(pid, None);
                    } else {
                        self.early.push(pid);
                    }
                }
                WaitStatus::PtraceEvent(pid, _, _) => {
                    self.give_birth(pid);
                    go_on(pid, None);
                }
                WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
                _ => {}
            }
        }
    }

    fn give_birth(&mut self, pid: Pid) {
        let Ok(child) = ptrace::getevent(pid) else {
            return;
        };
        let child = Pid::from_raw(i32::try_from(child).expect("a number"));
        let parent = self.known.get_mut(&pid).expect("a parent that is known");
        let role = format!("{}.{}", parent.role, parent.children);
        parent.children += 1;
        let counts = parent.counts;
        self.known.insert(child, Tracee::new(role, counts));
        self.name(child);
        if let Some(place) = self.early.iter().position(|early| *early == child) {
            self.early.remove(place);
            go_on(child, None);
        }
    }

    /// Notes what a process is now.
    fn name(&mut self, pid: Pid) {
        let tracee = self.known.get_mut(&pid).expect("a process that is known");
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        tracee.counts |= command
            .split(' ')
            .any(|word| word == self.word || word.ends_with(&format!("/{}", self.word)));
        if tracee.counts {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let life = self.lives.entry(tracee.role.clone()).or_default();
            life.names.push(name.trim().to_owned());
        }
    }

    /// A process begins or ends a system call. Tells whether the fault has happened.
    fn step(&mut self, pid: Pid) -> bool {
        let (Some(tracee), Ok(info)) = (self.known.get_mut(&pid), ptrace::syscall_info(pid)) else {
            return false;
        };
        if info.op == EXIT
            && let Some(errno) = tracee.pending.take()
        {
            if let Ok(mut registers) = ptrace::getregs(pid) {
                registers.rax = u64::from_ne_bytes((-i64::from(errno as i32)).to_ne_bytes());
                let _ = ptrace::setregs(pid, registers);
            }
            self.hit = true;
            return true;
        }
        if info.op != ENTRY || !tracee.counts {
            return false;
        }
        let Ok(mut registers) = ptrace::getregs(pid) else {
            return false;
        };
        let number = i64::from_ne_bytes(registers.orig_rax.to_ne_bytes());
        let life = self.lives.entry(tracee.role.clone()).or_default();
        life.steps += 1;
        let count = life.calls.entry(number).or_default();
        *count += 1;
        match &self.fault {
            Fault::Kill { role, step } if *role == tracee.role && *step == life.steps => {
                let _ = kill(pid, Signal::SIGKILL);
                self.hit = true;
                true
            }
            Fault::Error {
                role,
                call,
                nth,
                errno,
            } if *role == tracee.role && *call == number && nth == count => {
                // A call of no number: the kernel does nothing, and we say how it has ended.
                registers.orig_rax = u64::MAX;
                let _ = ptrace::setregs(pid, registers);
                tracee.pending = Some(*errno);
                false
            }
            _ => false,
        }
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    // It may have been killed meanwhile.
    let _ = ptrace::syscall(pid, signal);
}
