//! Who comes in from the host, to run a command or to end all: watched for what he brings along.

use crate::foreign::Own;
use crate::table::ALWAYS;
use crate::{Entry, Try, not_here, refused};
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;

/// What has to do with entering. The test lets an administrator come in again and again, until he was seen.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::both(2, "entered-program", "keep the program by which an administrator enters, to overwrite it later", ALWAYS, || watch(|own, process| own.find(process, &["exe", "map_files"]).is_some())),
    Entry::both(19, "entered-descriptors", "take a descriptor or directory of the host's from who enters", ALWAYS, || watch(|own, process| own.find(process, &["fd", "cwd", "root"]).is_some())),
    Entry::both(19, "entered-traced", "trace who enters while he still may more than the subhost, or holds more", ALWAYS, || watch(trace)),
    Entry::both(0, "ended", "catch what who comes in to end the subhost brings along", ALWAYS, watch_end),
];

/// Tells us to stop.
const STOP: &str = "/run/attack-stop";
/// Tells the test that somebody was seen.
const SEEN: &str = "/run/attack-seen";

/// Looks at whoever comes in with `caught`, until it is told to stop.
fn watch(caught: impl Fn(&Own, &str) -> bool) -> Try {
    let own = Own::new();
    let mut seen = false;
    while !Path::new(STOP).exists() {
        for process in visitors() {
            if caught(&own, &process) {
                return Ok(());
            }
            if !seen {
                seen = fs::write(SEEN, "").is_ok();
            }
        }
    }
    match seen {
        true => refused("seen, and nothing of the host's found"),
        false => not_here("nobody was seen"),
    }
}

/// Leaves its finding in a file, for nobody can come in any more to be told.
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

/// The processes that are tools of the host, by their names: ours, and one that is known to bring much along.
fn visitors() -> impl Iterator<Item = String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.map(|process| process.file_name().to_string_lossy().into_owned());
    numbers.filter(|number| {
        let name = fs::read_to_string(format!("/proc/{number}/comm"));
        name.is_ok_and(|name| name.starts_with("ob-") || name.starts_with("nsenter"))
    })
}

/// Stops the process, if the kernel lets us, and looks for anything that is not the subhost's, or rights that we have not.
fn trace(own: &Own, process: &str) -> bool {
    let pid = Pid::from_raw(process.parse().unwrap_or_default());
    if ptrace::seize(pid, ptrace::Options::empty()).is_err() {
        return false;
    }
    let stopped = ptrace::interrupt(pid).and_then(|()| waitpid(pid, None));
    // One that has ended meanwhile has nothing to show, which is not what we have.
    let Ok(WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)) = stopped else {
        return false;
    };
    let holds = own
        .find(process, &["exe", "map_files", "fd", "cwd", "root"])
        .is_some();
    // Nobody else's program is a tool: it has not become the command yet.
    let is_tool = visitors().any(|other| other == process);
    let may_more = is_tool && rights(process) != rights("self");
    let _ = ptrace::detach(pid, None);
    holds || may_more
}

/// What decides what a process may: its capabilities, its filter, its user namespace.
fn rights(process: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let decides = |line: &&str| line.starts_with("CapPrm") || line.starts_with("Seccomp:");
    let users = fs::read_link(format!("/proc/{process}/ns/user")).unwrap_or_default();
    let lines = status.lines().filter(decides).map(str::to_owned);
    lines.chain([users.display().to_string()]).collect()
}
