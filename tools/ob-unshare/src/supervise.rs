//! The stage: starts pid 1, prints the document, and stays as the supervisor.

use crate::init::Reaper;
use crate::locks::Locks;
use crate::monitor;
use crate::relay::Relay;
use crate::start::{StartError, Subhost, start};
use anyhow::{Error, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout};
use ob_document::state::StateDir;
use ob_document::{Document, Tool, log, receive, send};
use ob_shutdown::FACTS;
use std::ffi::OsString;
use std::process::ExitCode;

/// Starts the subhost of the document on stdin, and supervises it until it has ended.
///
/// With a `command`, pid 1 executes it, and its exit status is returned.
pub fn run(tool: &Tool, command: &[OsString]) -> Result<ExitCode> {
    // The reaper is copied first, while the earlier stages still work on the document.
    let reaper = Reaper::provide();
    let mut document = receive()?;
    document.forget(FACTS);
    let name = document.name().to_owned();
    let locks = Locks::take(&document).map_err(|error| error.context(name.clone()))?;
    let is_stage = command.is_empty();
    let begun = reaper
        .and_then(|reaper| start(&mut document, command, &reaper, locks.is_guarded()))
        .and_then(|subhost| subhost.kill_on_error(StateDir::of(&name).write(&document)))
        .or_else(|error| log::failure(tool, &document, error))
        .and_then(|subhost| {
            let left = leave_mount_ns_and_report(&locks, &document, is_stage);
            subhost.kill_on_error(left)
        });
    let mut subhost: Subhost = match begun {
        Ok(subhost) => subhost,
        Err(error) => {
            locks.clean_up(&document)?;
            return fail(tool, error.context(name), command);
        }
    };
    let relay = subhost.relay.take();
    let end = monitor::wait(&document, subhost)?;
    locks.clean_up(&document)?;
    relay.as_ref().map_or(Ok(()), Relay::finish)?;
    let status = match (is_stage, locks.is_guarded()) {
        (false, _) => end.status,
        // The guard returns it to the caller of a boot in the foreground.
        (true, true) => end.status_of_stage,
        (true, false) => 0,
    };
    Ok(ExitCode::from(status))
}

/// Returns the error; for a `command` that could not be executed, reports it and returns the status
/// of env(1).
fn fail(tool: &Tool, error: Error, command: &[OsString]) -> Result<ExitCode> {
    let status = error.downcast_ref::<StartError>().map(|error| error.status);
    match status.filter(|_| !command.is_empty()) {
        None => Err(error),
        Some(status) => {
            tool.complain(&error);
            Ok(ExitCode::from(status))
        }
    }
}

/// Leaves the room; as a stage, prints the document, which reports that the subhost is up.
fn leave_mount_ns_and_report(locks: &Locks, document: &Document, is_stage: bool) -> Result<()> {
    locks.leave_room()?;
    if is_stage {
        send(document)?;
        redirect_stdio_to_null()?;
    }
    Ok(())
}

/// Closes the descriptors of the caller, which may wait for the end of a pipe, and leaves its
/// directory.
fn redirect_stdio_to_null() -> Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(chdir("/")?)
}
