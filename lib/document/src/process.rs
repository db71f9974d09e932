//! Processes by their numbers, and the proof that a number still belongs to the process that was noted.

use crate::Document;
use anyhow::{Context, Result};
use nix::unistd::Pid;
use ob_sys::process::{pidfd_open, pidfd_signal};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// Opens pid 1 of the subhost and proves that it is the one of the document: alive, with the pid namespace and the start time
/// that were noted. None if it has ended, even if its number is now another's.
#[must_use]
pub fn open_pid1(document: &Document) -> Option<OwnedFd> {
    let pid = i32::try_from(document.number("pid").ok()?).ok()?;
    let pidfd = pidfd_open(Pid::from_raw(pid)).ok()?;
    let (pidns, start) = identify(pid).ok()?;
    // What was read belongs to the process behind the descriptor, for its number cannot be used again while it lives.
    let alive = pidfd_signal(&pidfd, None).is_ok();
    let noted = (
        document.number("pidns").ok()?,
        document.number("start").ok()?,
    );
    (alive && noted == (pidns, start)).then_some(pidfd)
}

/// The number of the pid namespace of the process `pid` and the time it started, in clock ticks since the host did.
pub fn identify(pid: i32) -> Result<(u64, u64)> {
    let pidns = std::fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino();
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    let start = start_in(&String::from_utf8_lossy(&stat));
    let start = start.with_context(|| format!("read /proc/{pid}/stat"))?;
    Ok((pidns, start))
}

/// The start time in a line of `/proc/PID/stat`.
fn start_in(stat: &str) -> Option<u64> {
    field(stat, 22)
}

/// The number of the parent of the process `pid`.
pub(crate) fn parent(pid: u64) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let parent = field(&String::from_utf8_lossy(&stat), 4)?;
    i32::try_from(parent).ok()
}

/// The field `number`, from 3, of a line of `/proc/PID/stat`, as proc_pid_stat(5) counts them.
fn field(stat: &str, number: usize) -> Option<u64> {
    // The command's name may hold anything, a parenthesis too; it is the second field.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number - 3)?.parse().ok()
}

/// Whether the process lives whose line of `/proc/PID/stat` this was: what a script can note of itself.
#[must_use]
pub fn lives(noted: &str) -> bool {
    let pid: Option<u32> = noted.split(' ').next().and_then(|pid| pid.parse().ok());
    let now = pid.and_then(|pid| std::fs::read(format!("/proc/{pid}/stat")).ok());
    now.is_some_and(|stat| {
        let stat = String::from_utf8_lossy(&stat);
        let start = start_in(&stat);
        // One that has ended stays as a zombie until its parent looks.
        start.is_some() && start == start_in(noted) && !stat.contains(") Z ")
    })
}
