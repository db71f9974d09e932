//! The three standard descriptors: what the caller's are, and what the command gets for them.

use crate::channel::{Channel, Feed};
use crate::proxy::Proxy;
use crate::signals::Signals;
use crate::terminal::{self, Terminal};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat2};
use nix::libc::dev_t;
use nix::pty::{PtyMaster, posix_openpt};
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
use nix::sys::stat::{FileStat, SFlag, fstat, makedev};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, isatty, pipe2};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How one of the caller's descriptors reaches the command. None goes along itself: root inside
/// could change the mode and the flags of what it leads to, open it anew for what it is not open
/// for, and ask a socket for the process at its other end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As the subhost's own /dev/null.
    Null,
    /// As a pseudo terminal of the subhost. Through the host's own, its user's shell could be typed into (TIOCSTI).
    Terminal,
    /// As a pipe that ends in this process.
    Pipe,
}

/// What the caller's standard descriptors are.
pub struct Streams {
    ways: [Way; 3],
    caller: [OwnedFd; 3],
    /// The first of them that is a terminal.
    terminal: Option<OwnedFd>,
    /// A pair of the host's, for a root that has no terminals.
    spare: Option<PtyMaster>,
    signals: Signals,
}

/// What the command gets.
pub struct Inside {
    /// Its standard input, output and error.
    pub standard: [OwnedFd; 3],
    /// Whether one of them is a terminal, which then is to control its session.
    pub terminal: Option<OwnedFd>,
}

impl Inside {
    /// The pipes and the terminal among them, which were made for the command.
    pub fn made(&self) -> nix::Result<Vec<&OwnedFd>> {
        let mut made: Vec<&OwnedFd> = self.terminal.iter().collect();
        for fd in &self.standard {
            if kind(&fstat(fd)?) == SFlag::S_IFIFO {
                made.push(fd);
            }
        }
        Ok(made)
    }
}

const NULL: dev_t = makedev(1, 3);
const PTMX: dev_t = makedev(5, 2);

impl Streams {
    /// Looks at 0, 1 and 2 of this process. Without `terminals`, one that is a terminal is treated as a device like any other.
    ///
    /// From here on signals wait until the proxy hands them on. To be called where the host's /dev and /proc are still in view:
    /// those of the subhost may lead anywhere.
    pub fn of_caller(terminals: bool) -> Result<Self> {
        let caller = standard()?;
        let mut ways = [Way::Pipe; 3];
        for (way, fd) in ways.iter_mut().zip(&caller) {
            *way = classify(fd, terminals)?;
        }
        let first = ways.iter().position(|way| *way == Way::Terminal);
        let terminal = first.map(|first| terminal::reopen(&caller[first]));
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        Ok(Streams {
            ways,
            caller,
            spare: first.and_then(|_| posix_openpt(flags).ok()),
            terminal: terminal.transpose()?,
            signals: Signals::catch()?,
        })
    }

    /// Makes what the command gets, with the devices found below `root`, the command's own.
    pub fn connect(self, root: impl AsFd) -> Result<(Proxy, Inside)> {
        let caller = self.caller;
        let terminal = match self.terminal {
            None => None,
            Some(host) => {
                let inside = open_device(&root, "dev/ptmx", PTMX);
                let master = inside
                    .or_else(|_| self.spare.map(OwnedFd::from).ok_or(Errno::ENODEV))
                    .context("make a terminal for it")?;
                let is_terminal = self.ways.map(|way| way == Way::Terminal);
                Some(Terminal::new(host, is_terminal, master)?)
            }
        };
        let mut proxy = Proxy::new(self.signals);
        let [stdin, stdout, stderr] = &caller;
        let null = self.ways.contains(&Way::Null);
        let null = null.then(|| open_device(&root, "dev/null", NULL));
        let null = null.and_then(Result::ok);

        let mut connect = |number: usize, fd: &OwnedFd| -> Result<OwnedFd> {
            Ok(match (self.ways[number], &terminal, &null) {
                (Way::Terminal, Some(terminal), _) => terminal.peer.try_clone()?,
                (Way::Null, _, Some(null)) => {
                    replace(number, null)?;
                    null.try_clone()?
                }
                _ if number == 0 => {
                    let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
                    let (fd, fed) = (fd.try_clone()?, reading.try_clone()?);
                    // A read of a listening socket fails, which poll(2) does not show.
                    if getsockopt(&fd, AcceptConn) == Ok(true) {
                        return Ok(reading);
                    }
                    if kind(&fstat(&fd)?) == SFlag::S_IFIFO {
                        proxy.feed_pipe(Feed::new(fd, writing)?, fed);
                    } else {
                        unblock(&writing)?;
                        proxy.feed(Channel::new(fd, writing), fed);
                    }
                    reading
                }
                _ => {
                    let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
                    unblock(&reading)?;
                    proxy.drain(Channel::new(reading, fd.try_clone()?));
                    writing
                }
            })
        };
        let input = connect(0, stdin).context("connect standard input")?;
        let output = connect(1, stdout).context("connect standard output")?;
        // What goes to one file goes there in the order in which it was written.
        let together = self.ways[1] == Way::Pipe && self.ways[2] == Way::Pipe && {
            let (one, two) = (fstat(stdout)?, fstat(stderr)?);
            (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)
        };
        let errors = if together {
            output.try_clone()?
        } else {
            connect(2, stderr).context("connect standard error")?
        };
        let peer = terminal.as_ref().map(|terminal| terminal.peer.try_clone());
        if let Some(terminal) = terminal {
            proxy.connect(terminal)?;
        }
        Ok((
            proxy,
            Inside {
                standard: [input, output, errors],
                terminal: peer.transpose()?,
            },
        ))
    }
}

/// Duplicates of 0, 1 and 2. They are open: Rust's start-up code sees to that.
fn standard() -> Result<[OwnedFd; 3]> {
    let duplicate = |fd: BorrowedFd| fd.try_clone_to_owned();
    Ok([
        duplicate(std::io::stdin().as_fd())?,
        duplicate(std::io::stdout().as_fd())?,
        duplicate(std::io::stderr().as_fd())?,
    ])
}

/// Closes the host's file, which nobody needs any more.
fn replace(number: usize, with: &OwnedFd) -> nix::Result<()> {
    match number {
        0 => dup2_stdin(with),
        1 => dup2_stdout(with),
        _ => dup2_stderr(with),
    }
}

fn classify(fd: &OwnedFd, terminals: bool) -> Result<Way> {
    let status = fstat(fd)?;
    Ok(match kind(&status) {
        SFlag::S_IFCHR if status.st_rdev == NULL => Way::Null,
        SFlag::S_IFCHR if terminals && isatty(fd) == Ok(true) => Way::Terminal,
        _ => Way::Pipe,
    })
}

pub(crate) fn is_socket(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|status| kind(&status) == SFlag::S_IFSOCK)
}

fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

/// Opens a device below `root`, if what stands there is `device` and nothing else.
fn open_device(root: impl AsFd, path: &str, device: dev_t) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let opened = openat2(root, path, how)?;
    let status = fstat(&opened)?;
    if kind(&status) != SFlag::S_IFCHR || status.st_rdev != device {
        return Err(Errno::ENODEV);
    }
    Ok(opened)
}

/// Has reads and writes return at once. Only for descriptors that are ours alone: the flag is shared by all duplicates.
pub(crate) fn unblock(fd: impl AsFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
