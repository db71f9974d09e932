//! Processes: creation in new namespaces, pidfds, inherited descriptors and signals, `execve(2)`.

use crate::fd::descriptor;
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

/// A child process.
pub struct Child {
    /// The pid in the pid namespace of this process.
    pub pid: Pid,
    /// The pidfd, readable when the child has exited. It never refers to another process.
    pub pidfd: OwnedFd,
}

/// Or-ed `libc::CLONE_NEW*`, and `CLONE_PARENT` for a sibling.
///
/// The flags of nix have no time namespace.
pub type Namespaces = c_int;

/// Where programs are looked for if the caller does not say.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `CLONE_INTO_CGROUP`, which does not fit into the type that libc gives it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Creates a child in new `namespaces` that calls `run` and exits with the status that it returns.
///
/// If `cgroup` is given, a directory of a cgroup2 tree, the child starts in that control group.
/// This process must have only one thread. Linux 5.3; 5.7 for `cgroup`.
///
/// # Errors
/// The errors of `clone3(2)`.
pub fn spawn(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd>,
    run: impl FnOnce() -> u8,
) -> Result<Child> {
    // SAFETY: clone_args is a plain structure of numbers, for which zero bytes are valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(namespaces as u32);
    if cgroup.is_some() {
        args.flags |= CLONE_INTO_CGROUP;
    }
    // With CLONE_PARENT, the exit signal is that of this process, and clone3 rejects any other.
    if namespaces & libc::CLONE_PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    args.cgroup = cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd() as u32));
    let mut pidfd: RawFd = -1;
    args.flags |= libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    // SAFETY: without CLONE_VM, this is fork(2): the child has a copy of the memory. With one
    // thread, no lock is held by a thread that the child does not have. The kernel writes `pidfd`
    // before it returns in the parent.
    let pid = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        let status = run();
        // SAFETY: ends the child without the exit handlers of its parent.
        unsafe { libc::_exit(c_int::from(status)) }
    }
    // SAFETY: the kernel has just opened this descriptor, so it has no other owner.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child {
        pid: Pid::from_raw(pid_t::try_from(pid).map_err(|_| Errno::ERANGE)?),
        pidfd,
    })
}

/// Opens a pidfd of the process `pid`. Linux 5.3.
///
/// # Errors
/// The errors of `pidfd_open(2)`. `ESRCH`: there is no such process.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: takes only numbers, returns a close-on-exec descriptor.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

/// Sends `signal` to the process of `pidfd`. None only tests whether it exists.
///
/// # Errors
/// The errors of `pidfd_send_signal(2)`. `ESRCH`: the process has exited and was reaped.
pub fn pidfd_signal(pidfd: impl AsFd, signal: impl Into<Option<Signal>>) -> Result<()> {
    pidfd_signal_number(pidfd, signal.into().map_or(0, |signal| signal as c_int))
}

/// Like [`pidfd_signal`], also for real-time signals, for which nix has no names.
///
/// # Errors
/// The errors of [`pidfd_signal`].
pub fn pidfd_signal_number(pidfd: impl AsFd, signal: c_int) -> Result<()> {
    // SAFETY: takes only numbers, and a null pointer instead of a siginfo.
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

/// Sets close-on-exec for every descriptor from `first` on.
///
/// Uses `close_range(2)` with `CLOSE_RANGE_CLOEXEC`; before Linux 5.11, one `fcntl(2)` for each.
///
/// # Errors
/// `ENOSYS`: the kernel has no such call, and `/proc/self/fd` cannot be read.
pub fn set_cloexec_from(first: RawFd) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_uint = 4;
    // SAFETY: only sets a flag of descriptors. They stay open and keep their owners.
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
            // SAFETY: as above. The descriptor of the directory is closed again: EBADF.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Closes every descriptor of this process except `kept`. Linux 5.9.
///
/// For a child that must hold no other descriptor of its parent. Afterwards it must not use any
/// value that owns one of the closed descriptors.
///
/// # Errors
/// The errors of `close_range(2)`.
pub fn close_all_except(kept: &[BorrowedFd]) -> Result<()> {
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept.into_iter().chain([RawFd::MAX]) {
        if first < fd {
            // SAFETY: takes only numbers. The caller does not use the owners of the closed
            // descriptors, as required above.
            let closed = unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
            Errno::result(closed)?;
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

/// Returns whether this process ignores `signal`, as after `nohup(1)`.
#[must_use]
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: a sigaction is a plain structure, for which zero bytes are valid. The kernel writes
    // it and changes nothing else.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let asked = unsafe { libc::sigaction(signal as c_int, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Restores the default action of SIGCHLD, so that this process can wait for its children.
///
/// An ignored signal stays ignored over `execve(2)`. While SIGCHLD is ignored, the kernel reaps the
/// children itself: `waitpid(2)` fails with `ECHILD` and no signal arrives, see `sigaction(2)`.
pub fn reset_sigchld() {
    // SAFETY: SIG_DFL is not a handler.
    let _ = unsafe { signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Removes from `PATH` each element that is no absolute path. An empty or relative element is the
/// working directory, which may be another user's, and a program found there would run with our
/// rights. Without any other element it is the usual directories.
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

/// Closes every descriptor from 3 on that is not in `kept`.
///
/// For the start of a program that outlives its caller: a descriptor that the caller left open
/// would keep its file or pipe busy. The program must not have opened any descriptor itself.
pub fn close_inherited(kept: &[RawFd]) {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<RawFd> = open
        .flatten()
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
        .collect();
    for fd in numbers {
        if fd > 2 && !kept.contains(&fd) {
            // SAFETY: no value in this program owns the descriptor. The directory is closed again:
            // EBADF.
            unsafe { libc::close(fd) };
        }
    }
}

/// Duplicates the inherited descriptor `fd`, with close-on-exec.
///
/// For descriptors whose numbers the environment or the command line names.
///
/// # Errors
/// `EBADF`: it is not open.
pub fn dup_inherited(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: a duplicate is a new descriptor, independent of the owner of `fd`.
    descriptor(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) }.into())
}

/// The descriptors that a program starts with.
pub struct Descriptors<'a> {
    /// Standard input, standard output and standard error.
    pub standard: [BorrowedFd<'a>; 3],
    /// One more descriptor, and the number that the program gets it as.
    pub extra: Option<(BorrowedFd<'a>, RawFd)>,
}

/// Executes `program` with these descriptors and no other, in this environment.
///
/// Every signal has its default action and none is blocked. Returns only if `execve(2)` or a step
/// before it fails, with the reason. The process must then exit, since its descriptors have been
/// replaced.
pub fn exec(
    program: &CStr,
    arguments: &[CString],
    environment: &[CString],
    descriptors: &Descriptors,
) -> Errno {
    let execed = || -> Result<Infallible> {
        // To numbers that dup2 below does not overwrite. A descriptor that has one stays: the
        // process may have few.
        let first = descriptors.extra.map_or(3, |(_, number)| number.max(2) + 1);
        let move_up = |fd: BorrowedFd| match fd.as_raw_fd() {
            high if high >= first => Ok(high),
            _ => fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(first)),
        };
        let mut moved = Vec::new();
        for (number, fd) in (0..).zip(descriptors.standard) {
            moved.push((number, move_up(fd)?));
        }
        if let Some((fd, number)) = descriptors.extra {
            moved.push((number, move_up(fd)?));
        }
        set_cloexec_from(3)?;
        for (number, fd) in moved {
            // SAFETY: takes two numbers. The previous descriptor `number` is lost to its owner in
            // this process, which only executes the program or exits after that.
            Errno::result(unsafe { libc::dup2(fd, number) })?;
        }
        // The Rust runtime ignores SIGPIPE. execve keeps ignored and blocked signals, signal(7).
        reset_signals();
        execve(program, arguments, environment)
    };
    match execed() {
        Err(error) => error,
    }
}

/// Restores the default action of every signal, and blocks none.
fn reset_signals() {
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: SIG_DFL is not a handler.
            let _ = unsafe { signal::signal(signal, SigHandler::SigDfl) };
        }
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Joins a new anonymous session keyring, so that this process has no keys of its caller.
///
/// # Errors
/// The errors of `keyctl(2)`, `KEYCTL_JOIN_SESSION_KEYRING`.
pub fn join_new_session_keyring() -> Result<()> {
    // SAFETY: a null pointer requests an anonymous keyring.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    Errno::result(result).map(drop)
}
