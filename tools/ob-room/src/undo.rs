//! `ob-room --undo`: ends subhosts and cleans up after them, in place of their guards.

use crate::cleanup::{self, Cleanup};
use crate::configured;
use anyhow::{Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ob_document::state::{Lock, StateDir};
use ob_document::{Document, one_line};
use ob_shutdown::{FACTS, KILL_TIMEOUT, STAGE_GRACE, end_timeout, ending, guards};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// When guard and supervisor are continued, if they still hold the lock. They usually release it
/// within a few milliseconds.
const RESUME_DELAY: Duration = Duration::from_millis(200);

/// Ends the subhosts of the documents, takes their locks, and cleans up with `command`.
///
/// Subhosts that are starting end too. Returns a result for each document; the facts of ended
/// subhosts are removed from the documents.
pub fn undo(documents: &mut [Document], command: Option<&str>) -> Vec<Result<()>> {
    let outcomes = end_and_clean_up(documents, command);
    for document in documents {
        document.forget(FACTS);
    }
    outcomes
}

fn end_and_clean_up(documents: &[Document], command: Option<&str>) -> Vec<Result<()>> {
    ending::raise_open_files(documents.len());
    let documents = ending::current(documents);
    // As long as this process holds these locks, the guards leave the cleanup to it.
    let stopping = documents.iter().flatten();
    let stopping: Vec<Option<Lock>> = stopping
        .map(|document| guards::mark_stopping(document.name()))
        .collect();
    let endings = ending::begin(&documents);
    let started = Cleanup::start(command);
    let mut outcomes = ending::wait_for_exit(&documents, endings);
    let mut locks = Vec::new();
    let mut ended: Vec<(usize, Document)> = Vec::new();
    for (index, (document, outcome)) in documents.iter().zip(&mut outcomes).enumerate() {
        let Some(document) = document.filter(|_| outcome.is_ok()) else {
            continue;
        };
        let state_dir = StateDir::of(document.name());
        match wait_for_lock(&state_dir, document) {
            Ok(Some(lock)) => {
                locks.push(lock);
                // The boot may have continued after the caller got the document.
                let state = state_dir.document().ok().flatten();
                // Only the state file, which root owns, may name programs to run.
                let document = state.unwrap_or_else(|| {
                    let mut document = (*document).clone();
                    document.remove(configured::VARIABLE);
                    document
                });
                ended.push((index, document));
            }
            Ok(None) => {}
            Err(error) => *outcome = Err(error),
        }
    }
    let left: Vec<&Document> = ended.iter().map(|(_, document)| document).collect();
    let cleaned = match started {
        Ok(started) => cleanup::finish(started, &left),
        Err(error) => left
            .iter()
            .map(|_| Err(anyhow!(one_line(&error))))
            .collect(),
    };
    drop((locks, stopping));
    for ((index, _), cleaned) in ended.iter().zip(cleaned) {
        outcomes[*index] = cleaned;
    }
    outcomes
}

/// Waits until guard and supervisor have released the lock of the subhost, and takes it.
///
/// Returns `None` if nothing is left to clean up: another process has cleaned up, and may have
/// booted a subhost of the same name.
fn wait_for_lock(state_dir: &StateDir, document: &Document) -> Result<Option<Lock>> {
    let deadline = Instant::now() + STAGE_GRACE + KILL_TIMEOUT + end_timeout(document);
    let mut pause = Duration::from_micros(100);
    let mut guard = guards::find(document);
    let mut resume_at = Some(Instant::now() + RESUME_DELAY);
    loop {
        if guards::is_gone(state_dir, document) {
            return Ok(None);
        }
        if let Some(lock) = state_dir.lock()? {
            return Ok(Some(lock));
        }
        if Instant::now() >= deadline {
            bail!("the subhost has ended, but its supervisor still holds the lock");
        }
        if resume_at.take_if(|due| Instant::now() >= *due).is_some() {
            guards::resume(document);
        }
        sleep(pause, &mut guard);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Sleeps for `pause`, or until the guard has exited; then `guard` is `None`. The guard usually
/// holds the lock longest.
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
