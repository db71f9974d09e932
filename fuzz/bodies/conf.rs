//! Properties that hold for any bytes as a configuration.

use ob_conf::check::problems;
use ob_conf::conf::Conf;
use ob_conf::evaluation::Evaluation;
use ob_document::{Document, Kind, VARIABLES, one_line};
use std::fmt::Display;
use std::path::Path;

/// Parses the bytes as a configuration and uses it without running a command.
pub fn holds(bytes: &[u8]) {
    let conf = match Conf::parse(Path::new(FILE), bytes) {
        Ok(conf) => conf,
        Err(error) => {
            let line = stands_at(&error).expect("an error with a line number");
            assert!((1..=lines(bytes)).contains(&line), "{error:#}");
            return;
        }
    };
    assert_eq!(conf.lines.join("\n").as_bytes(), bytes);
    for assignment in conf.assignments() {
        let line = &conf.lines[assignment.line - 1];
        assert!(line.starts_with(assignment.name) && line.ends_with(assignment.raw));
    }
    // With SECCOMP the check would read a file, perhaps an endless device.
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
    // Evaluating it would run the command.
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
            let reported = problems.iter().any(|problem| problem.line == line);
            assert!(reported, "--check has not reported: {error:#}");
            assert!(!one_line(&error).contains('\n'));
        }
    }
}

/// A path in the root directory, so that `BASE=.` is an existing directory.
const FILE: &str = "/any.conf";

fn lines(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count()
}

/// Returns the line number in an error. Panics unless the error names the file.
fn stands_at(error: &impl Display) -> Option<usize> {
    let text = format!("{error:#}");
    let place = text
        .strip_prefix(FILE)
        .and_then(|rest| rest.strip_prefix(':'));
    let place = place.unwrap_or_else(|| panic!("the error names no file: {text}"));
    place.split(':').next()?.parse().ok()
}

/// Checks a document that comes from a configuration: the next stage can read it, and its paths are
/// absolute.
fn is_sound(document: &Document) {
    assert_eq!(&Document::parse(&document.line()).unwrap(), document);
    for variable in VARIABLES {
        if variable.kind == Kind::Path {
            document.path(variable.name).unwrap();
        }
    }
}
