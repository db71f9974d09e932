//! How many instructions a program executes: counted by stepping through them, for a machine may have no counter for them.

use crate::World;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::io::Write;
use std::thread;

impl World {
    /// Runs `exec PROGRAM` and tells how many instructions its process has executed since then, in whatever it became; those of its
    /// children are not counted. Fails the test if the program fails.
    #[must_use]
    pub fn instructions(&self, program: &str) -> usize {
        let (line, mut go, pid) = self.hold(program);
        let tracer = thread::spawn(move || {
            ptrace::seize(pid, Options::PTRACE_O_TRACEEXEC).expect("trace the line");
            go.write_all(b"go\n").expect("let the line go");
            let mut count = 0;
            let mut counts = false;
            loop {
                // Only what this thread traces: others wait for theirs.
                let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
                let signal = match waitpid(pid, Some(flags)).expect("wait for what is traced") {
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
                // It may have been killed meanwhile, which the next wait tells.
                let _ = if counts {
                    ptrace::step(pid, signal)
                } else {
                    ptrace::cont(pid, signal)
                };
            }
        });
        let done = line.wait();
        assert_eq!(done.status, 0, "{done:#?}");
        tracer.join().expect("the tracer's end")
    }
}
