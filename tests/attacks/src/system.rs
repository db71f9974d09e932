//! System calls that nix lacks, in small wrappers.

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_ulong};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null;

type Result<T = ()> = nix::Result<T>;

fn done(result: c_long) -> Result {
    Errno::result(result).map(drop)
}

fn descriptor(result: c_long) -> Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `run` in a child; returns its wait status, which is 0 if `run` returned true.
pub fn in_child(run: impl FnOnce() -> bool) -> Result<WaitStatus> {
    waitpid(child(run)?, None)
}

/// Starts `run` in a child.
pub fn child(run: impl FnOnce() -> bool) -> Result<Pid> {
    // SAFETY: the program has one thread, so the child finds no lock held.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = c_int::from(!run());
            // SAFETY: _exit(2) ends this process at once.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Returns whether a child exited with status 0.
pub fn succeeded(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Exited(_, 0))
}

/// Creates a map with one element, bpf(2).
pub fn bpf_map() -> Result<OwnedFd> {
    const MAP_CREATE: c_int = 0;
    const ARRAY: u32 = 2;
    let attributes: [u32; 5] = [ARRAY, 4, 4, 1, 0];
    // SAFETY: the kernel reads attributes of the given length.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            MAP_CREATE,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })
}

/// Opens a counter for all processes on the first processor, perf_event_open(2).
pub fn perf_event() -> Result<OwnedFd> {
    const SOFTWARE: u32 = 1;
    const SIZE: u32 = 64; // PERF_ATTR_SIZE_VER0
    let mut attributes = [0_u32; SIZE as usize / 4];
    (attributes[0], attributes[1]) = (SOFTWARE, SIZE);
    // SAFETY: the kernel reads as many attributes as their size field says.
    descriptor(unsafe {
        libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), -1, 0, -1, 0)
    })
}

/// Opens a descriptor for the page faults of this process, userfaultfd(2).
pub fn userfaultfd() -> Result<OwnedFd> {
    const USER_MODE_ONLY: c_int = 1;
    // SAFETY: the arguments are numbers.
    descriptor(unsafe { libc::syscall(libc::SYS_userfaultfd, USER_MODE_ONLY) })
}

/// Sets up an io_uring(7).
pub fn io_uring() -> Result<OwnedFd> {
    let mut parameters = [0_u8; 120];
    // SAFETY: the kernel reads and writes parameters of this length.
    descriptor(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
}

/// Calls swapon(2) with a missing file.
pub fn swap_on_nothing() -> Result {
    // SAFETY: the argument is a zero-terminated path.
    done(unsafe { libc::syscall(libc::SYS_swapon, c"/no/such/file".as_ptr(), 0) })
}

/// Calls acct(2) with a missing file.
pub fn account_to_nothing() -> Result {
    // SAFETY: the argument is a zero-terminated path.
    done(unsafe { libc::syscall(libc::SYS_acct, c"/no/such/file".as_ptr()) })
}

/// Calls quotactl(2) with Q_SYNC for all filesystems, which needs no capability.
pub fn sync_quotas() -> Result {
    const SYNC: c_int = 0x0080_0001;
    // SAFETY: a null device means all; there is no address.
    done(unsafe { libc::syscall(libc::SYS_quotactl, SYNC << 8, null::<u8>(), 0, null::<u8>()) })
}

/// Returns the serial number of the keyring of this user id; creates the keyring if needed.
pub fn user_keyring() -> Result<c_long> {
    const USER_KEYRING: c_int = -4;
    const CREATE: c_int = 1;
    // SAFETY: the arguments are numbers.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_GET_KEYRING_ID,
            USER_KEYRING,
            CREATE,
        )
    })
}

/// Calls init_module(2) with an empty image. `ENOEXEC` proves that the permission check passed.
pub fn load_empty_module() -> Result {
    // SAFETY: the kernel reads an image of length 0 and an empty text.
    done(unsafe { libc::syscall(libc::SYS_init_module, c"".as_ptr(), 0, c"".as_ptr()) })
}

/// Calls kexec_load(2) with invalid flags. `EINVAL` proves that the permission check passed.
pub fn kexec_with_no_such_flags() -> Result {
    const FLAGS: c_ulong = 0xff00;
    // SAFETY: the kernel reads no segment.
    done(unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, null::<u8>(), FLAGS) })
}

/// Calls settimeofday(2) with null pointers: the kernel checks the permission and sets nothing.
pub fn set_no_time() -> Result {
    // SAFETY: the pointers are null.
    done(unsafe { libc::syscall(libc::SYS_settimeofday, null::<u8>(), null::<u8>()) })
}

/// Reads the kernel log, syslog(2).
pub fn kernel_log() -> Result<Vec<u8>> {
    const READ_ALL: c_int = 3;
    let mut buffer = vec![0; 4096];
    // SAFETY: the kernel writes at most as many bytes as the given length.
    let length = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_syslog,
            READ_ALL,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    })?;
    buffer.truncate(usize::try_from(length).unwrap_or(0));
    Ok(buffer)
}

/// Gives this process real-time scheduling.
pub fn run_first() -> Result {
    let parameters: c_int = 1;
    // SAFETY: sched_param is one number, which the kernel reads.
    done(unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_FIFO,
            &raw const parameters,
        )
    })
}

/// Sets the nice value of this process.
pub fn set_priority(nice: c_int) -> Result {
    // SAFETY: the arguments are numbers.
    done(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) })
}

/// Gives this process real-time disk priority.
pub fn read_first() -> Result {
    const PROCESS: c_int = 1;
    const REAL_TIME: c_int = 1 << 13;
    // SAFETY: the arguments are numbers.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, REAL_TIME) })
}

/// Requests access to all I/O ports.
#[cfg(target_arch = "x86_64")]
pub fn all_ports() -> Result {
    // SAFETY: the argument is a number; no port is used.
    done(unsafe { libc::syscall(libc::SYS_iopl, 3) })
}

/// Calls getpid(2) through the 32-bit entry, int 0x80.
#[cfg(target_arch = "x86_64")]
pub fn getpid_of_i386() -> Result<i32> {
    const GETPID: i32 = 20;
    let result: i32;
    // SAFETY: the call changes no memory; the clobbered registers are listed.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") GETPID => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    Errno::result(result)
}

/// Calls getpid(2) through the x32 entry.
#[cfg(target_arch = "x86_64")]
pub fn getpid_of_x32() -> Result<c_long> {
    const X32: c_long = 0x4000_0000;
    // SAFETY: the call has no arguments.
    Errno::result(unsafe { libc::syscall(X32 | libc::SYS_getpid) })
}

/// Starts a child in new namespaces by clone3(2), whose flags a seccomp filter cannot read; the
/// child exits at once.
pub fn clone3(flags: c_int) -> Result {
    let mut arguments = [0_u64; 8];
    arguments[0] = u64::from(flags as u32);
    arguments[4] = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM this is fork(2); the kernel reads eight numbers.
    let pid = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    })?;
    if pid == 0 {
        // SAFETY: _exit(2) ends this process at once.
        unsafe { libc::_exit(0) }
    }
    waitpid(Pid::from_raw(i32::try_from(pid).unwrap_or(-1)), None).map(drop)
}

/// A file handle for open_by_handle_at(2).
#[repr(C)]
#[derive(Clone)]
pub struct Handle {
    length: u32,
    /// The type, which depends on the filesystem.
    pub kind: i32,
    /// The identification within the filesystem.
    pub words: [u32; 32],
}

impl Handle {
    /// Makes a handle from its words.
    pub fn new(kind: i32, words: &[u32]) -> Self {
        let mut handle = Handle {
            length: u32::try_from(size_of_val(words)).unwrap_or(0),
            kind,
            words: [0; 32],
        };
        handle.words[..words.len()].copy_from_slice(words);
        handle
    }

    /// Returns the handle of the file at `path`.
    pub fn of(path: &CStr) -> Result<Self> {
        let mut handle = Handle::new(0, &[0; 32]);
        let mut mount: c_int = 0;
        // SAFETY: the kernel writes a handle of at most the given length, and a number.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                &raw mut handle,
                &raw mut mount,
                libc::AT_SYMLINK_FOLLOW,
            )
        };
        done(result)?;
        Ok(handle)
    }

    /// Opens the handle for reading in the filesystem of `mount`.
    pub fn open(&self, mount: impl AsFd) -> Result<OwnedFd> {
        let mount = mount.as_fd().as_raw_fd();
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the kernel reads a handle of the given length.
        descriptor(unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                mount,
                std::ptr::from_ref(self),
                flags,
            )
        })
    }
}

/// Opens a filesystem context, fsopen(2).
pub fn fsopen(kind: &CStr) -> Result<OwnedFd> {
    // SAFETY: the argument is a zero-terminated text.
    descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })
}

/// Creates the filesystem of a context, fsconfig(2).
pub fn create(filesystem: impl AsFd) -> Result {
    const CREATE: c_int = 6;
    let filesystem = filesystem.as_fd().as_raw_fd();
    // SAFETY: this command takes no text.
    done(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            filesystem,
            CREATE,
            null::<u8>(),
            null::<u8>(),
            0,
        )
    })
}

/// Pushes a byte into the input of a terminal, TIOCSTI.
pub fn push_input(terminal: impl AsFd, byte: u8) -> Result {
    // SAFETY: the kernel reads one byte.
    let result = unsafe {
        libc::ioctl(
            terminal.as_fd().as_raw_fd(),
            libc::TIOCSTI as _,
            &raw const byte,
        )
    };
    Errno::result(result).map(drop)
}

/// Opens the parent of a namespace.
pub fn parent_of(namespace: impl AsFd) -> Result<OwnedFd> {
    const GET_PARENT: c_int = 0xb702;
    // SAFETY: the request takes no argument.
    let result = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), GET_PARENT as _) };
    descriptor(result.into())
}

/// Opens the user namespace that owns a namespace.
pub fn owner_of(namespace: impl AsFd) -> Result<OwnedFd> {
    const GET_USERNS: c_int = 0xb701;
    // SAFETY: the request takes no argument.
    let result = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), GET_USERNS as _) };
    descriptor(result.into())
}

/// Sets an extended attribute of the file at `path`.
pub fn set_attribute(path: &str, name: &CStr, value: &[u8]) -> Result {
    let path = std::ffi::CString::new(path).map_err(|_| Errno::EINVAL)?;
    // SAFETY: two zero-terminated texts, and a value of the given length.
    done(unsafe {
        libc::syscall(
            libc::SYS_setxattr,
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr(),
            value.len(),
            0,
        )
    })
}
