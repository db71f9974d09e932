//! The end of subhosts, of as many as are asked for at once: TERM to every process, a bounded wait, KILL.

use crate::facts::FACTS;
use crate::{cgroup, guard, watcher};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use ob_document::state::{Lock, StateDir, open_own_pid1};
use ob_document::{Document, Silent};
use ob_sys::process::{Child, pidfd_signal};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{self, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the kernel may take to end what was killed, and the guard to notice.
const KILLED: Duration = Duration::from_secs(10);

/// How long pid 1 may take to notice that it is alone.
const ALONE: Duration = Duration::from_millis(200);

/// How long pid 1 may take to end all by itself, as our reaper does, before all are told: a watcher costs more than the rest of a stop.
const BY_ITSELF: Duration = Duration::from_millis(20);

/// A subhost on its way out.
struct Ending {
    pid_1: OwnedFd,
    /// When all are to be told, not pid 1 alone; none if they have been.
    tell_all: Option<Instant>,
    /// A process of ours that ends with 0 when nothing but pid 1 is left there.
    watcher: Option<Child>,
    deadline: Instant,
    killed: bool,
}

/// The facts that tell one life of a subhost from another.
const LIFE: [&str; 5] = ["guard", "guardstart", "pid", "pidns", "start"];

/// Whether the state file is that of another life of the subhost than `document`: this one has ended.
fn is_of_another_life(document: &Document) -> bool {
    let state = StateDir::of(document.name()).document().ok().flatten();
    let differs = |state: &Document, fact| {
        document.has(fact) && document.number(fact).ok() != state.number(fact).ok()
    };
    state.is_some_and(|state| LIFE.iter().any(|fact| differs(&state, fact)))
}

/// `--undo`: ends the subhosts, and starting ones with their guards; with `then`, waits until their guards have let go, runs the
/// line on all documents, and removes what is left of them.
pub fn undo(documents: &mut [Document], then: Option<&str>) -> Vec<Result<()>> {
    let living: Vec<Option<&Document>> = documents
        .iter()
        .map(|document| Some(document).filter(|document| !is_of_another_life(document)))
        .collect();
    // Our being alive and holding these tells the guards that the cleaning up is ours; without a line it is theirs.
    let stopping = living.iter().flatten().filter(|_| then.is_some());
    let stopping: Vec<Option<Lock>> = stopping.map(|d| announce(d.name())).collect();
    let endings = tell(&living);
    let then = then.map(Line::start);
    let mut outcomes = see_out(documents, endings);
    for (document, outcome) in living.iter().zip(&mut outcomes) {
        if let Some(document) = document
            && outcome.is_ok()
            && open_own_pid1(document).is_none()
        {
            guard::cancel(document);
        }
    }
    if let Some(then) = then {
        let mut locks = Vec::new();
        let mut ended: Vec<Document> = Vec::new();
        for (document, outcome) in living.iter().zip(&mut outcomes) {
            let Some(document) = document.filter(|_| outcome.is_ok()) else {
                continue;
            };
            let home = StateDir::of(document.name());
            match wait_for_lock(&home, document) {
                Ok(Some(lock)) => {
                    locks.push(lock);
                    // It may have gone on with its boot since we were given the document.
                    let resting = home.document().ok().flatten();
                    ended.push(resting.unwrap_or_else(|| (*document).clone()));
                }
                Ok(None) => {}
                Err(error) => *outcome = Err(error),
            }
        }
        let ended: Vec<&Document> = ended.iter().collect();
        let cleaned = then.and_then(|then| then.clean_up(&ended));
        drop((locks, stopping));
        if let (Err(error), Some(outcome)) = (cleaned, outcomes.first_mut()) {
            *outcome = Err(error);
        }
    }
    for document in documents {
        document.forget(FACTS);
    }
    outcomes
}

/// Ends a subhost, if it still runs.
fn end(document: &Document) -> Result<()> {
    let pid_1 = open_own_pid1(document);
    pid_1.map_or(Ok(()), |pid_1| end_pid_1(document, pid_1))
}

/// Ends the subhost of this pid 1.
pub fn end_pid_1(document: &Document, pid_1: OwnedFd) -> Result<()> {
    let ending = begin(document, pid_1, BY_ITSELF);
    let mut outcomes = see_out(std::slice::from_ref(document), vec![Some(ending)]);
    outcomes.pop().unwrap_or(Ok(()))
}

/// Signals pid 1 of each subhost to end; none where there is none.
fn tell(documents: &[Option<&Document>]) -> Vec<Option<Ending>> {
    // The more there are, the longer they take, each on its own.
    let turn = u32::try_from(1 + documents.len() / 10).unwrap_or(u32::MAX);
    let by_itself = BY_ITSELF.saturating_mul(turn);
    let begun = documents.iter().map(|document| {
        let document = (*document)?;
        Some(begin(document, open_own_pid1(document)?, by_itself))
    });
    begun.collect()
}

/// Waits until all have ended, and helps those that do not by themselves.
fn see_out(documents: &[Document], mut endings: Vec<Option<Ending>>) -> Vec<Result<()>> {
    while endings.iter().any(Option::is_some) {
        wait(&endings);
        for ending in &mut endings {
            if ending.as_mut().is_some_and(|ending| ending.has_ended()) {
                *ending = None;
            }
        }
        if endings.iter().flatten().any(Ending::is_hopeless) {
            break;
        }
    }
    documents
        .iter()
        .zip(endings)
        .map(|(document, ending)| match ending {
            None => Ok(()),
            Some(_) => {
                let pid = document.number("pid").unwrap_or_default();
                bail!("pid 1, {pid}, does not end though it was killed: it waits in the kernel")
            }
        })
        .collect()
}

/// Signals pid 1 of the subhost to end.
fn begin(document: &Document, pid_1: OwnedFd, by_itself: Duration) -> Ending {
    let _ = pidfd_signal(&pid_1, Signal::SIGTERM);
    Ending {
        pid_1,
        tell_all: Some(Instant::now() + by_itself),
        watcher: None,
        deadline: Instant::now() + patience(document),
        killed: false,
    }
}

/// How long a subhost may take to end after TERM.
pub fn patience(document: &Document) -> Duration {
    let seconds = document.optional("STOP_TIMEOUT");
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

impl Ending {
    /// Looks whether pid 1 has ended; kills it when it is alone, or its time is up.
    fn has_ended(&mut self) -> bool {
        if is_readable(&self.pid_1) {
            self.dismiss_watcher();
            return true;
        }
        if self.tell_all.is_some_and(|due| Instant::now() >= due) {
            self.tell_all = None;
            self.watcher = watcher::start(&self.pid_1).ok();
        }
        // A watcher that we do not reap keeps its namespace, and so pid 1, from ending.
        if let Some(watcher) = &self.watcher
            && is_readable(&watcher.pidfd)
        {
            let ended = waitid(Id::PIDFd(watcher.pidfd.as_fd()), WaitPidFlag::WEXITED);
            self.watcher = None;
            if matches!(ended, Ok(WaitStatus::Exited(_, 0))) {
                self.deadline = self.deadline.min(Instant::now() + ALONE);
            }
        }
        if Instant::now() >= self.deadline && !self.killed {
            let _ = pidfd_signal(&self.pid_1, Signal::SIGKILL);
            self.killed = true;
            self.deadline = Instant::now() + KILLED;
        }
        false
    }

    /// The watcher's other half has ended with pid 1; it has nothing to see any more.
    fn dismiss_watcher(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            let _ = pidfd_signal(&watcher.pidfd, Signal::SIGKILL);
            let _ = waitid(Id::PIDFd(watcher.pidfd.as_fd()), WaitPidFlag::WEXITED);
        }
    }

    fn is_hopeless(&self) -> bool {
        self.killed && Instant::now() >= self.deadline
    }
}

/// Waits until something has happened to one of them, or the next deadline.
fn wait(endings: &[Option<Ending>]) {
    let mut events = Vec::new();
    let mut next = Duration::from_secs(1);
    for ending in endings.iter().flatten() {
        events.push(PollFd::new(ending.pid_1.as_fd(), PollFlags::POLLIN));
        if let Some(watcher) = &ending.watcher {
            events.push(PollFd::new(watcher.pidfd.as_fd(), PollFlags::POLLIN));
        }
        let due = ending
            .tell_all
            .map_or(ending.deadline, |due| due.min(ending.deadline));
        next = next.min(due.saturating_duration_since(Instant::now()));
    }
    let milliseconds = u16::try_from(next.as_millis() + 1).unwrap_or(1000);
    let _ = poll(&mut events, PollTimeout::from(milliseconds));
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut event = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut event, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Marks the subhost as stopping, for its guard and for who lists it.
fn announce(name: &str) -> Option<Lock> {
    let file = File::create(StateDir::of(name).file("stopping")).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

/// Waits until guard and supervisor have let go of the subhost, and takes its lock. None if there is nothing left of it to clean
/// up: somebody else has, and may have booted another one of its name.
fn wait_for_lock(home: &StateDir, document: &Document) -> Result<Option<Lock>> {
    let deadline = Instant::now() + guard::CANCELLED + KILLED + patience(document);
    let mut pause = Duration::from_micros(100);
    let mut guard = guard::find(document);
    loop {
        if guard::is_gone(home, document) {
            return Ok(None);
        }
        if let Some(lock) = home.lock()? {
            return Ok(Some(lock));
        }
        if Instant::now() >= deadline {
            bail!("it has ended, but its supervisor does not let go of it");
        }
        sleep(pause, &mut guard);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Sleeps for `pause`, or until the guard has ended, which is then forgotten: the last one to let go of the lock, as a rule.
fn sleep(pause: Duration, guard: &mut Option<OwnedFd>) {
    let Some(pidfd) = guard else {
        return std::thread::sleep(pause);
    };
    let mut end = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let milliseconds = u16::try_from(pause.as_millis() + 1).unwrap_or(1);
    if poll(&mut end, PollTimeout::from(milliseconds)).is_ok_and(|ended| ended > 0) {
        *guard = None;
    }
}

/// A line of shell that cleans up, started before there is something to clean up: it reads its documents to their end first.
struct Line<'a> {
    line: &'a str,
    child: process::Child,
}

impl<'a> Line<'a> {
    fn start(line: &'a str) -> Result<Self> {
        ob_sys::process::set_cloexec_from(3)?;
        let child = command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("run '{line}'"))?;
        Ok(Line { line, child })
    }

    /// Gives it the documents, waits for its end, and removes control groups and state directories.
    fn clean_up(mut self, documents: &[&Document]) -> Result<()> {
        let lines: String = documents.iter().map(|document| document.line()).collect();
        let written = self
            .child
            .stdin
            .take()
            .map_or(Ok(()), |mut stdin| stdin.write_all(lines.as_bytes()));
        let status = self.child.wait()?;
        match (status.code(), written) {
            (Some(0), Ok(())) => {}
            // Given nothing it has nothing to do, and may say so.
            _ if documents.is_empty() => {}
            // It has told why. The state stays, for the next one to try again.
            (Some(1), Ok(())) => bail!(Silent),
            (Some(1), Err(error)) if error.kind() == ErrorKind::BrokenPipe => bail!(Silent),
            (Some(0 | 1), Err(error)) => return Err(error).context("give the documents on"),
            _ => bail!("'{}' ended with {status}", self.line),
        }
        let mut outcome = Ok(());
        for document in documents {
            outcome = outcome
                .and(cgroup::remove(document))
                .and(StateDir::of(document.name()).remove());
        }
        outcome
    }
}

/// Runs the line `then` with the documents on its stdin, and removes control groups and state directories. Only for the holder of
/// their locks.
pub fn clean_up(documents: &[&Document], then: &str) -> Result<()> {
    Line::start(then)?.clean_up(documents)
}

/// A line of sh; where it is nothing but one of our tools and its options, without the shell, which takes longer to start than they.
fn command(line: &str) -> Command {
    let plain = |c: char| c.is_ascii_alphanumeric() || " -_./".contains(c);
    let mut words = line.split_whitespace();
    match words.next().filter(|_| line.chars().all(plain)) {
        Some(program) if program.starts_with("ob-") => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
        _ => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", line]);
            command
        }
    }
}

/// Runs `then` on what a predecessor has left that was killed. Only for the holder of the lock.
pub fn clean_up_after(home: &StateDir, name: &str, then: &str) -> Result<bool> {
    let left = match home.document() {
        Ok(Some(document)) => document,
        Ok(None) => return Ok(false),
        // Damaged, as by a full /run: the name is enough to clean up.
        Err(_) => Document::new(name)?,
    };
    end(&left)?;
    clean_up(&[&left], then)?;
    Ok(true)
}
