//! Safe wrappers of system calls; apart from the entry point, the only code with `unsafe`.
//!
//! Most are functions of the C library, which has the calling convention of each architecture. None
//! of them allocates memory.

mod args;
mod errno;
mod fifo;
mod signals;

pub use args::Args;
pub use errno::Errno;
pub use fifo::Fifo;
pub use signals::SignalSet;

use core::ffi::{CStr, c_int, c_uint, c_ulong};

/// The target of `kill(2)` for every process but pid 1 and the caller.
pub const ALL_PROCESSES: i32 = -1;

/// Returns the value of the environment variable `name`.
pub fn getenv(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: getenv returns null or a terminated string, and this program never changes the
    // environment.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes())
    }
}

/// Writes all of `bytes` to `fd`.
pub fn write_all(fd: c_int, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads no more than the length of the slice.
        match unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } {
            -1 if Errno::last() == Errno(libc::EINTR) => {}
            written => {
                let written = usize::try_from(written).map_err(|_| Errno::last())?;
                bytes = bytes.get(written..).unwrap_or_default();
            }
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on.
///
/// An inherited descriptor would keep its file, pipe or mount busy as long as pid 1 runs.
pub fn close_from(first: c_int) {
    // SAFETY: closes descriptors that this program does not use.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) == 0 {
            return;
        }
        // ENOSYS before Linux 5.9, or an error from a seccomp filter that does not know the call.
        let last = libc::sysconf(libc::_SC_OPEN_MAX).clamp(0, 65_536);
        for fd in first..c_int::try_from(last).unwrap_or(first) {
            libc::close(fd);
        }
    }
}

/// Returns the pid of this process in its pid namespace.
pub fn pid() -> i32 {
    // SAFETY: cannot fail, touches no memory.
    unsafe { libc::getpid() }
}

/// Sends `signal` to `target`: a pid, the negative of a process group, or [`ALL_PROCESSES`].
pub fn kill(target: i32, signal: c_int) -> Result<(), Errno> {
    // SAFETY: touches no memory.
    Errno::check(unsafe { libc::kill(target, signal) }).map(drop)
}

/// Has the kernel send SIGALRM to this process after `seconds`.
pub fn alarm(seconds: u32) {
    // SAFETY: cannot fail, touches no memory.
    unsafe { libc::alarm(seconds) };
}

/// The wait status of a process, `wait(2)`.
#[derive(Clone, Copy)]
pub struct Status(c_int);

impl Status {
    /// Returns the exit status, or 128+N if signal N killed the process.
    pub fn code(self) -> u8 {
        let code = if libc::WIFSIGNALED(self.0) {
            128 + libc::WTERMSIG(self.0)
        } else {
            libc::WEXITSTATUS(self.0)
        };
        // Both have at most eight bits.
        (code & 0xff) as u8
    }
}

/// The result of [`try_wait`].
pub enum Wait {
    /// The child with this pid has exited, and was reaped.
    Reaped(i32, Status),
    /// All children are running.
    AllRunning,
    /// This process has no child.
    NoChild,
}

/// Reaps one child that has exited. Does not wait.
///
/// `__WALL` includes children that were created with another exit signal than SIGCHLD, `clone(2)`.
pub fn try_wait() -> Wait {
    let mut status = 0;
    // SAFETY: the kernel writes an int that is valid during the call.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) } {
        0 => Wait::AllRunning,
        -1 => Wait::NoChild,
        pid => Wait::Reaped(pid, Status(status)),
    }
}

/// Forks a child that runs `run` and exits with the status that it returns. Returns its pid.
pub fn fork(run: impl FnOnce() -> u8) -> Result<i32, Errno> {
    // SAFETY: this program has one thread, so the child may call any function.
    let pid = Errno::check(unsafe { libc::fork() })?;
    if pid == 0 {
        let status = run();
        // SAFETY: ends the child without the exit handlers of its parent.
        unsafe { libc::_exit(c_int::from(status)) }
    }
    Ok(pid)
}

/// Ends this process with SIGABRT.
#[cfg(not(test))]
pub fn abort() -> ! {
    // SAFETY: does not return.
    unsafe { libc::abort() }
}

/// Makes the process `pid` (0: the calling process) the leader of a new process group.
///
/// Fails silently if the process has already called `execve(2)` or exited, `setpgid(2)`.
pub fn create_process_group(pid: i32) {
    // SAFETY: touches no memory.
    unsafe { libc::setpgid(pid, pid) };
}

/// Returns whether the process group of this process is the foreground of its terminal.
///
/// Standard input must be that terminal.
pub fn is_foreground() -> bool {
    // SAFETY: both calls touch no memory.
    unsafe { libc::tcgetpgrp(0) == libc::getpgrp() }
}

/// Makes the process group of this process the foreground of the terminal on standard input.
///
/// SIGTTOU must be blocked, since the kernel sends it to a background process that calls this,
/// `tcsetpgrp(3)`. Fails silently if the terminal is gone.
pub fn become_foreground() {
    // SAFETY: touches no memory.
    unsafe { libc::tcsetpgrp(0, libc::getpgrp()) };
}

/// Calls [`become_foreground`] if `group` is the foreground of the terminal.
///
/// If another process group is, a shell has put it there in the meantime.
pub fn take_foreground_from(group: i32) {
    // SAFETY: touches no memory.
    if unsafe { libc::tcgetpgrp(0) } == group {
        become_foreground();
    }
}

/// Calls `prctl(2)` with an option whose argument is a number.
fn prctl(option: c_int, value: c_ulong) -> Result<(), Errno> {
    // SAFETY: the callers pass options that take a number. The kernel requires zero for the unused
    // arguments.
    Errno::check(unsafe { libc::prctl(option, value, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) })
        .map(drop)
}

/// Makes this process a subreaper: orphaned descendants become its children.
pub fn become_subreaper() -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Returns whether this process is a subreaper.
pub fn is_subreaper() -> bool {
    let mut answer: c_int = 0;
    // SAFETY: the kernel writes an int that is valid during the call.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut answer) == 0 && answer != 0 }
}

/// Has the kernel send `signal` to this process when its parent exits.
pub fn set_parent_death_signal(signal: c_int) -> Result<(), Errno> {
    prctl(libc::PR_SET_PDEATHSIG, c_ulong::from(signal as u32))
}

/// Sets the name of this process in `/proc/PID/comm`. The kernel truncates it to 15 bytes.
pub fn set_process_name(name: &CStr) {
    // SAFETY: the kernel reads a terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Restores the default action of SIGCHLD. Returns whether the signal was ignored.
///
/// An ignored signal stays ignored over `execve(2)`. While SIGCHLD is ignored, the kernel reaps the
/// children itself and sends no signal, `sigaction(2)`.
pub fn reset_sigchld() -> bool {
    // SAFETY: SIG_DFL is a valid action and no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) == libc::SIG_IGN }
}

/// Ignores SIGCHLD: undoes [`reset_sigchld`] for a child that must find what its caller set.
pub fn ignore_sigchld() {
    // SAFETY: SIG_IGN is a valid action and no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}
