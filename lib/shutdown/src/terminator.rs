//! The shutdown helper: sends TERM to every process of a subhost, from inside its pid namespace,
//! where one kill(2) with pid -1 reaches them all.
//!
//! It consists of two processes. The first executes a sealed memfd with a copy of this program and
//! joins the namespaces of the subhost; the second, its child, is born in the pid namespace. Root
//! inside can trace the second one and open what its `/proc/PID` shows: its root, its executable
//! and its descriptors. So none of these is of the host.

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
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

/// The option that makes this program the shutdown helper. Both tools that end subhosts know it,
/// see [`main`].
pub const OPTION: &str = "watch";

/// The name that `ps` shows inside, and that of the memfd. It is the same for each tool.
const NAME: &CStr = c"ob-unshare";

/// Starts the helper for the subhost of `pid1`. It exits with 0 when only pid 1 is left.
///
/// With another exit status it has signalled no process, or was killed.
pub fn start(pid1: &OwnedFd) -> Result<Child> {
    let program = sealed_program()?;
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    let words = [NAME.into(), CString::new(format!("--{OPTION}"))?];
    let descriptors = Descriptors {
        standard: [pid1.as_fd(), pid1.as_fd(), pid1.as_fd()],
        extra: None,
    };
    Ok(spawn(0, None, || {
        let _ = set_pdeathsig(Signal::SIGKILL);
        let _ = exec(&path, &words, &[], &descriptors);
        1
    })?)
}

/// Copies this program to a sealed memfd, once for all subhosts that end together.
fn sealed_program() -> Result<&'static OwnedFd> {
    static COPY: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(copy) = COPY.get() {
        return Ok(copy);
    }
    let mut program = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    let copy = seal_file(NAME, &mut program).context("copy this program into memory")?;
    Ok(COPY.get_or_init(|| copy))
}

/// Runs the helper. Its standard input is the pidfd of pid 1.
pub fn main() -> Result<ExitCode> {
    // Pid 1 may send the TERM that it gets to every process, also to this process.
    SigSet::all().thread_block()?;
    let pid1 = dup_inherited(0)?;
    setns(&pid1, CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    drop(pid1);
    chdir("/")?;
    close_all_except(&[])?;
    let inside = spawn(0, None, || {
        let _ = set_pdeathsig(Signal::SIGKILL);
        let _ = set_dumpable(false);
        terminate_all()
    })?;
    let ended = waitid(Id::PIDFd(inside.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    let is_alone = matches!(ended, WaitStatus::Exited(_, 0));
    Ok(ExitCode::from(u8::from(!is_alone)))
}

/// Sends TERM to every process, and waits until only pid 1 and zombies are left. Returns the exit
/// status.
fn terminate_all() -> u8 {
    // Neither this process nor pid 1 is among the receivers, kill(2).
    let every_process = Pid::from_raw(-1);
    if kill(every_process, Signal::SIGTERM) == Err(Errno::ESRCH) {
        return 0;
    }
    // A stopped process handles TERM only after CONT.
    let _ = kill(every_process, Signal::SIGCONT);
    let mut pause = 1;
    loop {
        std::thread::sleep(Duration::from_millis(pause));
        pause = (pause * 2).min(50);
        // kill(2) succeeds for zombies too, and a pid 1 that is no init does not wait for them.
        if kill(every_process, None) == Err(Errno::ESRCH) || (pause > 8 && only_zombies()) {
            return 0;
        }
    }
}

/// Returns whether all processes in this pid namespace are zombies, except pid 1 and this process.
///
/// Reads a new procfs that is not attached anywhere: the subhost may have mounted anything on
/// /proc.
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
