//! What holds for any bytes as a configuration.

use ob_conf::check::problems;
use ob_conf::conf::{Conf, Evaluation};
use ob_document::{Document, Kind, VARIABLES, sentence};
use std::fmt::Display;
use std::path::Path;

/// Reads the bytes as a configuration and does with them all that can be done without running a command.
pub fn holds(bytes: &[u8]) {
    let conf = match Conf::parse(Path::new(FILE), bytes) {
        Ok(conf) => conf,
        Err(error) => {
            let line = stands_at(&error).expect("a line that cannot be read has a number");
            assert!((1..=lines(bytes)).contains(&line), "{error:#}");
            return;
        }
    };
    assert_eq!(conf.lines.join("\n").as_bytes(), bytes);
    for assignment in conf.assignments() {
        let line = &conf.lines[assignment.line - 1];
        assert!(line.starts_with(assignment.name) && line.ends_with(assignment.raw));
    }
    // A profile would be read, and may be a device that never ends.
    if conf
        .assignments()
        .any(|assignment| assignment.name == "SECCOMP")
    {
        return;
    }

    let problems = problems(&conf);
    for problem in &problems {
        assert!(problem.line <= conf.lines.len(), "{problem:?}");
        if problem.line > 0 {
            let line = &conf.lines[problem.line - 1];
            assert!(
                (1..=line.len() + 1).contains(&problem.column),
                "{problem:?}"
            );
        }
        let shown = problem.shown(&conf);
        let expected = if problem.line > 0 { 3 } else { 1 };
        assert_eq!(shown.matches('\n').count(), expected, "{shown}");
    }
    // It would be run.
    if conf
        .assignments()
        .any(|assignment| assignment.command().is_some())
    {
        return;
    }
    match Evaluation::new(&conf, &[], &[]).document() {
        Ok(document) => is_sound(&document),
        Err(error) => {
            let line = stands_at(&error).unwrap_or_default();
            assert!(line <= conf.lines.len(), "{error:#}");
            let told = problems.iter().any(|problem| problem.line == line);
            assert!(told, "--check has not told: {error:#}");
            assert!(!sentence(&error).contains('\n'));
        }
    }
}

/// As if it stood in the root: `BASE=.` is then a directory that is there.
const FILE: &str = "/any.conf";

fn lines(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count()
}

/// The line that an error names. Panics if it does not even name the file.
fn stands_at(error: &impl Display) -> Option<usize> {
    let text = format!("{error:#}");
    let place = text
        .strip_prefix(FILE)
        .and_then(|rest| rest.strip_prefix(':'));
    let place = place.unwrap_or_else(|| panic!("it names no file: {text}"));
    place.split(':').next()?.parse().ok()
}

/// What a document that comes of a configuration always is: readable by the next stage, with absolute paths.
fn is_sound(document: &Document) {
    assert_eq!(&Document::parse(&document.line()).unwrap(), document);
    for variable in VARIABLES {
        if variable.kind == Kind::Path {
            document.path(variable.name).unwrap();
        }
    }
}
