//! Starts a subhost in namespaces of its own and supervises it: the last stage. Also makes the room that the stages stand in,
//! and ends subhosts.
#![forbid(unsafe_code)]

mod caller;
mod cgroup;
mod confine;
mod end;
mod facts;
mod guard;
mod hurry;
mod init;
mod inside;
mod limits;
mod logger;
mod notify;
mod pipeline;
mod relay;
mod room;
mod steps;
mod supervise;
mod title;
mod userns;
mod watch;
mod watcher;

use anyhow::{Result, bail};
use lexopt::prelude::*;
use ob_document::{Tool, Usage, undo_together};
use ob_sys::fdstore::FdStore;
use ob_sys::process::close_inherited;
use pipeline::Pipeline;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::process::ExitCode;

const TOOL: Tool = Tool {
    name: "ob-unshare",
    help: "\
Usage: ob-unshare [-- CMD [ARG...]]        a stage: start the subhost
       ob-unshare --room CMD [ARG...]      run CMD in a room
       ob-unshare --room --then LINE CMD '|' CMD...  with a guard
       ob-unshare --undo [--then LINE]     end subhosts

Starts the subhost of the document on stdin in new namespaces, prints the
document and stays as the supervisor. CMD becomes pid 1. --room runs CMD in a
private mount namespace that shares /run/netns with the host. --then adds a
guard: it reads the document of the first CMD, locks the subhost, and at the
end runs LINE with the document of the last CMD.

      --room        run CMD in a room
      --undo        end the subhosts of the documents on stdin
  -n, --dry-run     start nothing; check, and add the commands as steps
      --then LINE   clean up with the shell command LINE
      --foreground  with a guard: stay until the room has ended
      --notify-fd N with a guard: write a newline to descriptor N when up
      --init        print the script of pid 1 for a plan without INIT
  -h, --help        print this
  -V, --version     print the version

Examples:
  ob-conf mta.conf | ob-mount | ob-cable | ob-unshare
  ob-conf mta.conf | ob-mount | ob-unshare -- /bin/sh
",
    failed: 125,
};

fn main() -> ExitCode {
    TOOL.main(run)
}

/// What the command line asks for.
#[derive(Default)]
struct Request {
    room: bool,
    undo: bool,
    dry: bool,
    init: bool,
    watch: bool,
    foreground: bool,
    then: Option<String>,
    notify: Option<RawFd>,
    command: Vec<OsString>,
}

fn run(tool: &Tool, parser: lexopt::Parser) -> Result<ExitCode> {
    let request = parse(tool, parser)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let then = request.then.as_deref();
    if request.watch {
        return watcher::run();
    }
    if request.init {
        print!("{}", init::default_text_of_environment());
        return Ok(ExitCode::SUCCESS);
    }
    if request.dry {
        let stage = Tool { failed: 1, ..TOOL };
        return Ok(stage.report(ob_document::steps::plan(steps::describe)));
    }
    // Both the supervisor and the guard outlive who calls them.
    let mut kept = FdStore::numbers();
    kept.extend(request.notify);
    close_inherited(&kept);
    if request.undo {
        return undo_together(tool, |documents| end::undo(documents, then));
    }
    // What runs a command fails with 125, as env(1); a stage or a guard with 1.
    let stage = Tool { failed: 1, ..TOOL };
    match (request.room, then) {
        (true, Some(then)) => {
            let pipeline = Pipeline::of(&request.command)?;
            let outcome = caller::guard(&pipeline, then, request.foreground, request.notify);
            Ok(stage.report(outcome))
        }
        (true, None) => room::become_command(&request.command),
        (false, _) if request.command.is_empty() => Ok(stage.report(supervise::start(&stage, &[]))),
        (false, _) => supervise::start(tool, &request.command),
    }
}

fn parse(tool: &Tool, mut parser: lexopt::Parser) -> Result<Request> {
    let mut request = Request::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("room") => request.room = true,
            Long("undo") => request.undo = true,
            Short('n') | Long("dry-run") => request.dry = true,
            Long("init") => request.init = true,
            // Of our own, see watcher.rs; it is of no use to anybody else.
            Long(watcher::WATCH) => request.watch = true,
            Long("foreground") => request.foreground = true,
            Long("notify-fd") => request.notify = Some(parser.value()?.parse()?),
            Long("then") => request.then = Some(parser.value()?.string()?),
            Value(word) if !request.undo => {
                request.command.push(word);
                break;
            }
            arg => return Err(tool.common(&arg)),
        }
    }
    request.command.extend(parser.raw_args()?);
    let usage = |text: &str| Usage(text.to_owned());
    if request.room && request.command.is_empty() {
        bail!(usage("--room wants a command"));
    }
    if request.undo && (request.room || !request.command.is_empty()) {
        bail!(usage("--undo goes with --then alone"));
    }
    if request.dry && (request.room || request.undo || !request.command.is_empty()) {
        bail!(usage("--dry-run goes alone"));
    }
    if request.then.is_some() && !request.room && !request.undo {
        bail!(usage("--then goes with --room or --undo"));
    }
    Ok(request)
}
