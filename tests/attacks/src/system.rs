//! The system calls that nix does not have, each in a small wrapper.

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
    // SAFETY: the kernel has just given us this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `run` in a child; returns how that ended: with status 0 if `run` said so.
pub fn in_child(run: impl FnOnce() -> bool) -> Result<WaitStatus> {
    waitpid(child(run)?, None)
}

/// Starts `run` in a child.
pub fn child(run: impl FnOnce() -> bool) -> Result<Pid> {
    // SAFETY: this program has one thread, so that the child finds no lock held.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = c_int::from(!run());
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Whether a child has ended with status 0.
pub fn succeeded(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Exited(_, 0))
}

/// Asks for a map of one number, which `bpf(2)` makes in the kernel.
pub fn bpf_map() -> Result<OwnedFd> {
    const MAP_CREATE: c_int = 0;
    const ARRAY: u32 = 2;
    let attributes: [u32; 5] = [ARRAY, 4, 4, 1, 0];
    // SAFETY: the kernel reads attributes of the length that it is told.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            MAP_CREATE,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })
}

/// Asks to count what all processes do on the first processor, with `perf_event_open(2)`.
pub fn perf_event() -> Result<OwnedFd> {
    const SOFTWARE: u32 = 1;
    const SIZE: u32 = 64; // PERF_ATTR_SIZE_VER0
    let mut attributes = [0_u32; SIZE as usize / 4];
    (attributes[0], attributes[1]) = (SOFTWARE, SIZE);
    // SAFETY: the kernel reads attributes of the length that they tell.
    descriptor(unsafe {
        libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), -1, 0, -1, 0)
    })
}

/// Asks to handle the page faults of this process, `userfaultfd(2)`.
pub fn userfaultfd() -> Result<OwnedFd> {
    const USER_MODE_ONLY: c_int = 1;
    // SAFETY: takes numbers.
    descriptor(unsafe { libc::syscall(libc::SYS_userfaultfd, USER_MODE_ONLY) })
}

/// Asks for rings of `io_uring(7)`.
pub fn io_uring() -> Result<OwnedFd> {
    let mut parameters = [0_u8; 120];
    // SAFETY: the kernel reads and writes parameters of this length.
    descriptor(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
}

/// `swapon(2)` of a file that is not there.
pub fn swap_on_nothing() -> Result {
    // SAFETY: takes a path that ends with a zero.
    done(unsafe { libc::syscall(libc::SYS_swapon, c"/no/such/file".as_ptr(), 0) })
}

/// `acct(2)` to a file that is not there.
pub fn account_to_nothing() -> Result {
    // SAFETY: takes a path that ends with a zero.
    done(unsafe { libc::syscall(libc::SYS_acct, c"/no/such/file".as_ptr()) })
}

/// Has quotas written that are there already: `quotactl(2)` with Q_SYNC, which needs no capability.
pub fn sync_quotas() -> Result {
    const SYNC: c_int = 0x0080_0001_u32.cast_signed();
    // SAFETY: no device means all; there is no address.
    done(unsafe { libc::syscall(libc::SYS_quotactl, SYNC << 8, null::<u8>(), 0, null::<u8>()) })
}

/// The serial number of the keyring that all processes of this user share, made if there is none.
pub fn user_keyring() -> Result<c_long> {
    const USER_KEYRING: c_int = -4;
    const CREATE: c_int = 1;
    // SAFETY: takes numbers.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_GET_KEYRING_ID,
            USER_KEYRING,
            CREATE,
        )
    })
}

/// `init_module(2)` with an image of nothing. `ENOEXEC`: one would have been loaded.
pub fn load_empty_module() -> Result {
    // SAFETY: the kernel reads an image of no length, and an empty text.
    done(unsafe { libc::syscall(libc::SYS_init_module, c"".as_ptr(), 0, c"".as_ptr()) })
}

/// `kexec_load(2)` with flags that there are not. `EINVAL`: with others, a kernel would have been loaded.
pub fn kexec_with_no_such_flags() -> Result {
    const FLAGS: c_ulong = 0xff00;
    // SAFETY: no segment is read.
    done(unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, null::<u8>(), FLAGS) })
}

/// Sets neither the clock nor the time zone, after the kernel has looked whether we may.
pub fn set_no_time() -> Result {
    // SAFETY: there is nothing to be read.
    done(unsafe { libc::syscall(libc::SYS_settimeofday, null::<u8>(), null::<u8>()) })
}

/// Reads the messages of the kernel, `syslog(2)`.
pub fn kernel_log() -> Result<Vec<u8>> {
    const READ_ALL: c_int = 3;
    let mut buffer = vec![0; 4096];
    // SAFETY: the kernel writes at most as much as it is told.
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

/// Makes this process one that runs before all ordinary ones.
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

/// Gives this process `nice` as its priority.
pub fn set_priority(nice: c_int) -> Result {
    // SAFETY: takes numbers.
    done(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) })
}

/// Has this process's disk accesses done before all others.
pub fn read_first() -> Result {
    const PROCESS: c_int = 1;
    const REAL_TIME: c_int = 1 << 13;
    // SAFETY: takes numbers.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, REAL_TIME) })
}

/// Asks for all ports of the machine.
#[cfg(target_arch = "x86_64")]
pub fn all_ports() -> Result {
    // SAFETY: takes a number; we use no port.
    done(unsafe { libc::syscall(libc::SYS_iopl, 3) })
}

/// Asks for the number of this process by the entry for programs of 32 bits.
#[cfg(target_arch = "x86_64")]
pub fn getpid_of_i386() -> Result<i32> {
    const GETPID: i32 = 20;
    let result: i32;
    // SAFETY: the call takes and changes no memory; the registers that this entry does not keep are named.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") GETPID => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    Errno::result(result)
}

/// The same by the entry for pointers of 32 bits in registers of 64.
#[cfg(target_arch = "x86_64")]
pub fn getpid_of_x32() -> Result<c_long> {
    const X32: c_long = 0x4000_0000;
    // SAFETY: takes nothing.
    Errno::result(unsafe { libc::syscall(X32 | libc::SYS_getpid) })
}

/// Starts a child in new namespaces by `clone3(2)`, whose flags no filter can see; the child ends at once.
pub fn clone3(flags: c_int) -> Result {
    let mut arguments = [0_u64; 8];
    arguments[0] = u64::from(flags.cast_unsigned());
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
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(0) }
    }
    waitpid(Pid::from_raw(i32::try_from(pid).unwrap_or(-1)), None).map(drop)
}

/// What identifies a file for `open_by_handle_at(2)`.
#[repr(C)]
#[derive(Clone)]
pub struct Handle {
    length: u32,
    /// Its kind, as its filesystem has them.
    pub kind: i32,
    /// What that filesystem identifies it by.
    pub words: [u32; 32],
}

impl Handle {
    /// One of our own making.
    pub fn new(kind: i32, words: &[u32]) -> Self {
        let mut handle = Handle {
            length: u32::try_from(size_of_val(words)).unwrap_or(0),
            kind,
            words: [0; 32],
        };
        handle.words[..words.len()].copy_from_slice(words);
        handle
    }

    /// That of the file at `path`.
    pub fn of(path: &CStr) -> Result<Self> {
        let mut handle = Handle::new(0, &[0; 32]);
        let mut mount: c_int = 0;
        // SAFETY: the kernel writes a handle of at most the length that it tells, and a number.
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

    /// Opens it for reading in the filesystem that `mount` is open in.
    pub fn open(&self, mount: impl AsFd) -> Result<OwnedFd> {
        let mount = mount.as_fd().as_raw_fd();
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the kernel reads a handle of the length that it tells.
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

/// Begins to configure a filesystem, `fsopen(2)`.
pub fn fsopen(kind: &CStr) -> Result<OwnedFd> {
    // SAFETY: takes a text that ends with a zero.
    descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })
}

/// Has it made as it is configured, `fsconfig(2)`.
pub fn create(filesystem: impl AsFd) -> Result {
    const CREATE: c_int = 6;
    let filesystem = filesystem.as_fd().as_raw_fd();
    // SAFETY: this command takes no texts.
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

/// Puts a byte into the input of a terminal, as if it had been typed.
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

/// Opens the namespace that a namespace lies in.
pub fn parent_of(namespace: impl AsFd) -> Result<OwnedFd> {
    const GET_PARENT: c_int = 0xb702;
    // SAFETY: takes no argument.
    let result = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), GET_PARENT as _) };
    descriptor(result.into())
}

/// Opens the user namespace that a namespace belongs to.
pub fn owner_of(namespace: impl AsFd) -> Result<OwnedFd> {
    const GET_USERNS: c_int = 0xb701;
    // SAFETY: takes no argument.
    let result = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), GET_USERNS as _) };
    descriptor(result.into())
}

/// Sets an extended attribute of the file that `path` leads to.
pub fn set_attribute(path: &str, name: &CStr, value: &[u8]) -> Result {
    let path = std::ffi::CString::new(path).map_err(|_| Errno::EINVAL)?;
    // SAFETY: two texts that end with a zero, and a value of the length that is told.
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
