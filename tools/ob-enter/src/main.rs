//! Runs a command in a running subhost.
#![forbid(unsafe_code)]

mod account;
mod command;
mod limits;
mod sealed;
mod subhost;

use anyhow::{Context, Result, anyhow, bail};
use command::{Command, Failure};
use lexopt::prelude::*;
use limits::CallerLimits;
use ob_document::{Tool, Usage};
use ob_enter::CallerStdio;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use subhost::Subhost;

const TOOL: Tool = Tool {
    name: "ob-enter",
    help: "\
Usage: ob-enter [-u USER] [--no-pty] [--] NAME [CMD [ARG...]]

Runs CMD in the running subhost NAME: in its namespaces and control group, with
a new environment, on a new terminal inside. Without CMD, runs bash, or sh if
bash is missing.

Exits with the status of CMD, with 128+N if signal N ended it; with 127 if CMD
does not exist, 126 if it is not executable, 125 if NAME is not running.

  -u, --user USER  run as USER of the subhost instead of root
      --no-pty     create no terminal inside
  -h, --help       print this
  -V, --version    print the version

Examples:
  ob-enter mta
  ob-enter mta postqueue -p | grep -c '^[0-9A-F]'
",
    failed: 125,
};

fn main() -> ExitCode {
    TOOL.main(run)
}

/// The command line.
struct Request {
    name: String,
    user: Option<String>,
    terminals: bool,
    command: Vec<CString>,
}

fn run(tool: &Tool, parser: lexopt::Parser) -> Result<ExitCode> {
    let request = parse(tool, parser)?;
    let limits = CallerLimits::lift();
    sealed::become_sealed(&limits)?;
    enter(&request, &limits).with_context(|| request.name.clone())
}

fn parse(tool: &Tool, mut parser: lexopt::Parser) -> Result<Request> {
    let mut user = None;
    let mut terminals = true;
    let name = loop {
        match parser.next()? {
            Some(Short('u') | Long("user")) => user = Some(parser.value()?.string()?),
            Some(Long("no-pty")) => terminals = false,
            Some(Value(name)) => break name.string()?,
            Some(arg) => return Err(tool.common(&arg)),
            None => bail!(Usage(
                "expects the name of a subhost; see --help".to_owned()
            )),
        }
    };
    let words: Vec<OsString> = parser.raw_args()?.collect();
    let words = words.into_iter().map(OsString::into_vec);
    Ok(Request {
        name,
        user,
        terminals,
        command: words.map(CString::new).collect::<Result<_, _>>()?,
    })
}

fn enter(request: &Request, limits: &CallerLimits) -> Result<ExitCode> {
    let subhost = Subhost::find(&request.name)?;
    let stdio = CallerStdio::examine(request.terminals)?;
    subhost.join()?;
    let (proxy, stdio) = stdio.connect(subhost::root()?)?;
    subhost.chown_stdio(&stdio)?;
    let command = Command {
        words: &request.command,
        user: request.user.as_deref(),
        name: &request.name,
        limits,
    };
    let (child, failure_rx) = subhost.spawn(&stdio, |failure_tx| {
        command.exec(&subhost, &stdio, failure_tx)
    })?;
    drop(stdio);
    let end = proxy.serve(&child)?;
    if let Some(failure) = Failure::receive(&failure_rx) {
        TOOL.complain(&anyhow!("{}: {}", request.name, failure.describe(&command)));
        return Ok(ExitCode::from(failure.status()));
    }
    if subhost.has_ended_with(&end) {
        TOOL.complain(&anyhow!("{}: the subhost has ended", request.name));
    }
    Ok(ExitCode::from(end.status()))
}
