//! Who sees a subhost out: from within its pid namespace, where one signal reaches all, and with nothing of the host about it.
//!
//! Two processes. The first has become a sealed copy of this program and joins the subhost's namespaces; the second is born there.
//! For root inside it is one of their own, to be traced and looked into: its root, its program and its descriptors are what could be
//! reached through it.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, chdir, fchdir};
use ob_sys::memfd::seal_file;
use ob_sys::mount::Filesystem;
use ob_sys::process::{Child, Descriptors, close_all_except, dup_inherited, exec, spawn};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

/// The one word on the command line of the copy.
pub const WATCH: &str = "watch";

/// Starts the watcher of the subhost of `pid_1`: it tells all processes there to end, and ends itself with 0 when none is left but
/// pid 1. With another status it has seen nothing.
pub fn start(pid_1: &OwnedFd) -> Result<Child> {
    let program = copy()?;
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    let words = [c"ob-unshare".into(), CString::new(format!("--{WATCH}"))?];
    let descriptors = Descriptors {
        standard: [pid_1.as_fd(), pid_1.as_fd(), pid_1.as_fd()],
        extra: None,
    };
    Ok(spawn(0, None, || {
        let _ = set_pdeathsig(Signal::SIGKILL);
        let _ = exec(&path, &words, &[], &descriptors);
        1
    })?)
}

/// A copy of this program in memory, one for all subhosts that end together.
fn copy() -> Result<&'static OwnedFd> {
    static COPY: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(copy) = COPY.get() {
        return Ok(copy);
    }
    let mut program = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    let copy = seal_file(c"ob-unshare", &mut program).context("copy this program into memory")?;
    Ok(COPY.get_or_init(|| copy))
}

/// The life of the copy, which has pid 1 as its standard input.
pub fn run() -> Result<ExitCode> {
    // Pid 1 passes the TERM that it gets on to all, us among them.
    SigSet::all().thread_block()?;
    let pid_1 = dup_inherited(0)?;
    setns(&pid_1, CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    drop(pid_1);
    chdir("/")?;
    close_all_except(&[])?;
    let watching = spawn(0, None, || {
        let _ = set_pdeathsig(Signal::SIGKILL);
        let _ = set_dumpable(false);
        watch()
    })?;
    let ended = waitid(Id::PIDFd(watching.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    let alone = matches!(ended, WaitStatus::Exited(_, 0));
    Ok(ExitCode::from(u8::from(!alone)))
}

fn watch() -> u8 {
    let everyone = Pid::from_raw(-1);
    if kill(everyone, Signal::SIGTERM) == Err(Errno::ESRCH) {
        return 0;
    }
    // A stopped process would sleep through its TERM.
    let _ = kill(everyone, Signal::SIGCONT);
    let mut pause = 1;
    loop {
        std::thread::sleep(Duration::from_millis(pause));
        pause = (pause * 2).min(50);
        // Zombies can be signalled too, and a pid 1 that is no init leaves them lying about.
        if kill(everyone, None) == Err(Errno::ESRCH) || (pause > 8 && only_zombies()) {
            return 0;
        }
    }
}

/// Whether all in this pid namespace but pid 1 and us are dead, by a procfs of its own that is mounted nowhere: what lies at /proc
/// is for the subhost to say.
fn only_zombies() -> bool {
    let enter = || -> nix::Result<()> {
        let proc = Filesystem::new(c"proc")?;
        proc.create()?;
        fchdir(proc.mount(0)?)
    };
    if enter().is_err() {
        return false;
    }
    let us = std::fs::read_link("self").unwrap_or_default();
    let entries = std::fs::read_dir(".").into_iter().flatten().flatten();
    let alone = entries
        .filter(|entry| {
            let name = entry.file_name();
            let number = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
            number && name != "1" && name != us
        })
        .all(|entry| {
            let status = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let state = status.rsplit_once(") ").map_or("", |(_, rest)| rest);
            state.is_empty() || state.starts_with(['Z', 'X'])
        });
    let _ = chdir("/");
    alone
}
