//! The guard: stays outside of the room of one subhost, in the background, and cleans up when the
//! room has ended.
//!
//! The caller waits for the document and exits. The guard, its child, is the subreaper of all
//! processes in the room. The first process of the room, a child of the guard, starts the stages as
//! its siblings and executes the last one.

use crate::admit::Subhost;
use crate::configured::Configured;
use crate::exit_status;
use crate::pipeline::{Cut, Pipeline};
use crate::proctitle::set_proctitle;
use crate::{cleanup, room};
use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};
use ob_document::state::open_pid1;
use ob_document::{Document, Tool, log, one_line};
use ob_shutdown::{ChildTerminator, STAGE_GRACE, block_termination_signals, end_timeout, guards};
use ob_sys::fdstore::FdStore;
use ob_sys::mount::Depth;
use ob_sys::process::spawn;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long processes that a hook has left in the room may take to exit when the subhost has ended.
const STRAGGLER_GRACE: Duration = Duration::from_secs(2);

/// The capacity of a new pipe, pipe(7).
const PIPE_SIZE: usize = 65536;

/// The guard of one room, before and after its subhost is known.
pub struct Guard<'a> {
    tool: &'a Tool,
    cleanup: Option<&'a str>,
    store: FdStore,
    /// The pipe to the caller: it gets the state when the subhost is admitted, then the output of
    /// the last stage.
    status_tx: Option<OwnedFd>,
    /// The output of the first stage, and the bytes that were read from it.
    printed: Option<(File, Vec<u8>)>,
    /// The input of the second stage.
    admitted: Option<OwnedFd>,
    subhost: Option<Subhost>,
    /// The first process of the room, which executes the last stage.
    last_stage: Option<Pid>,
}

impl<'a> Guard<'a> {
    /// Prepares a guard that runs the command `cleanup` at the end, and reports to `status_tx`.
    pub fn new(tool: &'a Tool, cleanup: Option<&'a str>, status_tx: OwnedFd) -> Result<Self> {
        Ok(Guard {
            tool,
            cleanup,
            store: room::make_fd_store()?,
            status_tx: Some(status_tx),
            printed: None,
            admitted: None,
            subhost: None,
            last_stage: None,
        })
    }

    /// Runs the pipeline in the room, waits for the end of the room, and cleans up. Returns the
    /// exit status.
    ///
    /// This process must be a child of the caller that has nothing else to do.
    pub fn run(&mut self, pipeline: &Pipeline) -> u8 {
        let reaped = self
            .start_room(pipeline)
            .and_then(|signals| self.reap(&signals));
        let failure = match reaped {
            Err(_) => self.failure(),
            Ok(_) => exit_status::REPORTED,
        };
        let outcome = self.clean_up().and(reaped);
        if let Err(error) = &outcome {
            self.report(error);
        }
        u8::try_from(outcome.unwrap_or(failure)).unwrap_or(1)
    }

    /// Starts the first process of the room. Returns the descriptor that reports signals.
    fn start_room(&mut self, pipeline: &Pipeline) -> Result<SignalFd> {
        // In a new session, the subhost gets no signal from the terminal of the caller.
        let _ = setsid();
        // Orphans in the room become children of this process, PR_SET_CHILD_SUBREAPER(2const). So
        // the room has ended when this process has no child.
        set_child_subreaper(true).context("become the reaper of the room")?;
        let signals = block_termination_signals(&[Signal::SIGCHLD])?;
        let (reading, printed) = pipe2(OFlag::O_CLOEXEC)?;
        let (admitted, writing) = pipe2(OFlag::O_CLOEXEC)?;
        let cut = Cut { printed, admitted };
        let child = spawn(0, None, || {
            let error = self.run_stages(pipeline, cut);
            self.tool.complain(&error);
            1
        });
        self.last_stage = Some(child.context("start the room")?.pid);
        self.printed = Some((File::from(reading), Vec::new()));
        self.admitted = Some(writing);
        Ok(signals)
    }

    /// Enters the room and executes the pipeline, which prints to the caller. Returns only if that
    /// fails.
    fn run_stages(&self, pipeline: &Pipeline, cut: Cut) -> Error {
        match self.enter_room() {
            Ok(()) => pipeline.run(self.tool, &self.store, cut),
            Err(error) => error,
        }
    }

    fn enter_room(&self) -> Result<()> {
        SigSet::empty().thread_set_mask()?;
        if let Some(status_tx) = &self.status_tx {
            dup2_stdout(status_tx)?;
        }
        // NAME is not known yet: ob-cable finds an existing namespace of that name through this
        // guard.
        room::enter(Depth::One)
    }

    /// Reads from the output of the first stage. Admits the subhost when the document is complete.
    ///
    /// If the first stage prints nothing, it has reported why.
    fn read_document(&mut self) -> Result<()> {
        let Some((file, line)) = &mut self.printed else {
            return Ok(());
        };
        let mut buffer = [0; 4096];
        let length = file.read(&mut buffer).context("read the document")?;
        line.extend_from_slice(&buffer[..length]);
        if length > 0 && !line.ends_with(b"\n") {
            return Ok(());
        }
        let line = std::mem::take(line);
        self.printed = None;
        let Some(second_stage) = self.admitted.take().filter(|_| !line.is_empty()) else {
            return Ok(());
        };
        self.admit(&line)?;
        // The stages of PIPELINE, if there are any, read the document instead.
        let second_stage = self.admitted.take().unwrap_or(second_stage);
        hand_over(&second_stage, &line).context("write the document to the next stage")
    }

    /// Like [`Guard::read_document`], but reports an error, and returns the exit status for it.
    fn pass_document(&mut self) -> i32 {
        let Err(error) = self.read_document() else {
            return 0;
        };
        self.report(&error);
        self.printed = None;
        self.admitted = None;
        self.failure()
    }

    /// Returns the exit status for an error of the guard: the caller sees no message of an admitted
    /// subhost.
    fn failure(&self) -> i32 {
        match self.subhost {
            Some(_) => exit_status::REASON_IN_LOG,
            None => exit_status::REPORTED,
        }
    }

    /// Locks the subhost of the document `line`, and writes its first state file.
    fn admit(&mut self, line: &[u8]) -> Result<()> {
        let line = std::str::from_utf8(line).context("the document is not UTF-8")?;
        let document = Document::parse(line)?;
        let subhost = Subhost::lock(self.tool, &document, self.cleanup, &self.store);
        let subhost = subhost.with_context(|| document.name().to_owned())?;
        let begun = subhost.write_state(&document).and_then(|state| {
            if let Some(stages) = Configured::of(&document)? {
                self.replace_stages(&stages)?;
            }
            self.detach_from_caller(&subhost, &document, &state)
        });
        if let Err(error) = begun {
            let _ = subhost.state_dir.remove();
            return Err(error.context(subhost.name));
        }
        self.subhost = Some(subhost);
        Ok(())
    }

    /// Starts the stages of PIPELINE in a new room, in place of the stages after the first, which
    /// get empty input and exit.
    fn replace_stages(&mut self, stages: &Configured) -> Result<()> {
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
        let child = spawn(0, None, || {
            let error = match self.enter_room().and_then(|()| stages.prepare()) {
                Ok(pipeline) => pipeline.continue_from(self.tool, &self.store, reading),
                Err(error) => error,
            };
            self.tool.complain(&error);
            1
        });
        child.context("start the room")?;
        self.admitted = Some(writing);
        Ok(())
    }

    /// Reports the admitted subhost to the caller, closes every descriptor that the caller might
    /// wait for, and sets the title that ps(1) shows.
    fn detach_from_caller(
        &mut self,
        subhost: &Subhost,
        document: &Document,
        state: &Document,
    ) -> Result<()> {
        if let Some(status_tx) = self.status_tx.take() {
            // EPIPE: the caller has exited.
            let _ = File::from(status_tx).write_all(state.line().as_bytes());
        }
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        match open_log(subhost) {
            Some(log) => dup2_stderr(log)?,
            None => dup2_stderr(&null)?,
        }
        std::env::set_current_dir("/")?;
        if let Some(conf) = document.optional("CONFIG") {
            let _ = set_proctitle(&format!("overlay-boot {conf}"));
        }
        Ok(())
    }

    /// Waits until no process of the room is left. Returns the exit status of the guard.
    ///
    /// Ends the processes that are left after a signal, or after the end of the subhost.
    fn reap(&mut self, signals: &SignalFd) -> Result<i32> {
        let mut terminator: Option<ChildTerminator> = None;
        let mut status = 0;
        let mut last_stage = None;
        loop {
            let children = wait_for_children(self.last_stage);
            if children.is_killed && terminator.is_none() {
                status = status.max(exit_status::STAGE_KILLED);
            }
            match children.last_stage {
                Some(WaitStatus::Signaled(..)) if terminator.is_none() => {
                    last_stage = Some(exit_status::LAST_STAGE_KILLED);
                }
                Some(WaitStatus::Exited(_, 1..)) if status != exit_status::INTERRUPTED => {
                    last_stage = Some(exit_status::LAST_STAGE_FAILED);
                }
                _ => {}
            }
            if !children.is_left {
                // After a failed boot, another stage may have caused the failure of the last one.
                let last_stage = last_stage.filter(|_| self.subhost_has_ended());
                return Ok(last_stage.unwrap_or(status));
            }
            if terminator.is_none() && self.subhost_has_ended() {
                terminator = Some(ChildTerminator::with_timeout(STRAGGLER_GRACE));
            }
            let timeout = terminator
                .as_mut()
                .map_or(PollTimeout::NONE, ChildTerminator::poll);
            let is_readable = self.wait(signals, timeout);
            if is_readable {
                status = status.max(self.pass_document());
            }
            while let Some(signal) = signals.read_signal()? {
                if signal.ssi_signo != Signal::SIGCHLD as u32 && terminator.is_none() {
                    let timeout = self.end_timeout() + STAGE_GRACE;
                    terminator = Some(ChildTerminator::with_timeout(timeout));
                    status = exit_status::INTERRUPTED;
                }
            }
        }
    }

    /// Waits for a signal, for output of the first stage, or until `timeout`. Returns whether there
    /// is output.
    fn wait(&self, signals: &SignalFd, timeout: PollTimeout) -> bool {
        let mut events = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let document = self.printed.as_ref();
        events.extend(document.map(|(file, _)| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        let _ = poll(&mut events, timeout);
        events.get(1).is_some_and(|event| event.any() == Some(true))
    }

    /// Returns whether there was a pid 1 that has exited.
    fn subhost_has_ended(&self) -> bool {
        let document = self.state();
        document
            .is_some_and(|document| document.has("pid") && matches!(open_pid1(&document), Ok(None)))
    }

    fn end_timeout(&self) -> Duration {
        let document = self.state();
        document.map_or(Duration::from_secs(10), |document| end_timeout(&document))
    }

    /// Reads the state file of the subhost.
    fn state(&self) -> Option<Document> {
        self.subhost.as_ref()?.state_dir.document().ok().flatten()
    }

    /// Cleans up, unless another process stops the subhost and does it.
    fn clean_up(&self) -> Result<()> {
        let Some(subhost) = &self.subhost else {
            return Ok(());
        };
        if guards::is_being_stopped(&subhost.state_dir) {
            return Ok(());
        }
        // Another program may have moved the log while the subhost ran, logrotate(8).
        if let Some(log) = open_log(subhost) {
            dup2_stderr(log)?;
        }
        let document = self.state();
        let document = document.map_or_else(|| Document::new(&subhost.name), Ok)?;
        cleanup::clean_up(self.cleanup, &document)
    }

    /// Prints an error on standard error; after the subhost is admitted, appends it to the log.
    fn report(&self, error: &Error) {
        let Some(subhost) = &self.subhost else {
            return self.tool.complain(error);
        };
        if let Some(mut log) = open_log(subhost) {
            log::line(
                &mut log,
                &format!("{}: {}", self.tool.name, one_line(error)),
            );
        }
    }
}

/// Opens the file that is now at the path of the log; `None` if that is not possible.
fn open_log(subhost: &Subhost) -> Option<File> {
    log::open(subhost.log.as_ref()?).ok()
}

/// What waiting for the children shows.
struct Children {
    /// A signal has killed one; not SIGPIPE, after which the next stage has reported why it failed.
    is_killed: bool,
    /// There is a child that has not exited.
    is_left: bool,
    /// How the last stage has ended, if it has just done so.
    last_stage: Option<WaitStatus>,
}

/// Waits for all children that have exited.
fn wait_for_children(last_stage: Option<Pid>) -> Children {
    let mut children = Children {
        is_killed: false,
        is_left: false,
        last_stage: None,
    };
    loop {
        let ended = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return children,
            Ok(WaitStatus::StillAlive) => {
                children.is_left = true;
                return children;
            }
            Ok(ended) => ended,
            Err(_) => continue,
        };
        if let WaitStatus::Signaled(_, signal, _) = ended {
            children.is_killed |= signal != Signal::SIGPIPE;
        }
        if ended.pid() == last_stage {
            children.last_stage = Some(ended);
        }
    }
}

/// Writes the document to the input of the second stage, without waiting for that stage to read it.
///
/// A document that is longer than a pipe needs a larger pipe, F_SETPIPE_SZ(2const).
fn hand_over(pipe: &OwnedFd, line: &[u8]) -> Result<()> {
    if line.len() > PIPE_SIZE {
        let size = i32::try_from(line.len())?;
        fcntl(pipe, FcntlArg::F_SETPIPE_SZ(size))?;
    }
    match nix::unistd::write(pipe, line) {
        // The second stage has failed, and has reported why.
        Err(Errno::EPIPE) => Ok(()),
        written => Ok(written.map(drop)?),
    }
}
