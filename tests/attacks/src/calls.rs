//! System calls: what the kernel does for whom it trusts.

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

/// What has to do with system calls.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(9, "clock", "set the host's clock", FROM_YES, || system::set_no_time().refused("settimeofday")),
    Entry::inside(9, "kernel-log", "read the kernel's messages by `syslog(2)`", FROM_YES, || system::kernel_log().refused("syslog").map(drop)),
    Entry::inside(23, "bpf", "make a map for programs in the kernel, `bpf(2)`", FROM_YES, || system::bpf_map().known("bpf").map(drop)),
    Entry::inside(23, "perf", "watch all processes of the machine, `perf_event_open(2)`", FROM_YES, || system::perf_event().known("perf_event_open").map(drop)),
    Entry::inside(23, "userfaultfd", "hold up the kernel at a page fault, `userfaultfd(2)`", FROM_YES, || system::userfaultfd().known("userfaultfd").map(drop)),
    Entry::inside(23, "io-uring", "set up `io_uring(7)`", FROM_YES, || system::io_uring().known("io_uring_setup").map(drop)),
    Entry::inside(23, "vsock", "open a socket to the hypervisor, `AF_VSOCK`", FROM_YES, || open_socket(AddressFamily::Vsock, SockType::Stream)),
    Entry::inside(23, "kernel-crypto", "open a socket to the kernel's ciphers, `AF_ALG`", FROM_YES, || open_socket(AddressFamily::Alg, SockType::SeqPacket)),
    Entry::inside(23, "swapon", "have the host swap to a file of the attacker's", FROM_YES, || past(system::swap_on_nothing(), Errno::ENOENT, "swapon")),
    Entry::inside(23, "quotactl", "reach the quotas of the host's filesystems", FROM_YES, || system::sync_quotas().known("quotactl").map(drop)),
    Entry::inside(23, "user-keyring", "get the keyring that all of the host's uid 0 share", FROM_YES, || system::user_keyring().known("keyctl").map(drop)),
    Entry::inside(24, "real-time", "run before all processes of the host, `SCHED_FIFO`", FROM_YES, || system::run_first().refused("sched_setscheduler")),
    Entry::inside(24, "spared-by-oom", "be the last to be killed when memory is short, `oom_score_adj` −1000", FROM_YES, be_spared),
    Entry::inside(0, "priority", "run with more weight than the host, `nice` −20", FROM_YES, || system::set_priority(-20).refused("setpriority")),
    Entry::inside(0, "disk-priority", "have the disk before the host", FROM_YES, || system::read_first().refused("ioprio_set")),
    Entry::inside(0, "process-limits", "raise a hard limit of its processes", FROM_YES, raise_limit),
    Entry::inside(0, "module", "load a module into the kernel", FROM_YES, || past(system::load_empty_module(), Errno::ENOEXEC, "init_module")),
    Entry::inside(0, "kexec", "load another kernel", FROM_YES, || past(system::kexec_with_no_such_flags(), Errno::EINVAL, "kexec_load")),
    Entry::inside(0, "accounting", "have the host write down all processes that end, `acct(2)`", FROM_YES, || past(system::account_to_nothing(), Errno::ENOENT, "acct")),
    Entry::inside(0, "ports", "get the machine's ports, `iopl(2)`", FROM_YES, ports),
    Entry::inside(0, "calls-of-i386", "make system calls by the entry for programs of 32 bits, past the filter", FROM_YES, calls_of_i386),
    Entry::inside(0, "calls-of-x32", "the same by the x32 entry", FROM_YES, calls_of_x32),
    Entry::inside(0, "clone3", "get a user namespace that is refused to `unshare(2)` by `clone3(2)`", ALWAYS, clone3),
    Entry::inside(0, "ids-of-the-host", "map the host's uid 0 into a user namespace of its own", FROM_YES, map_host),
    Entry::inside(0, "fanotify", "be told of each file that is opened on the host's filesystem, through a share", FROM_YES, watch_host),
];

/// That a call got past the question who asks, and failed for what we asked for.
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
    not_here("there are no limits")
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
    not_here("this is no x86")
}

/// A child calls, since a filter may kill who does.
#[cfg(target_arch = "x86_64")]
fn other_entry(call: impl FnOnce() -> bool) -> Try {
    match in_child(call).refused("fork")? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Signaled(_, Signal::SIGSEGV, _) => not_here("this kernel has no such entry"),
        WaitStatus::Signaled(_, signal, _) => refused(format!("killed by {signal}")),
        _ => refused("it failed"),
    }
}

fn clone3() -> Try {
    if succeeded(in_child(|| unshare(CloneFlags::CLONE_NEWUSER).is_ok()).refused("fork")?) {
        return refused("there is nothing to get past: unshare is not refused");
    }
    system::clone3(libc::CLONE_NEWUSER).known("clone3")
}

/// A child makes the namespace; its parent, root in the one around it, writes the map.
fn map_host() -> Try {
    let ((ready, tell_ready), (end, tell_end)) = (pipe().refused("pipe")?, pipe().refused("pipe")?);
    let child = system::child(|| {
        let made = unshare(CloneFlags::CLONE_NEWUSER);
        let told = write(&tell_ready, &[u8::from(made.is_ok())]);
        drop(tell_ready);
        // Until the parent has written, or given up.
        let mut byte = [0];
        made.is_ok() && told.is_ok() && read(&end, &mut byte).is_ok()
    });
    let child = child.refused("fork")?;
    let mut made = [0];
    let _ = read(&ready, &mut made);
    let outside = fs::read_to_string("/proc/self/uid_map").refused("/proc/self/uid_map")?;
    let is_host = outside.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"];
    let written = if made == [0] {
        refused("unshare: Operation not permitted")
    } else {
        // Seen from a namespace whose ids are others, the host's are beyond the range.
        let host = if is_host { "0 0 1" } else { "0 65536 1" };
        fs::write(format!("/proc/{child}/uid_map"), host).refused("uid_map")
    };
    let _ = write(&tell_end, &[0]);
    let _ = waitpid(child, None);
    written
}

fn watch_host() -> Try {
    let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC;
    let group = Fanotify::init(flags, EventFFlags::O_RDONLY);
    // What is left to those without the capability: events that tell no descriptors.
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
        Err(Errno::ENOENT) => Err(Failed::NotHere("there is no share".to_owned())),
        marked => marked.refused("fanotify_mark"),
    }
}
