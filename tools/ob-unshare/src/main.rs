//! The last stage: starts a subhost in new namespaces and supervises it. With `--undo` it ends
//! subhosts.
#![forbid(unsafe_code)]

mod cgroup;
mod cgroup_events;
mod cgroup_parent;
mod confine;
mod console;
mod environment;
mod facts;
mod init;
mod inside;
mod locks;
mod logger;
mod monitor;
mod old_options;
mod relay;
mod spawn;
mod start;
mod steps;
mod supervise;
mod userns;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use ob_document::{Tool, Usage, undo_together};
use ob_shutdown::{FACTS, ending, terminator};
use ob_sys::fdstore::FdStore;
use ob_sys::process::close_inherited;
use std::ffi::OsString;
use std::io::{Write, stdout};
use std::process::ExitCode;

const TOOL: Tool = Tool {
    name: "ob-unshare",
    help: "\
Usage: ob-unshare [-- CMD [ARG...]]    a stage: start the subhost
       ob-unshare --undo               end subhosts

Starts the subhost of the document on stdin in new namespaces, prints the
document and stays as the supervisor. CMD becomes pid 1. The options --room
and --then of earlier versions execute ob-room.

      --undo        end the subhosts of the documents on stdin
  -n, --dry-run     start nothing; check, and add the commands as steps
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
    undo: bool,
    dry: bool,
    init: bool,
    terminator: bool,
    command: Vec<OsString>,
}

fn run(tool: &Tool, parser: lexopt::Parser) -> Result<ExitCode> {
    old_options::exec_room(std::env::args_os().skip(1))?;
    let request = parse(tool, parser)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if request.terminator {
        return terminator::main();
    }
    // A failure of the tool itself has the status 125 if it runs a command, like env(1), and 1
    // otherwise.
    let stage = Tool { failed: 1, ..TOOL };
    if request.init {
        // print! would panic if the output is full or closed.
        let text = init::default_text_of_environment();
        let printed = stdout().write_all(text.as_bytes());
        let printed = printed.context("print the script of pid 1");
        return Ok(stage.report(printed.map(|()| ExitCode::SUCCESS)));
    }
    if request.dry {
        return Ok(stage.report(ob_document::steps::plan(steps::describe)));
    }
    // The supervisor outlives its caller, so it must not keep descriptors of the caller open.
    close_inherited(&FdStore::numbers());
    if request.undo {
        return undo_together(tool, |documents| {
            let outcomes = ending::end(documents);
            for document in documents {
                document.forget(FACTS);
            }
            outcomes
        });
    }
    if request.command.is_empty() {
        return Ok(stage.report(supervise::run(&stage, &[])));
    }
    supervise::run(tool, &request.command)
}

fn parse(tool: &Tool, mut parser: lexopt::Parser) -> Result<Request> {
    let mut request = Request::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("undo") => request.undo = true,
            Short('n') | Long("dry-run") => request.dry = true,
            Long("init") => request.init = true,
            Long(terminator::OPTION) => request.terminator = true,
            Value(word) if !request.undo => {
                request.command.push(word);
                break;
            }
            arg => return Err(tool.common(&arg)),
        }
    }
    request.command.extend(parser.raw_args()?);
    let usage = |text: &str| Usage(text.to_owned());
    if request.undo && !request.command.is_empty() {
        bail!(usage("--undo takes no command"));
    }
    if request.dry && (request.undo || !request.command.is_empty()) {
        bail!(usage("--dry-run takes no command and no other option"));
    }
    Ok(request)
}
