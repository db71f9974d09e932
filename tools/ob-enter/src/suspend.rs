//! The stop of this process by a job control signal.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, setsid};
use ob_sys::process::{Child, close_all_except, pidfd_open, pidfd_signal, spawn};
use std::os::fd::{AsFd, OwnedFd};

/// Stops this process until it gets SIGCONT, or until `child` has ended.
///
/// A pid namespace exits only after its processes have been reaped, also by a parent outside
/// (`zap_pid_ns_processes`). So a stopped parent would block the end of the subhost.
pub(crate) fn suspend(child: Option<&Child>) {
    let waker = child.and_then(|child| {
        let stopped = pidfd_open(Pid::this()).ok()?;
        spawn(0, None, || wake(&stopped, child)).ok()
    });
    let _ = raise(Signal::SIGSTOP);
    if let Some(waker) = waker {
        let _ = pidfd_signal(&waker.pidfd, Signal::SIGKILL);
        let _ = waitid(Id::PIDFd(waker.pidfd.as_fd()), WaitPidFlag::WEXITED);
    }
}

/// Continues the process `stopped` when `child` has ended.
fn wake(stopped: &OwnedFd, child: &Child) -> u8 {
    // A stop of the process group does not reach another session.
    let _ = setsid();
    let _ = close_all_except(&[stopped.as_fd(), child.pidfd.as_fd()]);
    let mut ends = [stopped, &child.pidfd].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
    while poll(&mut ends, PollTimeout::NONE) == Err(Errno::EINTR) {}
    let _ = pidfd_signal(stopped, Signal::SIGCONT);
    0
}
