//! System calls that the kernel permits only to privileged processes.

use crate::failed::is_there;
use crate::system::{self, in_child, succeeded};
use crate::table::{ALWAYS, FROM_YES};
use crate::{Entry, Failed, Refused, Try, not_here, refused};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{pipe, read, write};
use std::fs;

/// Entries about system calls.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(9, "clock", "set the clock of the host", FROM_YES, || system::set_no_time().refused("settimeofday")),
    Entry::inside(9, "kernel-log", "read the kernel log with `syslog(2)`", FROM_YES, || system::kernel_log().refused("syslog").map(drop)),
    Entry::inside(23, "bpf", "create a BPF map, `bpf(2)`", FROM_YES, || system::bpf_map().known("bpf").map(drop)),
    Entry::inside(23, "perf", "monitor all processes of the machine, `perf_event_open(2)`", FROM_YES, || system::perf_event().known("perf_event_open").map(drop)),
    Entry::inside(23, "userfaultfd", "block the kernel in a page fault, `userfaultfd(2)`", FROM_YES, || system::userfaultfd().known("userfaultfd").map(drop)),
    Entry::inside(23, "io-uring", "set up `io_uring(7)`", FROM_YES, || system::io_uring().known("io_uring_setup").map(drop)),
    Entry::inside(23, "vsock", "open a socket to the hypervisor, `AF_VSOCK`", FROM_YES, || open_socket(AddressFamily::Vsock, SockType::Stream)),
    Entry::inside(23, "kernel-crypto", "open a socket to the ciphers of the kernel, `AF_ALG`", FROM_YES, || open_socket(AddressFamily::Alg, SockType::SeqPacket)),
    Entry::inside(23, "swapon", "make the host swap to a file of the attacker", FROM_YES, || past(system::swap_on_nothing(), Errno::ENOENT, "swapon")),
    Entry::inside(23, "quotactl", "access the quotas of filesystems of the host", FROM_YES, || system::sync_quotas().known("quotactl").map(drop)),
    Entry::inside(23, "user-keyring", "get the keyring that uid 0 of the host shares", FROM_YES, || system::user_keyring().known("keyctl").map(drop)),
    Entry::inside(24, "real-time", "get real-time scheduling, `SCHED_FIFO`", FROM_YES, || system::run_first().refused("sched_setscheduler")),
    Entry::inside(24, "spared-by-oom", "exempt a process from the OOM killer, `oom_score_adj` −1000", FROM_YES, be_spared),
    Entry::inside(0, "priority", "raise the priority over the host, `nice` −20", FROM_YES, || system::set_priority(-20).refused("setpriority")),
    Entry::inside(0, "disk-priority", "get real-time disk priority, `ioprio_set(2)`", FROM_YES, || system::read_first().refused("ioprio_set")),
    Entry::inside(0, "process-limits", "raise a hard resource limit", FROM_YES, raise_limit),
    Entry::inside(0, "module", "load a kernel module", FROM_YES, || past(system::load_empty_module(), Errno::ENOEXEC, "init_module")),
    Entry::inside(0, "kexec", "load another kernel", FROM_YES, || past(system::kexec_with_no_such_flags(), Errno::EINVAL, "kexec_load")),
    Entry::inside(0, "accounting", "enable process accounting on the host, `acct(2)`", FROM_YES, || past(system::account_to_nothing(), Errno::ENOENT, "acct")),
    Entry::inside(0, "ports", "access the I/O ports of the machine, `iopl(2)`", FROM_YES, ports),
    Entry::inside(0, "calls-of-i386", "bypass the system call filter through the 32-bit entry", FROM_YES, calls_of_i386),
    Entry::inside(0, "calls-of-x32", "bypass the system call filter through the x32 entry", FROM_YES, calls_of_x32),
    Entry::inside(0, "clone3", "create a user namespace with `clone3(2)` where `unshare(2)` is refused", ALWAYS, clone3),
    Entry::inside(0, "ids-of-the-host", "map uid 0 of the host into a new user namespace", FROM_YES, map_host),
    Entry::inside(0, "fanotify", "monitor opened files on a filesystem of the host through a share, `fanotify(7)`", FROM_YES, watch_host),
];

/// Counts an errno that occurs after the permission check as a success.
fn past(result: nix::Result<()>, expected: Errno, what: &str) -> Try {
    match result {
        Err(error) if error == expected => Ok(()),
        result => result.known(what),
    }
}

fn open_socket(family: AddressFamily, kind: SockType) -> Try {
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None)
        .known("socket")
        .map(drop)
}

const SYS_RESOURCE: u32 = 24;

fn be_spared() -> Try {
    is_there(SYS_RESOURCE)?;
    fs::write("/proc/self/oom_score_adj", "-1000").refused("/proc/self/oom_score_adj")
}

fn raise_limit() -> Try {
    is_there(SYS_RESOURCE)?;
    let limits = [
        Resource::RLIMIT_MSGQUEUE,
        Resource::RLIMIT_RTPRIO,
        Resource::RLIMIT_MEMLOCK,
    ];
    for limit in limits {
        let (_, hard) = getrlimit(limit).refused("getrlimit")?;
        if hard != RLIM_INFINITY {
            return setrlimit(limit, hard + 1, hard + 1).refused("setrlimit");
        }
    }
    not_here("no hard limit is set")
}

#[cfg(target_arch = "x86_64")]
fn ports() -> Try {
    system::all_ports().known("iopl")
}

#[cfg(target_arch = "x86_64")]
fn calls_of_i386() -> Try {
    other_entry(|| system::getpid_of_i386().is_ok())
}

#[cfg(target_arch = "x86_64")]
fn calls_of_x32() -> Try {
    if system::getpid_of_x32() == Err(Errno::ENOSYS) {
        return Err(Errno::ENOSYS).known("getpid of x32");
    }
    other_entry(|| system::getpid_of_x32().is_ok())
}

#[cfg(not(target_arch = "x86_64"))]
use {no_such_entry as ports, no_such_entry as calls_of_i386, no_such_entry as calls_of_x32};

#[cfg(not(target_arch = "x86_64"))]
fn no_such_entry() -> Try {
    not_here("the machine is not x86")
}

/// A child makes the call, because a filter may kill it.
#[cfg(target_arch = "x86_64")]
fn other_entry(call: impl FnOnce() -> bool) -> Try {
    match in_child(call).refused("fork")? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Signaled(_, Signal::SIGSEGV, _) => not_here("this kernel has no such entry"),
        WaitStatus::Signaled(_, signal, _) => refused(format!("killed by {signal}")),
        _ => refused("the call failed"),
    }
}

fn clone3() -> Try {
    if succeeded(in_child(|| unshare(CloneFlags::CLONE_NEWUSER).is_ok()).refused("fork")?) {
        return refused("unshare is permitted, so the filter refuses no user namespace");
    }
    system::clone3(libc::CLONE_NEWUSER).known("clone3")
}

/// A child makes the namespace; its parent, which is root in the outer namespace, writes the map.
fn map_host() -> Try {
    let ((ready, ready_tx), (end, end_tx)) = (pipe().refused("pipe")?, pipe().refused("pipe")?);
    let child = system::child(|| {
        let made = unshare(CloneFlags::CLONE_NEWUSER);
        let sent = write(&ready_tx, &[u8::from(made.is_ok())]);
        drop(ready_tx);
        // Wait until the parent has written the map or failed.
        let mut byte = [0];
        made.is_ok() && sent.is_ok() && read(&end, &mut byte).is_ok()
    });
    let child = child.refused("fork")?;
    let mut made = [0];
    let _ = read(&ready, &mut made);
    let outside = fs::read_to_string("/proc/self/uid_map").refused("/proc/self/uid_map")?;
    let is_host = outside.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"];
    let written = if made == [0] {
        refused("unshare: Operation not permitted")
    } else {
        // From a mapped namespace, ids of the host are outside of its range.
        let host = if is_host { "0 0 1" } else { "0 65536 1" };
        fs::write(format!("/proc/{child}/uid_map"), host).refused("uid_map")
    };
    let _ = write(&end_tx, &[0]);
    let _ = waitpid(child, None);
    written
}

fn watch_host() -> Try {
    let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC;
    let group = Fanotify::init(flags, EventFFlags::O_RDONLY);
    // Without CAP_SYS_ADMIN, a group may report file handles instead of descriptors.
    let group = match group {
        Err(Errno::EPERM) => Fanotify::init(
            flags | InitFlags::from_bits_retain(0x200),
            EventFFlags::O_RDONLY,
        ),
        group => group,
    };
    let group = group.known("fanotify_init")?;
    let marked = group.mark(
        MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM,
        MaskFlags::FAN_OPEN,
        nix::fcntl::AT_FDCWD,
        Some("/srv/shared"),
    );
    match marked {
        Err(Errno::ENOENT) => Err(Failed::NotHere("the share does not exist".to_owned())),
        marked => marked.refused("fanotify_mark"),
    }
}
