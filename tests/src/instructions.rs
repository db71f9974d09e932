//! Counts the instructions that a program executes, by single steps of ptrace(2): a virtual machine
//! may have no hardware counter.

use crate::World;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::io::Write;
use std::thread;

impl World {
    /// Runs `exec PROGRAM` and returns the number of instructions of that process after the exec,
    /// including later execs but not children. Panics if the program fails.
    #[must_use]
    pub fn instructions(&self, program: &str) -> usize {
        let (line, mut go, pid) = self.hold(program);
        let tracer = thread::spawn(move || {
            ptrace::seize(pid, Options::PTRACE_O_TRACEEXEC).expect("trace the line");
            go.write_all(b"go\n").expect("release the line");
            let mut count = 0;
            let mut counts = false;
            loop {
                // Other threads wait for other tracees.
                let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
                let signal = match waitpid(pid, Some(flags)).expect("wait for the tracee") {
                    WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return count,
                    WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => {
                        counts = true;
                        None
                    }
                    WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                        count += 1;
                        None
                    }
                    WaitStatus::Stopped(_, signal) => Some(signal),
                    _ => None,
                };
                // ESRCH if the tracee was killed; the next waitpid(2) reports that.
                let _ = if counts {
                    ptrace::step(pid, signal)
                } else {
                    ptrace::cont(pid, signal)
                };
            }
        });
        let done = line.wait();
        assert_eq!(done.status, 0, "{done:#?}");
        tracer.join().expect("join the tracer")
    }
}
