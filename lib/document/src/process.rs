//! Processes by pid, and the proof that a pid still belongs to the recorded process.

use crate::Document;
use anyhow::{Context, Result};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use ob_sys::process::pidfd_open;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// Opens a pidfd of pid 1 of the subhost.
///
/// Returns `None` unless the process runs and has the pid namespace and the start time that the
/// document records; so a process that reuses the pid is never returned. A zombie does not run.
///
/// # Errors
/// The process cannot be examined: this process has too many open files, for example.
pub fn open_pid1(document: &Document) -> Result<Option<OwnedFd>> {
    let fact = |name| document.number(name).ok();
    let recorded = (fact("pidns"), fact("start"));
    let Some(pid) = fact("pid").and_then(|pid| i32::try_from(pid).ok()) else {
        return Ok(None);
    };
    let examine = || -> io::Result<Option<OwnedFd>> {
        let pidfd = pidfd_open(Pid::from_raw(pid))?;
        let identity = identity(pid);
        // While the process behind the pidfd runs, its pid is not reused. So the identity, read
        // between the two system calls, belongs to that process. If the process exits meanwhile,
        // /proc reports other errors too, such as EACCES (proc_ns_get_link).
        let mut exit = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let has_exited = poll(&mut exit, PollTimeout::ZERO)? > 0;
        if has_exited {
            return Ok(None);
        }
        let (pidns, start) = identity?;
        Ok((recorded == (Some(pidns), start)).then_some(pidfd))
    };
    match examine() {
        Err(error) if is_gone(&error) => Ok(None),
        examined => examined.with_context(|| format!("examine pid 1, {pid}")),
    }
}

/// Returns whether an error of pidfd_open(2) or of a file in /proc means that the process does not
/// exist. pidfd_open(2) fails with `EINVAL` for a pid below 1.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    let gone = [libc::ENOENT, libc::ESRCH, libc::EINVAL];
    error
        .raw_os_error()
        .is_some_and(|errno| gone.contains(&errno))
}

/// Returns the inode of the pid namespace of the process `pid`, and its start time in clock ticks
/// after boot, proc_pid_stat(5).
pub fn identify(pid: i32) -> Result<(u64, u64)> {
    let (pidns, start) = identity(pid)?;
    let start = start.with_context(|| format!("read /proc/{pid}/stat"))?;
    Ok((pidns, start))
}

fn identity(pid: i32) -> io::Result<(u64, Option<u64>)> {
    let pidns = std::fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino();
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    Ok((pidns, start_in(&String::from_utf8_lossy(&stat))))
}

/// Returns the start time in a line of `/proc/PID/stat`.
fn start_in(stat: &str) -> Option<u64> {
    field(stat, 22)
}

/// Returns the pid of the parent of the process `pid`; `None` if the process does not exist.
pub fn parent(pid: u64) -> io::Result<Option<i32>> {
    let stat = match std::fs::read(format!("/proc/{pid}/stat")) {
        Err(error) if is_gone(&error) => return Ok(None),
        stat => stat?,
    };
    let parent = field(&String::from_utf8_lossy(&stat), 4);
    Ok(parent.and_then(|parent| i32::try_from(parent).ok()))
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
