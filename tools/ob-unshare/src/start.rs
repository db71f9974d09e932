//! Starts pid 1, and notes it in the document.

use crate::confine::Confinement;
use crate::console::Console;
use crate::environment::{PASSED, variables};
use crate::facts::Facts;
use crate::init::{REAPER_FD, Reaper, text};
use crate::inside::{self, Plan};
use crate::logger::Logger;
use crate::relay::Relay;
use crate::spawn::spawn_in_namespaces;
use crate::{cgroup, userns};
use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fchmod};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, pipe2};
use ob_document::state::{self, StateDir};
use ob_document::{Document, netns};
use ob_sys::process::{Child, pidfd_open, pidfd_signal};
use std::ffi::{CString, OsString};
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// A subhost whose pid 1 runs.
pub struct Subhost {
    /// Pid 1.
    pub child: Child,
    /// Where its output is read; `None` if a relay copies it.
    pub output: Option<File>,
    /// Its console; `None` unless the plan has INIT.
    pub console: Option<Console>,
    /// Copies the output of a command to that of the supervisor.
    pub relay: Option<Relay>,
    /// Writes to the log.
    pub logger: Logger,
}

impl Subhost {
    /// Returns the subhost if `outcome` is `Ok`. Otherwise kills pid 1, and returns the error.
    pub fn kill_on_error(self, outcome: Result<()>) -> Result<Self> {
        if outcome.is_err() {
            let _ = pidfd_signal(&self.child.pidfd, Signal::SIGKILL);
            let _ = waitid(Id::PIDFd(self.child.pidfd.as_fd()), WaitPidFlag::WEXITED);
        }
        outcome.map(|()| self)
    }
}

/// The reason why pid 1 did not execute its program.
#[derive(Debug)]
pub struct StartError {
    /// The exit status of env(1): 125, 126 or 127.
    pub status: u8,
    why: String,
}

impl Display for StartError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for StartError {}

/// Starts pid 1, and notes it in the document. Returns when pid 1 has executed its program.
///
/// `command` is this program; if it is empty, a shell runs the script of INIT. `is_guarded` is
/// whether a guard holds the lock of the subhost.
pub fn start(
    document: &mut Document,
    command: &[OsString],
    reaper: &Reaper,
    is_guarded: bool,
) -> Result<Subhost> {
    let Facts { ids, net } = Facts::of(document)?;
    let words = words(document, command, reaper)?;
    let logger = Logger::open(document)?;
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
    let confinement = Confinement::of(document, ids.is_some())?;
    let mut relay = (!command.is_empty()).then(Relay::new).transpose()?;
    if !is_guarded {
        mark_network(document)?;
    }
    let has_init = command.is_empty() && document.has("INIT");
    let root = document.path("root")?.to_owned();
    let console = if has_init {
        Console::create(&root, ids)?
    } else {
        None
    };
    let group = cgroup::make(document, ids.filter(|_| has_init))?;
    let plan = Plan {
        supervisor: pidfd_open(Pid::this()).context("open a pidfd of this process")?,
        root,
        net,
        ids,
        has_cgroup: has_init && ids.is_some() && group.is_some(),
        console: console.as_ref().map(Console::device).transpose()?,
        command: words,
        environment: environment(document, reaper, &confinement)?,
        confinement,
        output: relay.as_ref().map_or([writing.as_fd(); 2], Relay::ends),
        reaper: reaper.copy.as_ref().map(|copy| (copy.as_fd(), REAPER_FD)),
    };
    let child = spawn_pid1(&plan, group.as_ref());
    drop(plan);
    drop(writing);
    relay.iter_mut().for_each(Relay::close_ends);
    let child = child?;
    note_pid1(document, child.pid, is_guarded)?;
    Ok(Subhost {
        child,
        output: command.is_empty().then(|| File::from(reading)),
        console,
        relay,
        logger,
    })
}

/// Returns the words of the program of pid 1.
fn words(document: &Document, command: &[OsString], reaper: &Reaper) -> Result<Vec<CString>> {
    if command.is_empty() {
        let text = CString::new(text(document, &reaper.path)?)?;
        return Ok(vec![c"/bin/sh".into(), c"-c".into(), text]);
    }
    let words = command.iter().cloned().map(OsString::into_vec);
    Ok(words.map(CString::new).collect::<Result<_, _>>()?)
}

/// Starts pid 1, and waits until it has executed its program.
fn spawn_pid1(plan: &Plan, group: Option<&File>) -> Result<Child> {
    let (status_rx, status_tx) = high_pipe()?;
    for output in plan.output {
        // A service that has changed its user can open /dev/stdout.
        fchmod(output, Mode::from_bits_truncate(0o622)).context("chmod the output pipe")?;
    }
    let run = || {
        let (status, error) = inside::become_pid_1(plan);
        let message = ob_document::one_line(&error);
        if let Ok(status_tx) = status_tx.try_clone() {
            let _ = File::from(status_tx).write_all(message.as_bytes());
        }
        status
    };
    let child = match plan.ids {
        None => spawn_in_namespaces(0, group, run),
        Some(ids) => userns::start(ids, plan, group, run),
    }?;
    drop(status_tx);
    await_exec(&child, status_rx)?;
    Ok(child)
}

/// Waits until pid 1 has executed its program. Fails with its message if it could not.
fn await_exec(child: &Child, status_rx: OwnedFd) -> Result<()> {
    // execve(2) closes the other end, which is close-on-exec.
    let mut why = String::new();
    File::from(status_rx).read_to_string(&mut why)?;
    if why.is_empty() {
        return Ok(());
    }
    let status = match waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)? {
        WaitStatus::Exited(_, status) => u8::try_from(status).unwrap_or(125),
        _ => 125,
    };
    bail!(StartError { status, why })
}

/// Notes pid 1 in the document.
fn note_pid1(document: &mut Document, pid: Pid, is_guarded: bool) -> Result<()> {
    let pid = pid.as_raw();
    // An error: pid 1 has exited already. The supervisor reports that.
    if let Ok((pidns, start)) = state::identify(pid) {
        document.set("pidns", pidns);
        document.set("start", start);
    }
    document.set("pid", pid);
    if !is_guarded {
        return Ok(());
    }
    if let Some(state) = StateDir::of(document.name()).document()? {
        document.take_over(&state, &["guard", "guardstart", "netfound"]);
    }
    Ok(())
}

/// Marks the name of the network namespace as created for this subhost, unless the document says
/// that it existed before. With a guard this is not needed: the guard has looked before the boot.
fn mark_network(document: &Document) -> Result<()> {
    let name = document.name();
    let is_named = document
        .path("net")
        .is_ok_and(|net| net == netns::path(name));
    if is_named && !document.has("netfound") {
        netns::mark(name)?;
    }
    Ok(())
}

/// Creates a pipe with descriptors above the descriptors of pid 1, so that a failed execve(2) can
/// be reported after the descriptors are in place.
fn high_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut low = Vec::new();
    loop {
        let pipe = pipe2(OFlag::O_CLOEXEC)?;
        if pipe.0.as_raw_fd().min(pipe.1.as_raw_fd()) > REAPER_FD {
            return Ok(pipe);
        }
        low.push(pipe);
    }
}

/// Returns the environment of pid 1: that of the subhost, the language and terminal of the caller,
/// and SETENV.
fn environment(
    document: &Document,
    reaper: &Reaper,
    confinement: &Confinement,
) -> Result<Vec<CString>> {
    let mut variables = variables(document, &reaper.path);
    for name in PASSED {
        if let Ok(value) = std::env::var(name) {
            variables.push(format!("{name}={value}"));
        }
    }
    confinement.extend(&mut variables);
    variables
        .into_iter()
        .map(|variable| CString::new(variable).map_err(|_| anyhow!("a zero byte in a variable")))
        .collect()
}
