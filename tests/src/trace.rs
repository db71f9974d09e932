//! Injects a fault into one process at one step: kills the process there, or makes its system call
//! fail.
//!
//! strace(1) injects faults too, but into every process that reaches its Nth call, and it traces
//! until the last process has exited. Here a process is identified by its order of birth, so that
//! one process is hit, and all processes run untraced after the fault.

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

/// The order of birth of a process: `0` is the process of the line, `0.2` its third child.
pub type Role = String;

/// A fault. Steps and calls are counted from 1, beginning when the process of the line becomes the
/// program.
#[derive(Debug, Clone)]
pub enum Fault {
    /// No fault, to count the steps.
    None,
    /// Kills the process before its system call number `step`.
    Kill {
        /// The process.
        role: Role,
        /// The number of its system call.
        step: usize,
    },
    /// Makes the `nth` system call `call` of the process return `errno`, without executing it.
    Error {
        /// The process.
        role: Role,
        /// The number of the system call.
        call: i64,
        /// The count of this system call in the process.
        nth: usize,
        /// The error that it returns.
        errno: Errno,
    },
}

/// The history of a process.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// The names of the process, the last one last.
    pub names: Vec<String>,
    /// The number of system calls that it has entered.
    pub steps: usize,
    /// The number of entries by system call.
    pub calls: BTreeMap<i64, usize>,
}

/// The result of a line with a fault.
#[derive(Debug)]
pub struct Traced {
    /// The result of the line.
    pub done: Done,
    /// Whether the line reached the step of the fault.
    pub hit: bool,
    /// All processes up to the fault.
    pub lives: BTreeMap<Role, Life>,
}

// From linux/ptrace.h.
const ENTRY: u8 = 1;
const EXIT: u8 = 2;

/// A line is over when it has exited and no event has arrived for this time.
const SETTLED: Duration = Duration::from_millis(60);

impl World {
    /// Starts a line whose process becomes `program` after a line is written to the returned file.
    pub(crate) fn hold(&self, program: &str) -> (Running, File, Pid) {
        if !self.has("go") {
            self.ok("mkfifo go");
        }
        let line = self
            .line(&format!("read -r go <go; exec {program}"))
            .start();
        let mut go = None;
        until("the line to open its FIFO", || {
            let flags = libc::O_NONBLOCK;
            let opened = OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(self.at("go"));
            go = opened.ok();
            go.is_some()
        });
        let go = go.expect("open the FIFO");
        // The process of the line is nsenter; its only child is in the world.
        let holder = line.id();
        let children = std::fs::read_to_string(format!("/proc/{holder}/task/{holder}/children"));
        let children = children.expect("read the children of nsenter");
        let first = children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        let first = first.expect("find the child of nsenter");
        (line, go, Pid::from_raw(first))
    }

    /// Runs `exec PROGRAM` with a fault. Returns when the program has exited; processes that it
    /// left continue.
    ///
    /// Counting begins when the process of the line becomes `program`, and ends a moment after it
    /// has exited.
    #[must_use]
    pub fn run_with(&self, program: &str, fault: &Fault) -> Traced {
        let (line, mut go, first) = self.hold(program);
        let word = program.split(' ').next().expect("a word").to_owned();
        let fault = fault.clone();
        let (sender, receiver) = channel();
        let tracer = thread::spawn(move || {
            // The exit of this child wakes waitpid(2) when the line is over.
            let mut bell = Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("run cat(1)");
            let _ = sender.send(bell.stdin.take());
            let options = Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACEEXEC
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACECLONE;
            ptrace::seize(first, options).expect("trace the line");
            ptrace::interrupt(first).expect("stop the line");
            go.write_all(b"go\n").expect("release the line");
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
            // The kernel detaches all tracees when this thread exits.
            (tracer.lives, tracer.hit)
        });
        let bell = receiver.recv().expect("start the tracer");
        let done = line.wait();
        thread::sleep(SETTLED);
        drop(bell);
        let (lives, hit) = tracer.join().expect("join the tracer");
        Traced { done, hit, lives }
    }
}

/// A traced process.
struct Tracee {
    role: Role,
    /// Whether the process is the program or a descendant.
    counts: bool,
    children: usize,
    /// The error that its current call must return.
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
    /// Processes whose first stop arrived before the fork event of their parent.
    early: Vec<Pid>,
    hit: bool,
}

impl Tracer {
    /// Handles events until the fault has happened or `bell` has exited.
    fn watch(&mut self, bell: &Child) {
        let bell = Pid::from_raw(i32::try_from(bell.id()).expect("a number"));
        // Other threads wait for other children and tracees.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let status = match waitpid(None, Some(flags)) {
                Err(Errno::EINTR) => continue,
                status => status.expect("wait for a tracee"),
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
        let parent = self.known.get_mut(&pid).expect("a known parent");
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

    /// Records the name of a process.
    fn name(&mut self, pid: Pid) {
        let tracee = self.known.get_mut(&pid).expect("a known process");
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

    /// Handles the entry or exit of a system call. Returns whether the fault has happened.
    fn step(&mut self, pid: Pid) -> bool {
        let (Some(tracee), Ok(info)) = (self.known.get_mut(&pid), ptrace::syscall_info(pid)) else {
            return false;
        };
        let pending = tracee.pending.take_if(|_| info.op == EXIT);
        if let Some(errno) = pending {
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
                // With an invalid number, the kernel executes nothing and returns ENOSYS; the exit
                // stop replaces that.
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
    // ESRCH if the process was killed.
    let _ = ptrace::syscall(pid, signal);
}
