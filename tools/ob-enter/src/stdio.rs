//! The standard descriptors of the caller and of the command.

use crate::channel::{Channel, Feed};
use crate::descriptor::{kind, set_nonblocking};
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::signals::Signals;
use crate::terminal::{self, Terminal};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, posix_openpt};
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, isatty, pipe2};
use ob_sys::device;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How the data of a descriptor of the caller is passed to the command.
///
/// The descriptor is never inherited: root of the subhost could change the mode and the flags of
/// its file, reopen it for writing, and get the peer credentials of a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StdioPassing {
    /// Replaced by /dev/null of the subhost.
    Null,
    /// Through a pseudoterminal of the subhost. A command with the terminal of the caller could
    /// type into the shell there (TIOCSTI).
    Terminal,
    /// Through a pipe that this process reads or writes.
    Pipe,
}

/// The standard descriptors of the caller.
pub struct CallerStdio {
    passing: [StdioPassing; 3],
    descriptors: [OwnedFd; 3],
    /// The first of the descriptors that is a terminal, reopened.
    terminal: Option<OwnedFd>,
    /// A pseudoterminal of the host, for a subhost that has no /dev/ptmx.
    fallback_pty: Option<PtyMaster>,
    signals: Signals,
}

/// The standard descriptors of the command.
pub struct ChildStdio {
    /// Standard input, output and error.
    pub standard: [OwnedFd; 3],
    /// The controlling terminal of the command, if one of them is a terminal.
    pub terminal: Option<OwnedFd>,
}

impl ChildStdio {
    /// Returns the pipes and the terminal, which this process has created.
    ///
    /// Fails if `fstat(2)` does.
    pub fn created(&self) -> nix::Result<Vec<&OwnedFd>> {
        let mut created: Vec<&OwnedFd> = self.terminal.iter().collect();
        for fd in &self.standard {
            if kind(&fstat(fd)?) == SFlag::S_IFIFO {
                created.push(fd);
            }
        }
        Ok(created)
    }
}

impl CallerStdio {
    /// Examines descriptors 0, 1 and 2. Without `terminals`, terminals are passed through pipes.
    ///
    /// Signals are blocked from here on; the proxy forwards them. Must be called while this process
    /// is in the root of the host, because the subhost controls what its /dev and /proc contain.
    pub fn examine(terminals: bool) -> Result<Self> {
        let descriptors = duplicate_standard()?;
        let mut passing = [StdioPassing::Pipe; 3];
        for (passing, fd) in passing.iter_mut().zip(&descriptors) {
            *passing = classify(fd, terminals)?;
        }
        let first = passing
            .iter()
            .position(|passing| *passing == StdioPassing::Terminal);
        let terminal = first.map(|first| terminal::reopen(&descriptors[first]));
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        Ok(CallerStdio {
            passing,
            descriptors,
            fallback_pty: first.and_then(|_| posix_openpt(flags).ok()),
            terminal: terminal.transpose()?,
            signals: Signals::catch()?,
        })
    }

    /// Creates the descriptors of the command, and the proxy that connects them to these.
    ///
    /// Devices are opened below `root`, the root directory of the subhost.
    pub fn connect(self, root: impl AsFd) -> Result<(Proxy, ChildStdio)> {
        let has_null = self.passing.contains(&StdioPassing::Null);
        let null = has_null.then(|| device::open_in(&root, "dev/null", device::NULL));
        let terminal = match self.terminal {
            Some(host) => {
                let master = device::open_in(&root, "dev/ptmx", device::PTMX)
                    .or_else(|_| self.fallback_pty.map(OwnedFd::from).ok_or(Errno::ENODEV))
                    .context("create a terminal in it")?;
                let is_terminal = self
                    .passing
                    .map(|passing| passing == StdioPassing::Terminal);
                Some(Terminal::new(host, is_terminal, master)?)
            }
            None => None,
        };
        let mut connector = Connector {
            passing: self.passing,
            terminal,
            null: null.and_then(Result::ok),
            proxy: Proxy::new(self.signals),
        };
        let [stdin, stdout, stderr] = &self.descriptors;
        let input = connector.connect(0, stdin);
        let input = input.context("connect standard input")?;
        let output = connector.connect(1, stdout);
        let output = output.context("connect standard output")?;
        let errors = if connector.is_one_file(stdout, stderr)? {
            output.try_clone()?
        } else {
            let errors = connector.connect(2, stderr);
            errors.context("connect standard error")?
        };
        let (proxy, terminal) = connector.finish()?;
        let standard = [input, output, errors];
        allow_reopen(&standard).context("set the mode of the pipes")?;
        Ok((proxy, ChildStdio { standard, terminal }))
    }
}

/// Creates the standard descriptors of the command one by one.
struct Connector {
    passing: [StdioPassing; 3],
    terminal: Option<Terminal>,
    /// /dev/null of the subhost.
    null: Option<OwnedFd>,
    proxy: Proxy,
}

impl Connector {
    /// Returns descriptor `number` of the command, for `fd` of the caller.
    fn connect(&mut self, number: usize, fd: &OwnedFd) -> Result<OwnedFd> {
        Ok(match (self.passing[number], &self.terminal, &self.null) {
            (StdioPassing::Terminal, Some(terminal), _) => terminal.peer.try_clone()?,
            (StdioPassing::Null, _, Some(null)) => {
                replace(number, null)?;
                null.try_clone()?
            }
            _ if number == 0 => self.pipe_in(fd)?,
            (_, Some(terminal), _) if terminal.is_input => {
                let (relay, writing, reading) = Relay::new()?;
                let channel = Channel::new(reading, fd.try_clone()?);
                self.proxy.drain_relay(relay, channel);
                writing
            }
            _ => {
                let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
                set_nonblocking(&reading)?;
                self.proxy.drain(Channel::new(reading, fd.try_clone()?));
                writing
            }
        })
    }

    /// Returns a pipe that the proxy fills from `fd`.
    fn pipe_in(&mut self, fd: &OwnedFd) -> Result<OwnedFd> {
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
        // A read of a listening socket fails, which poll(2) does not report.
        if getsockopt(fd, AcceptConn) == Ok(true) {
            return Ok(reading);
        }
        let (fd, fed) = (fd.try_clone()?, reading.try_clone()?);
        if kind(&fstat(&fd)?) == SFlag::S_IFIFO {
            self.proxy.feed_pipe(Feed::new(fd, writing)?, fed);
        } else {
            set_nonblocking(&writing)?;
            self.proxy.feed(Channel::new(fd, writing), fed);
        }
        Ok(reading)
    }

    /// Returns whether output and errors go to one file, and so through one pipe.
    ///
    /// Through two pipes, the order in which they were written would be lost.
    fn is_one_file(&self, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<bool> {
        if self.passing[1..] != [StdioPassing::Pipe; 2] {
            return Ok(false);
        }
        let (one, two) = (fstat(stdout)?, fstat(stderr)?);
        Ok((one.st_dev, one.st_ino) == (two.st_dev, two.st_ino))
    }

    /// Returns the proxy, and the controlling terminal of the command.
    fn finish(mut self) -> Result<(Proxy, Option<OwnedFd>)> {
        let peer = self.terminal.as_ref();
        let peer = peer.map(|terminal| terminal.peer.try_clone()).transpose()?;
        if let Some(terminal) = self.terminal {
            self.proxy.connect(terminal)?;
        }
        Ok((self.proxy, peer))
    }
}

/// Lets every user inside reopen the pipes, as /dev/stdout or /dev/stdin.
///
/// The command may change its user. Access to /proc/PID/fd of another user needs ptrace(2) rights.
fn allow_reopen(standard: &[OwnedFd; 3]) -> nix::Result<()> {
    for (fd, mode) in standard.iter().zip([0o644, 0o622, 0o622]) {
        if kind(&fstat(fd)?) == SFlag::S_IFIFO {
            fchmod(fd, Mode::from_bits_truncate(mode))?;
        }
    }
    Ok(())
}

/// Duplicates 0, 1 and 2. All are open: the Rust runtime opens /dev/null for a closed descriptor.
fn duplicate_standard() -> Result<[OwnedFd; 3]> {
    let duplicate = |fd: BorrowedFd| fd.try_clone_to_owned();
    Ok([
        duplicate(std::io::stdin().as_fd())?,
        duplicate(std::io::stdout().as_fd())?,
        duplicate(std::io::stderr().as_fd())?,
    ])
}

/// Replaces descriptor `number` of this process, which closes the device of the host.
fn replace(number: usize, with: &OwnedFd) -> nix::Result<()> {
    match number {
        0 => dup2_stdin(with),
        1 => dup2_stdout(with),
        _ => dup2_stderr(with),
    }
}

fn classify(fd: &OwnedFd, terminals: bool) -> Result<StdioPassing> {
    let status = fstat(fd)?;
    Ok(match kind(&status) {
        SFlag::S_IFCHR if status.st_rdev == device::NULL => StdioPassing::Null,
        SFlag::S_IFCHR if terminals && isatty(fd) == Ok(true) => StdioPassing::Terminal,
        _ => StdioPassing::Pipe,
    })
}
