//! Processes by pid, and the proof that a pid still belongs to the recorded process.

use crate::Document;
use anyhow::{Context, Result};
use nix::unistd::Pid;
use ob_sys::process::{pidfd_open, pidfd_signal};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// Opens a pidfd of pid 1 of the subhost.
///
/// Returns `None` unless the process is alive and has the pid namespace and the start time that the
/// document records; so a process that reuses the pid is never returned.
#[must_use]
pub fn open_pid1(document: &Document) -> Option<OwnedFd> {
    let pid = i32::try_from(document.number("pid").ok()?).ok()?;
    let pidfd = pidfd_open(Pid::from_raw(pid)).ok()?;
    let (pidns, start) = identify(pid).ok()?;
    // While the process behind the pidfd is alive, its pid is not reused. So `pidns` and `start`,
    // read between the two system calls, belong to that process.
    let alive = pidfd_signal(&pidfd, None).is_ok();
    let recorded = (
        document.number("pidns").ok()?,
        document.number("start").ok()?,
    );
    (alive && recorded == (pidns, start)).then_some(pidfd)
}

/// Returns the inode of the pid namespace of the process `pid`, and its start time in clock ticks
/// after boot, proc_pid_stat(5).
pub fn identify(pid: i32) -> Result<(u64, u64)> {
    let pidns = std::fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino();
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    let start = start_in(&String::from_utf8_lossy(&stat));
    let start = start.with_context(|| format!("read /proc/{pid}/stat"))?;
    Ok((pidns, start))
}

/// Returns the start time in a line of `/proc/PID/stat`.
fn start_in(stat: &str) -> Option<u64> {
    field(stat, 22)
}

/// Returns the pid of the parent of the process `pid`.
pub(crate) fn parent(pid: u64) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let parent = field(&String::from_utf8_lossy(&stat), 4)?;
    i32::try_from(parent).ok()
}

/// Returns the field `number`, at least 3, of a line of `/proc/PID/stat`, proc_pid_stat(5).
fn field(stat: &str, number: usize) -> Option<u64> {
    // The second field, the command name in parentheses, may have any character, even `)`.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number - 3)?.parse().ok()
}

/// Returns whether the process with the given line of `/proc/PID/stat` is alive.
///
/// A script can record that line of itself without another program.
#[must_use]
pub fn lives(recorded: &str) -> bool {
    let pid: Option<u32> = recorded.split(' ').next().and_then(|pid| pid.parse().ok());
    let now = pid.and_then(|pid| std::fs::read(format!("/proc/{pid}/stat")).ok());
    now.is_some_and(|stat| {
        let stat = String::from_utf8_lossy(&stat);
        let start = start_in(&stat);
        // A process that has exited stays a zombie until its parent calls wait(2).
        start.is_some() && start == start_in(recorded) && !stat.contains(") Z ")
    })
}
