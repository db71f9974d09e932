//! The kernel, in small safe wrappers: the only place with `unsafe` but the entry.
//!
//! Most functions are those of the C library, since it knows the calling convention of every machine. None of them allocates.

use core::ffi::{CStr, c_char, c_int, c_uint, c_ulong};
use core::mem::MaybeUninit;
use core::ptr;

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

/// The command line: the vector that the kernel made.
pub struct Args {
    vector: *mut *mut c_char,
    count: usize,
}

impl Args {
    /// Takes what `main` was given.
    ///
    /// # Safety
    /// `vector` is the argument vector of the process, ends in a null pointer, and is used by nobody else.
    #[cfg(not(test))]
    pub unsafe fn new(vector: *mut *mut c_char) -> Args {
        let mut count = 0;
        // SAFETY: the caller promises a null pointer at its end.
        while unsafe { !(*vector.add(count)).is_null() } {
            count += 1;
        }
        Args { vector, count }
    }

    /// The argument with this number; 0 is our own name.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        self.get_c(number).map(CStr::to_bytes)
    }

    /// The same, as C has it.
    pub fn get_c(&self, number: usize) -> Option<&CStr> {
        if number >= self.count {
            return None;
        }
        // SAFETY: it is one of the `count` strings of the vector. They change only by `rename`, which borrows us mutably.
        Some(unsafe { CStr::from_ptr(*self.vector.add(number)) })
    }

    /// Becomes the command that begins at this argument, found by PATH; returns only if it cannot.
    pub fn exec(&self, at: usize) -> Errno {
        if at >= self.count {
            return Errno::NO_SUCH_FILE;
        }
        // SAFETY: the vector has an argument there and a null pointer at its end.
        unsafe {
            libc::execvp(
                *self.vector.add(at),
                self.vector.add(at).cast_const().cast(),
            )
        };
        Errno::last()
    }

    /// Makes `ps` show `name` in place of the first `count` words of the command line, which are lost. A name that is longer
    /// than they are is cut.
    pub fn rename(&mut self, name: &[u8], count: usize) {
        let Some(first) = self.get(0).map(<[u8]>::as_ptr) else {
            return;
        };
        let mut length = 0;
        for number in 0..count {
            let Some(argument) = self.get(number) else {
                break;
            };
            // The kernel lays them out one after the other, with one null byte between; but a loader may have taken some away.
            if argument.as_ptr() != first.wrapping_add(length) {
                break;
            }
            length += argument.len() + 1;
        }
        // SAFETY: these bytes are the strings that were just walked over. They are ours to write to, and `&mut self` says that
        // nobody reads them meanwhile. The last null byte stays as it is.
        let place = unsafe { core::slice::from_raw_parts_mut(*self.vector.cast(), length - 1) };
        let letters = name.iter().copied().chain(core::iter::repeat(0));
        place
            .iter_mut()
            .zip(letters)
            .for_each(|(byte, letter)| *byte = letter);
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

/// A set of signals.
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// All but those that report a fault of our own: blocked, a fault would come again and again.
    pub fn all_but_faults() -> SignalSet {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset makes a set of whatever is there, sigdelset then has one to change.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            for fault in [
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGABRT,
                libc::SIGTRAP,
                libc::SIGSYS,
            ] {
                libc::sigdelset(set.as_mut_ptr(), fault);
            }
            SignalSet(set.assume_init())
        }
    }

    /// Blocks these and no other, so that they wait until we ask for them. Returns those that were blocked before.
    pub fn block(&self) -> SignalSet {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both are sets, and the C library fills the second. It fails for an unknown first argument only.
        unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, before.as_mut_ptr());
            SignalSet(before.assume_init())
        }
    }

    /// Waits for one of these.
    ///
    /// None where the wait was interrupted (we were stopped and went on).
    pub fn wait(&self) -> Option<c_int> {
        // SAFETY: reads a set; a null pointer means that we do not want the details.
        let signal = unsafe { libc::sigwaitinfo(&raw const self.0, ptr::null_mut()) };
        (signal > 0).then_some(signal)
    }

    /// One of these that has come already.
    pub fn poll(&self) -> Option<c_int> {
        // SAFETY: a plain structure of numbers; zero is no time at all.
        let at_once: libc::timespec = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: reads a set and a time; a null pointer means that we do not want the details.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.0, ptr::null_mut(), &raw const at_once) };
        (signal > 0).then_some(signal)
    }
}

/// A named pipe that tells by the signal IO that something was written to it.
pub struct Fifo<'a> {
    path: &'a CStr,
    fd: c_int,
    made: bool,
}

impl Fifo<'_> {
    /// Opens the one at `path`, made for nobody but our user if there is nothing there.
    ///
    /// # Errors
    /// It cannot be made or opened, or is something else, or a symbolic link.
    pub fn at(path: &CStr) -> Result<Fifo<'_>, Errno> {
        // SAFETY: touches no memory. What we make shall have just the mode that we say.
        unsafe { libc::umask(0o077) };
        // SAFETY: reads a string with an end.
        let made = match Errno::check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }) {
            Ok(_) => true,
            Err(Errno(libc::EEXIST)) => false,
            Err(why) => return Err(why),
        };
        // For reading and writing, so that it has a writer always: no waiting for one here, and no end of file later.
        let how = libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: reads a string with an end.
        let fd = Errno::check(unsafe { libc::open(path.as_ptr(), how) })?;
        let fifo = Fifo { path, fd, made };
        if fifo.status()?.st_mode & libc::S_IFMT != libc::S_IFIFO {
            return Err(Errno(libc::EEXIST));
        }
        // SAFETY: both only change how this descriptor tells of what comes.
        unsafe {
            Errno::check(libc::fcntl(fd, libc::F_SETOWN, libc::getpid()))?;
            Errno::check(libc::fcntl(
                fd,
                libc::F_SETFL,
                libc::O_NONBLOCK | libc::O_ASYNC,
            ))?;
        }
        Ok(fifo)
    }

    /// Whether something was written.
    ///
    /// Looks, but does not read: a read by somebody who could write too is told by IO as well, and we would never rest.
    pub fn is_written(&self) -> bool {
        let mut fifo = libc::pollfd {
            fd: self.fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure, which the kernel fills; it does not wait.
        unsafe { libc::poll(&raw mut fifo, 1, 0) == 1 && fifo.revents & libc::POLLIN != 0 }
    }

    /// Removes it, if we have made it and it is still the one there.
    pub fn remove_if_made(self) {
        let mut there = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: reads a string with an end, and the kernel fills the structure if it succeeds.
        let there = unsafe {
            if libc::lstat(self.path.as_ptr(), there.as_mut_ptr()) == -1 {
                return;
            }
            there.assume_init()
        };
        let ours = self
            .status()
            .is_ok_and(|own| (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino));
        if self.made && ours {
            // SAFETY: reads a string with an end.
            unsafe { libc::unlink(self.path.as_ptr()) };
        }
    }

    fn status(&self) -> Result<libc::stat, Errno> {
        let mut status = MaybeUninit::uninit();
        // SAFETY: the kernel fills the structure if it succeeds.
        unsafe {
            Errno::check(libc::fstat(self.fd, status.as_mut_ptr()))?;
            Ok(status.assume_init())
        }
    }
}
