//! Processes in new namespaces, and descriptors of processes.

use crate::descriptor;
use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int, c_uint, pid_t};
use nix::sys::signal::{self, SigHandler, SigSet, Signal};
use nix::unistd::{Pid, execve};
use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A child process and the descriptor that stays true to it when its number is used again.
pub struct Child {
    /// Its number in our pid namespace.
    pub pid: Pid,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
}

/// Or-ed `libc::CLONE_NEW*`, and `CLONE_PARENT` for a sibling. A plain number, since nix's flags lack the time namespace.
pub type Namespaces = c_int;

/// Where programs are looked for if the caller does not say.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Wider than the type that libc gives it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a child in new `namespaces`, in `cgroup` where one is given (a directory of a cgroup2 tree), that does `run` and ends
/// with the status it returns.
///
/// Like `clone3(2)`: Linux 5.3, 5.7 for `cgroup`. Only for a process with one thread, which all our tools are.
pub fn spawn(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd>,
    run: impl FnOnce() -> u8,
) -> Result<Child> {
    // SAFETY: clone_args is a plain structure of numbers, for which zero means "not asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(namespaces.cast_unsigned());
    if cgroup.is_some() {
        args.flags |= CLONE_INTO_CGROUP;
    }
    // A sibling (CLONE_PARENT) is announced to our common parent as we are; the kernel wants nothing else said.
    if namespaces & libc::CLONE_PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    args.cgroup = cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned()));
    let mut pidfd: RawFd = -1;
    args.flags |= libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    // SAFETY: without CLONE_VM, which is none of the namespaces, this is fork(2): the child has a copy of all our memory, and with one
    // thread no lock can be held by a thread that is not there any more. The kernel writes `pidfd` before it returns in the parent.
    let pid = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        let status = run();
        // SAFETY: ends this process at once, without the exit handlers that are its parent's.
        unsafe { libc::_exit(c_int::from(status)) }
    }
    // SAFETY: CLONE_PIDFD gave us this descriptor.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child {
        pid: Pid::from_raw(pid_t::try_from(pid).map_err(|_| Errno::ERANGE)?),
        pidfd,
    })
}

/// Opens a descriptor of the process `pid`. `ESRCH`: there is none. Like `pidfd_open(2)`: Linux 5.3.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: takes numbers, makes a descriptor (which is close-on-exec from birth).
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

/// Sends `signal` to the process behind `pidfd`, nothing but a test with `None`. `ESRCH`: it has ended and was reaped.
pub fn pidfd_signal(pidfd: impl AsFd, signal: impl Into<Option<Signal>>) -> Result<()> {
    let signal = signal.into().map_or(0, |signal| signal as c_int);
    // SAFETY: takes numbers, and no siginfo.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Marks every descriptor from `first` on as close-on-exec, so that what we exec next starts with those below alone.
///
/// Like `close_range(2)` with `CLOSE_RANGE_CLOEXEC` (Linux 5.11); an older kernel is told one descriptor after the other.
pub fn close_on_exec_from(first: RawFd) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_uint = 4;
    // SAFETY: only sets a flag of descriptors; they stay open and owned.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let open = std::fs::read_dir("/proc/self/fd").map_err(|_| Errno::ENOSYS)?;
    for fd in open.flatten() {
        let fd = fd.file_name().to_str().and_then(|fd| fd.parse().ok());
        if let Some(fd) = fd.filter(|fd| *fd >= first) {
            // SAFETY: as above. A number that has been closed meanwhile (the directory's own) gives EBADF.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Closes every descriptor of this process but `kept`, whoever in it owns them: for a child that is to hold nothing else of what
/// its parent had. It must use no other one any more. Like `close_range(2)`: Linux 5.9.
pub fn close_all_but(kept: &[BorrowedFd]) -> Result<()> {
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept.into_iter().chain([RawFd::MAX]) {
        if first < fd {
            // SAFETY: takes numbers. The owners of what it closes are left with EBADF, which our caller has been told.
            let closed = unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
            Errno::result(closed)?;
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

/// Whether this process was started with `signal` ignored, as `nohup` does.
#[must_use]
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: a sigaction is plain data; the kernel writes one that lives over the call, and changes nothing.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: see above.
    let asked = unsafe { libc::sigaction(signal as c_int, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Sees to it that children can be waited for, also where our parent has told us to ignore them.
pub fn heed_children() {
    // SAFETY: the default action is no handler of ours.
    let _ = unsafe { signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Removes from `PATH` what is no absolute path. An empty or relative element is the working directory, which may be another
/// user's, and a program found there would run with our rights. Without any other element it is the usual directories.
///
/// Only for the beginning of a program, which has one thread.
pub fn keep_absolute_path() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_absolute = |element: &&[u8]| element.starts_with(b"/");
    let all = path.as_bytes().split(|byte| *byte == b':');
    if all.clone().all(|element| is_absolute(&element)) {
        return;
    }
    let kept: Vec<&[u8]> = all.filter(is_absolute).collect();
    let kept = match kept.as_slice() {
        [] => USUAL_PATH.as_bytes().to_vec(),
        kept => kept.join(&b':'),
    };
    // SAFETY: no other thread reads or changes the environment meanwhile, since there is none.
    unsafe { std::env::set_var("PATH", OsString::from_vec(kept)) };
}

/// Closes every descriptor from 3 on but those of `keep`: what a caller has left open is not for a process that outlives it.
///
/// Only for the beginning of a program, which has opened nothing of its own yet.
pub fn close_inherited(keep: &[RawFd]) {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<RawFd> = open
        .flatten()
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
        .collect();
    for fd in numbers {
        if fd > 2 && !keep.contains(&fd) {
            // SAFETY: nothing in this program owns it. The directory that was read is closed: its number gives EBADF.
            unsafe { libc::close(fd) };
        }
    }
}

/// Duplicates the descriptor number `fd` that our parent left open for us, as close-on-exec. `EBADF`: it is not open.
///
/// For the few numbers that are handed on by name in the environment.
pub fn inherited(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: a duplicate is a new descriptor, whoever owns `fd`; a number that is not open gives EBADF.
    descriptor(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) }.into())
}

/// What a program is to start with: its descriptors 0, 1, 2, and one more where it wants one.
pub struct Descriptors<'a> {
    /// Standard input, output and error.
    pub standard: [BorrowedFd<'a>; 3],
    /// Another descriptor and its number.
    pub extra: Option<(BorrowedFd<'a>, RawFd)>,
}

/// Execs `program` with these descriptors and no other, all signals at their defaults, in this environment.
///
/// Returns only if that fails, with the reason; this process must then end, since its own descriptors have been replaced.
pub fn exec(
    program: &CStr,
    arguments: &[CString],
    environment: &[CString],
    descriptors: &Descriptors,
) -> Errno {
    let execed = || -> Result<Infallible> {
        // First out of the way of the numbers that they are put on.
        let mut moved = Vec::new();
        for (number, fd) in (0..).zip(descriptors.standard) {
            moved.push((number, fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(64))?));
        }
        if let Some((fd, number)) = descriptors.extra {
            moved.push((number, fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(64))?));
        }
        close_on_exec_from(3)?;
        for (number, fd) in moved {
            // SAFETY: takes two numbers. Whatever was open at `number` is lost to its owner, who is this process, which
            // does nothing any more but exec, or end.
            Errno::result(unsafe { libc::dup2(fd, number) })?;
        }
        // A Rust program ignores SIGPIPE, and a blocked or ignored signal stays so over exec.
        reset_signals();
        execve(program, arguments, environment)
    };
    match execed() {
        Err(error) => error,
    }
}

/// Puts every signal at its default and blocks none.
fn reset_signals() {
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default action is no handler of ours.
            let _ = unsafe { signal::signal(signal, SigHandler::SigDfl) };
        }
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Gives this process a session keyring of its own, so that it sees none of its caller's keys. Like `keyctl(2)`.
pub fn join_new_session_keyring() -> Result<()> {
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    Errno::result(result).map(drop)
}
