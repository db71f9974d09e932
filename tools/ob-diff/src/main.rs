//! Prints the differences between LOWER and the root of a subhost.
#![forbid(unsafe_code)]

mod layer_dir;
mod layers;

use anyhow::{Context, Result, bail, ensure};
use layers::{Change, Kind, compare};
use lexopt::prelude::*;
use ob_document::printable::{is_printable, printable_json};
use ob_document::{Silent, Tool, receive};
use serde_json::json;
use std::io::{BufWriter, ErrorKind, IsTerminal, Stdout, Write, stdout};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

const TOOL: Tool = Tool {
    name: "ob-diff",
    help: "\
Usage: ob-diff [--json]

Reads the document of a subhost and prints the differences between its root and
LOWER, one path a line: A added, C changed, D deleted with all files below. The
subhost does not need to run.

  -j, --json      print one JSON array, for programs
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
    let (lower, upper) = (document.path("LOWER")?, document.path("UPPER")?);
    let mut output = Output::new(json);
    let printed = check(lower, upper)
        .and_then(|()| compare(lower, upper, &mut |change| output.add(&change)))
        .and_then(|()| output.end());
    match printed {
        // The reader has closed the pipe, as `head -1` does.
        Err(error) if is_broken_pipe(&error) => bail!(Silent),
        printed => printed.with_context(|| document.name().to_owned())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check(lower: &Path, upper: &Path) -> Result<()> {
    for (key, path) in [("LOWER", lower), ("UPPER", upper)] {
        ensure!(path.is_dir(), "{key}={} is not a directory", path.display());
    }
    ensure!(
        lower.canonicalize()? != upper.canonicalize()?,
        "UPPER is LOWER: there is no layer to compare"
    );
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Prints the changes one by one, since memory may not hold all of them.
struct Output {
    json: bool,
    is_terminal: bool,
    is_first: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    fn new(json: bool) -> Self {
        Output {
            json,
            is_terminal: stdout().is_terminal(),
            is_first: true,
            stdout: BufWriter::new(stdout()),
        }
    }

    fn add(&mut self, change: &Change) -> Result<()> {
        if self.json {
            let before = if self.is_first { "[" } else { ",\n" };
            self.is_first = false;
            self.stdout.write_all(before.as_bytes())?;
            let object = object(change);
            let object = if self.is_terminal {
                printable_json(&object)
            } else {
                object
            };
            return Ok(self.stdout.write_all(object.as_bytes())?);
        }
        Ok(self.stdout.write_all(&line(change, self.is_terminal))?)
    }

    fn end(&mut self) -> Result<()> {
        if self.json {
            let end = if self.is_first { "[]\n" } else { "]\n" };
            self.stdout.write_all(end.as_bytes())?;
        }
        Ok(self.stdout.flush()?)
    }
}

fn line(change: &Change, is_terminal: bool) -> Vec<u8> {
    let mut line = vec![
        match change.kind {
            Kind::Added => b'A',
            Kind::Changed => b'C',
            Kind::Deleted => b'D',
        },
        b' ',
    ];
    for chunk in change.path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            // A path must stay on one line, and must not move the cursor of a terminal.
            let is_plain = c != '\\' && (is_printable(c) || !c.is_ascii() && !is_terminal);
            let mut bytes = [0; 4];
            add(&mut line, c.encode_utf8(&mut bytes).as_bytes(), is_plain);
        }
        add(&mut line, chunk.invalid(), !is_terminal);
    }
    line.push(b'\n');
    line
}

/// Adds bytes to a line: unchanged if plain, else each as three octal digits.
fn add(line: &mut Vec<u8>, bytes: &[u8], is_plain: bool) {
    for byte in bytes {
        if is_plain {
            line.push(*byte);
        } else {
            line.extend(format!("\\{byte:03o}").bytes());
        }
    }
}

fn object(change: &Change) -> String {
    let kind = match change.kind {
        Kind::Added => "added",
        Kind::Changed => "changed",
        Kind::Deleted => "deleted",
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let from = change.from.as_deref().map(text);
    let path = text(&change.path);
    json!({ "kind": kind, "path": path, "type": change.file_type, "from": from }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn terminal_gets_no_byte_that_moves_its_cursor() {
        let change = Change {
            kind: Kind::Added,
            path: OsStr::from_bytes("/\u{1b}\\\u{9b}é".as_bytes()).into(),
            from: None,
            file_type: "file",
        };
        let shown = |is_terminal| String::from_utf8(line(&change, is_terminal)).unwrap();
        assert_eq!(shown(true), "A /\\033\\134\\302\\233é\n");
        assert_eq!(shown(false), "A /\\033\\134\u{9b}é\n");
        let change = Change {
            path: OsStr::from_bytes(b"/\x9b").into(),
            ..change
        };
        assert_eq!(line(&change, true), b"A /\\233\n");
        assert_eq!(line(&change, false), b"A /\x9b\n");
    }
}
