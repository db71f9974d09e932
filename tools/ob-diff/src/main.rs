//! Tells what a subhost has changed against LOWER.
#![forbid(unsafe_code)]

mod layers;
mod place;

use anyhow::{Context, Result, bail, ensure};
use layers::{Change, Kind, compare};
use lexopt::prelude::*;
use ob_document::{Silent, Tool, receive};
use serde_json::json;
use std::io::{ErrorKind, Write, stdout};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

const TOOL: Tool = Tool {
    name: "ob-diff",
    help: "\
Usage: ob-diff [--json]

Reads the document of a subhost, running or not, and prints what is different
between its root and LOWER, as UPPER has it: a line for each path, with A for
what was added, C for what was changed, D for what was deleted with all in it.

  -j, --json      for programs: one array
  -h, --help      print this
  -V, --version   print the version

Examples:
  ob-conf mta.conf | ob-diff
  ob-list --documents mta | ob-diff --json | jq -r '.[].path'
",
    failed: 1,
};

fn main() -> ExitCode {
    TOOL.main(run)
}

fn run(tool: &Tool, mut parser: lexopt::Parser) -> Result<ExitCode> {
    let mut json = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('j') | Long("json") => json = true,
            other => return Err(tool.common(&other)),
        }
    }
    let document = receive()?;
    let changes = changes(document.path("LOWER")?, document.path("UPPER")?);
    let changes = changes.with_context(|| document.name().to_owned())?;
    print(&if json {
        array(&changes)
    } else {
        lines(&changes)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn changes(lower: &Path, upper: &Path) -> Result<Vec<Change>> {
    for (key, path) in [("LOWER", lower), ("UPPER", upper)] {
        ensure!(path.is_dir(), "{key}={} is not a directory", path.display());
    }
    ensure!(
        lower.canonicalize()? != upper.canonicalize()?,
        "UPPER is LOWER: it has no layer of its own, and nothing to compare"
    );
    compare(lower, upper)
}

fn lines(changes: &[Change]) -> Vec<u8> {
    let mut lines = Vec::new();
    for change in changes {
        lines.push(match change.kind {
            Kind::Added => b'A',
            Kind::Changed => b'C',
            Kind::Deleted => b'D',
        });
        lines.push(b' ');
        for byte in change.path.as_os_str().as_bytes() {
            // A line is a line, and a name is not to talk to the terminal.
            match byte {
                0..0x20 | 0x7f | b'\\' => lines.extend(format!("\\{byte:03o}").bytes()),
                byte => lines.push(*byte),
            }
        }
        lines.push(b'\n');
    }
    lines
}

fn array(changes: &[Change]) -> Vec<u8> {
    let objects: Vec<String> = changes
        .iter()
        .map(|change| {
            let kind = match change.kind {
                Kind::Added => "added",
                Kind::Changed => "changed",
                Kind::Deleted => "deleted",
            };
            let text = |path: &Path| path.to_string_lossy().into_owned();
            let from = change.from.as_deref().map(text);
            let path = text(&change.path);
            json!({ "kind": kind, "path": path, "type": change.sort, "from": from }).to_string()
        })
        .collect();
    format!("[{}]\n", objects.join(",\n")).into_bytes()
}

fn print(text: &[u8]) -> Result<()> {
    let mut stdout = stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // As with `| head -1`: the reader has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => bail!(Silent),
        printed => printed.context("print the changes"),
    }
}
