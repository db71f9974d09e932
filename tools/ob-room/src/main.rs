//! Runs a command in a room: a private mount namespace that shares /run/netns with the host. With a
//! guard, a process outside of the room, the stages of one subhost run in it, and the guard cleans
//! up when the room has ended.
#![forbid(unsafe_code)]

mod admit;
mod cleanup;
mod configured;
mod exit_status;
mod guard;
mod notify;
mod pipeline;
mod proctitle;
mod room;
mod stop_log;
mod undo;
mod wait_ready;

use anyhow::{Result, bail};
use lexopt::prelude::*;
use ob_document::{Tool, Usage, undo_together};
use ob_shutdown::terminator;
use ob_sys::fdstore::FdStore;
use ob_sys::process::close_inherited;
use pipeline::Pipeline;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::process::ExitCode;

const TOOL: Tool = Tool {
    name: "ob-room",
    help: "\
Usage: ob-room CMD [ARG...]
       ob-room --guard [OPTION...] STAGE '|' STAGE...
       ob-room --undo [--cleanup CMD]
       ob-room --log NAME

Runs CMD in a room: a private mount namespace that shares /run/netns with the
host. With --guard it runs the stages of one subhost in the room. A guard stays
in the background: it locks the subhost, and cleans up when the room has ended.

      --guard        run stages, the first of which prints the document
      --undo         end the subhosts of the documents on stdin, and clean up
      --log NAME     copy stdin to stdout and to the log of the subhost
      --cleanup CMD  give the documents to CMD after the end of the subhosts
      --foreground   with --guard: stay until everything is cleaned up
      --notify-fd N  with --guard: write a newline to descriptor N when ready
  -h, --help         print this help
  -V, --version      print the version

Examples:
  ob-room sh
  ob-room --guard --cleanup 'ob-cable --undo' \\
      ob-conf mta.conf '|' ob-mount '|' ob-cable '|' ob-unshare
  ob-list -d mta | ob-room --undo --cleanup 'ob-cable --undo'
",
    failed: 125,
};

fn main() -> ExitCode {
    TOOL.main(run)
}

/// What the command line asks for.
#[derive(Default)]
struct Request {
    guard: bool,
    undo: bool,
    terminator: bool,
    foreground: bool,
    log: Option<String>,
    cleanup: Option<String>,
    notify: Option<RawFd>,
    command: Vec<OsString>,
}

fn run(tool: &Tool, parser: lexopt::Parser) -> Result<ExitCode> {
    let request = parse(tool, parser)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if request.terminator {
        return terminator::main();
    }
    if let Some(name) = &request.log {
        let tool = Tool {
            name: "overlay-stop",
            ..TOOL
        };
        stop_log::copy(&tool, name)?;
        return Ok(ExitCode::SUCCESS);
    }
    // The guard outlives its caller, so it must not keep descriptors of the caller open.
    let mut kept = FdStore::numbers();
    kept.extend(request.notify);
    close_inherited(&kept);
    let cleanup = request.cleanup.as_deref();
    if request.undo {
        return undo_together(tool, |documents| undo::undo(documents, cleanup));
    }
    if !request.guard {
        return room::become_command(tool, &request.command);
    }
    // A failure of the tool itself has the status 125 if it runs a command, like env(1), and 1
    // otherwise.
    let tool = Tool { failed: 1, ..TOOL };
    let pipeline = Pipeline::of_boot(&request.command)?;
    let outcome = wait_ready::run_guarded(
        &tool,
        &pipeline,
        cleanup,
        request.foreground,
        request.notify,
    );
    Ok(tool.report(outcome))
}

fn parse(tool: &Tool, mut parser: lexopt::Parser) -> Result<Request> {
    let mut request = Request::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("log") => request.log = Some(parser.value()?.string()?),
            Long("guard") => request.guard = true,
            Long("undo") => request.undo = true,
            Long(terminator::OPTION) => request.terminator = true,
            Long("foreground") => request.foreground = true,
            Long("notify-fd") => request.notify = Some(parser.value()?.parse()?),
            Long("cleanup") => request.cleanup = Some(parser.value()?.string()?),
            Value(word) if !request.undo => {
                request.command.push(word);
                break;
            }
            arg => return Err(tool.common(&arg)),
        }
    }
    request.command.extend(parser.raw_args()?);
    check(&request).map(|()| request)
}

fn check(request: &Request) -> Result<()> {
    let usage = |text: &str| Usage(text.to_owned());
    if request.terminator || request.log.is_some() {
        return Ok(());
    }
    if request.undo && (request.guard || !request.command.is_empty()) {
        bail!(usage("--undo takes no command and no option but --cleanup"));
    }
    if request.command.is_empty() && !request.undo {
        bail!(usage("expects a command; see ob-room --help"));
    }
    if request.cleanup.is_some() && !request.guard && !request.undo {
        bail!(usage("--cleanup needs --guard or --undo"));
    }
    if (request.foreground || request.notify.is_some()) && !request.guard {
        bail!(usage("--foreground and --notify-fd need --guard"));
    }
    Ok(())
}
