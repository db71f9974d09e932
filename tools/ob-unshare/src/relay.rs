//! Copies the output of a command that is pid 1. With a descriptor of the caller, root inside could
//! change the mode of a file of the host, open it again, or read the input of a terminal. So pid 1
//! gets a pipe, and a child of the supervisor copies it to the output of the supervisor.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::fstat;
use nix::unistd::{pipe2, read, write};
use nix::{fcntl::OFlag, sys::wait::Id, sys::wait::WaitPidFlag, sys::wait::waitid};
use ob_shutdown::block_termination_signals;
use ob_sys::process::{Child, close_all_except, pidfd_signal, spawn};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The pipes for standard output and standard error; one if both are the same file, so that the
/// order is kept.
pub struct Relay {
    ends: Vec<OwnedFd>,
    children: Vec<Child>,
}

impl Relay {
    /// Starts the children that copy to standard output and standard error of this process.
    pub fn new() -> Result<Self> {
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        let identity = |fd: BorrowedFd| fstat(fd).map(|status| (status.st_dev, status.st_ino));
        let mut relay = Relay {
            ends: Vec::new(),
            children: Vec::new(),
        };
        relay.copy_to(stdout.as_fd())?;
        if identity(stdout.as_fd())? != identity(stderr.as_fd())? {
            relay.copy_to(stderr.as_fd())?;
        }
        Ok(relay)
    }

    /// Returns the ends for pid 1: standard output and standard error.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        let end = |number: usize| self.ends[number.min(self.ends.len() - 1)].as_fd();
        [end(0), end(1)]
    }

    /// Closes the ends in this process, so that the children reach the end of file when pid 1 has
    /// closed its ends.
    pub fn close_ends(&mut self) {
        self.ends.clear();
    }

    /// Waits until the children have written all output, or for TERM, INT or HUP.
    pub fn finish(&self) -> Result<()> {
        let signals = block_termination_signals(&[])?;
        for child in &self.children {
            let mut events =
                [child.pidfd.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            while poll(&mut events, PollTimeout::NONE) == Err(Errno::EINTR) {}
            let _ = pidfd_signal(&child.pidfd, Signal::SIGKILL);
            waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        }
        Ok(())
    }

    fn copy_to(&mut self, target: BorrowedFd) -> Result<()> {
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
        let child = spawn(0, None, || {
            // A signal to the process group must not lose the last output of the subhost.
            let _ = SigSet::all().thread_block();
            let copied = close_all_except(&[reading.as_fd(), target]);
            u8::from(copied.and_then(|()| copy(&reading, target)).is_err())
        });
        self.children
            .push(child.context("start to copy its output")?);
        self.ends.push(writing);
        Ok(())
    }
}

/// Copies to the end of file. If a write fails, for example on a full disk, pid 1 gets EPIPE.
fn copy(from: &OwnedFd, to: BorrowedFd) -> nix::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let mut rest = match read(from, &mut buffer)? {
            0 => return Ok(()),
            length => &buffer[..length],
        };
        while !rest.is_empty() {
            match write(to, rest) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let mut event = [PollFd::new(to, PollFlags::POLLOUT)];
                    poll(&mut event, PollTimeout::NONE)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
