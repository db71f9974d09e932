//! The kernel, in small safe wrappers: the only place with `unsafe` but the entry.
//!
//! Most functions are those of the C library, since it knows the calling convention of every machine. None of them allocates.

mod args;
mod fifo;
mod signals;

pub use args::Args;
pub use fifo::Fifo;
pub use signals::SignalSet;

use core::ffi::{CStr, c_int, c_uint, c_ulong};

/// The pid that stands for every process but pid 1 and ourselves.
pub const EVERYBODY: i32 = -1;

/// The kernel's reason for a failure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(c_int);

impl Errno {
    pub const NO_CHILD: Errno = Errno(libc::ECHILD);
    pub const NO_SUCH_FILE: Errno = Errno(libc::ENOENT);
    pub const NO_SUCH_PROCESS: Errno = Errno(libc::ESRCH);

    fn last() -> Errno {
        // SAFETY: the C library always has a place for it.
        Errno(unsafe { *libc::__errno_location() })
    }

    /// Takes the result of a system call, -1 being the failure.
    fn check(result: c_int) -> Result<c_int, Errno> {
        if result == -1 {
            Err(Errno::last())
        } else {
            Ok(result)
        }
    }

    /// In words.
    pub fn text(self) -> &'static [u8] {
        // SAFETY: strerror gives a string with an end, which stays: with one thread, until it is called again.
        unsafe { CStr::from_ptr(libc::strerror(self.0)) }.to_bytes()
    }
}

/// The value of a variable of the environment.
pub fn environment(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: getenv gives null or a string with an end; nobody here changes the environment.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes())
    }
}

/// Writes all of `bytes`.
pub fn write_all(fd: c_int, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads no more than the slice has.
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

/// Closes every descriptor from `first` on, so that we keep no file, pipe or mount of anybody busy.
pub fn close_from(first: c_int) {
    // SAFETY: closes descriptors that this program does not use.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) == 0 {
            return;
        }
        // Linux before 5.9, or a filter of system calls that is older than this one.
        let last = libc::sysconf(libc::_SC_OPEN_MAX).clamp(0, 65_536);
        for fd in first..c_int::try_from(last).unwrap_or(first) {
            libc::close(fd);
        }
    }
}

/// Our pid, as our pid namespace numbers it.
pub fn pid() -> i32 {
    // SAFETY: cannot fail, touches no memory.
    unsafe { libc::getpid() }
}

/// Sends `signal` to `target`: a pid, minus a group, or [`EVERYBODY`].
pub fn kill(target: i32, signal: c_int) -> Result<(), Errno> {
    // SAFETY: touches no memory of ours.
    Errno::check(unsafe { libc::kill(target, signal) }).map(drop)
}

/// Has ALRM sent to us in so many seconds.
pub fn alarm(seconds: u32) {
    // SAFETY: cannot fail, touches no memory.
    unsafe { libc::alarm(seconds) };
}

/// How a process ended.
#[derive(Clone, Copy)]
pub struct Status(c_int);

impl Status {
    /// Its exit status, or 128+N where signal N ended it.
    pub fn code(self) -> u8 {
        let code = if libc::WIFSIGNALED(self.0) {
            128 + libc::WTERMSIG(self.0)
        } else {
            libc::WEXITSTATUS(self.0)
        };
        // Eight bits are all that the kernel keeps.
        (code & 0xff) as u8
    }
}

/// What became of the children.
pub enum Wait {
    /// This one has ended and is reaped.
    Ended(i32, Status),
    /// All that there are live.
    NotYet,
    /// There is none.
    NoChild,
}

/// Reaps one child that has ended, of whatever kind; does not wait for it.
pub fn wait() -> Wait {
    let mut status = 0;
    // SAFETY: the kernel writes the status to where we say.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) } {
        0 => Wait::NotYet,
        -1 => Wait::NoChild,
        pid => Wait::Ended(pid, Status(status)),
    }
}

/// Makes a child that does `run` and ends with the status it returns. Returns its pid.
pub fn fork(run: impl FnOnce() -> u8) -> Result<i32, Errno> {
    // SAFETY: with one thread, the child is as good a process as we are.
    let pid = Errno::check(unsafe { libc::fork() })?;
    if pid == 0 {
        let status = run();
        // SAFETY: ends the child without what our own end would do.
        unsafe { libc::_exit(c_int::from(status)) }
    }
    Ok(pid)
}

/// Ends the process at once, as a failure of its own.
#[cfg(not(test))]
pub fn abort() -> ! {
    // SAFETY: does not return.
    unsafe { libc::abort() }
}

/// Makes `pid` (0: ourselves) the leader of a group of its own.
pub fn lead_group(pid: i32) {
    // SAFETY: touches no memory. It fails if the process has exec'd or ended already, when there is nothing left to do.
    unsafe { libc::setpgid(pid, pid) };
}

/// Whether standard input is our terminal and we are in its foreground, so that it is ours to hand on.
pub fn in_foreground() -> bool {
    // SAFETY: touch no memory of ours.
    unsafe { libc::tcgetpgrp(0) == libc::getpgrp() }
}

/// Puts our own group into the foreground of the terminal. For a process that has TTOU blocked.
pub fn take_foreground() {
    // SAFETY: touches no memory of ours. A terminal that is gone meanwhile needs no foreground.
    unsafe { libc::tcsetpgrp(0, libc::getpgrp()) };
}

/// The same, if `group` still is there: somebody else may have been put there meanwhile.
pub fn take_foreground_from(group: i32) {
    // SAFETY: touches no memory of ours.
    if unsafe { libc::tcgetpgrp(0) } == group {
        take_foreground();
    }
}

/// prctl(2) with a number.
fn prctl(option: c_int, value: c_ulong) -> Result<(), Errno> {
    // SAFETY: only called with options that take a number; the kernel wants the unused ones to be 0.
    Errno::check(unsafe { libc::prctl(option, value, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) })
        .map(drop)
}

/// Has orphans below us become our children.
pub fn become_subreaper() -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Whether orphans below us become our children (pid 1 aside).
pub fn is_subreaper() -> bool {
    let mut answer: c_int = 0;
    // SAFETY: the kernel writes one int to where we say.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut answer) == 0 && answer != 0 }
}

/// Has `signal` sent to us when our parent ends.
pub fn hear_of_parent(signal: c_int) -> Result<(), Errno> {
    prctl(
        libc::PR_SET_PDEATHSIG,
        c_ulong::from(signal.cast_unsigned()),
    )
}

/// Gives the process a name, of which the kernel keeps 15 bytes.
pub fn name_process(name: &CStr) {
    // SAFETY: the kernel reads up to the end of the string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Has CHLD sent to us again if whoever started us ignored it, in which case the kernel reaps by itself and says nothing.
///
/// Returns whether that was so.
pub fn hear_of_children() -> bool {
    // SAFETY: SIG_DFL is an action that signal(2) knows; there is no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) == libc::SIG_IGN }
}

/// Undoes [`hear_of_children`], for a child that shall find what we found.
pub fn ignore_children() {
    // SAFETY: SIG_IGN is an action that signal(2) knows; there is no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}
