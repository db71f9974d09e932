//! Entering: a spy inside inspects each process that the host sends in, to run a command or to
//! end the subhost.

use crate::foreign::Own;
use crate::table::ALWAYS;
use crate::{Entry, Try, not_here, refused};
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;

/// Entries about entering. The test enters until the spy has seen a process, and some more
/// times.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::both(2, "entered-program", "keep the program with which an administrator enters, to overwrite the file later", ALWAYS, || watch(|own, process| own.find(process, &["exe", "map_files"]).is_some())),
    Entry::both(19, "entered-descriptors", "take a descriptor or directory of the host from `ob-enter`", ALWAYS, || watch(|own, process| own.find(process, &["fd", "cwd", "root"]).is_some())),
    Entry::both(19, "entered-traced", "trace `ob-enter` while it has more privileges or open files than the subhost", ALWAYS, || watch(trace)),
    Entry::both(0, "ended", "take a descriptor or directory of the host from the shutdown helper", ALWAYS, watch_end),
];

/// The test creates this file to end the spy.
const STOP: &str = "/run/attack-stop";
/// The spy creates this file when it has seen a process.
const SEEN: &str = "/run/attack-seen";

/// Applies `caught` to each entering process until the file `STOP` exists.
fn watch(caught: impl Fn(&Own, &str) -> bool) -> Try {
    let own = Own::new();
    let mut seen = false;
    while !Path::new(STOP).exists() {
        for process in entering() {
            if caught(&own, &process) {
                return Ok(());
            }
            if !seen {
                seen = fs::write(SEEN, "").is_ok();
            }
        }
    }
    match seen {
        true => refused("a process was seen, with no object of the host"),
        false => not_here("no process was seen"),
    }
}

/// Writes the result into a file, because the subhost ends with the spy.
fn watch_end() -> Try {
    let mut all = SigSet::empty();
    all.add(Signal::SIGTERM);
    let _ = all.thread_block();
    let watched = watch(|own, process| {
        let found = own.find(process, &["exe", "map_files", "fd", "cwd", "root"]);
        let caught = found.is_some() || trace(own, process);
        let _ = fs::write("/ended", if caught { "caught" } else { "seen" });
        caught
    });
    watched.and_then(|()| {
        loop {
            nix::unistd::pause();
        }
    })
}

/// Returns the pids of tools of the host, by their names: the tools of overlay-boot, and
/// nsenter(1), which leaks descriptors.
fn entering() -> impl Iterator<Item = String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.map(|process| process.file_name().to_string_lossy().into_owned());
    numbers.filter(|number| {
        let name = fs::read_to_string(format!("/proc/{number}/comm"));
        name.is_ok_and(|name| name.starts_with("ob-") || name.starts_with("nsenter"))
    })
}

/// Traces the process if the kernel permits, and checks for objects outside of the subhost and for
/// more privileges.
fn trace(own: &Own, process: &str) -> bool {
    let pid = Pid::from_raw(process.parse().unwrap_or_default());
    if ptrace::seize(pid, ptrace::Options::empty()).is_err() {
        return false;
    }
    let stopped = ptrace::interrupt(pid).and_then(|()| waitpid(pid, None));
    // A process that exits before it is stopped shows nothing.
    let Ok(WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)) = stopped else {
        return false;
    };
    let holds = own
        .find(process, &["exe", "map_files", "fd", "cwd", "root"])
        .is_some();
    // A process with the name of a tool has not executed the command yet.
    let is_tool = entering().any(|other| other == process);
    let has_more = is_tool && rights(process) != rights("self");
    let _ = ptrace::detach(pid, None);
    holds || has_more
}

/// Returns the privileges of a process: its capabilities, seccomp mode and user namespace.
fn rights(process: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let decides = |line: &&str| line.starts_with("CapPrm") || line.starts_with("Seccomp:");
    let users = fs::read_link(format!("/proc/{process}/ns/user")).unwrap_or_default();
    let lines = status.lines().filter(decides).map(str::to_owned);
    lines.chain([users.display().to_string()]).collect()
}
