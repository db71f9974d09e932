//! The frame of a stage: a filter that reads documents, acts, and prints them with its facts.

use crate::{Document, STEPS, Silent, Tool, Usage, log};
use anyhow::{Context, Result, bail, ensure};
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;

/// Reads a document, calls `make` to act and to add its facts, and prints the document.
///
/// If `make` fails, it must undo its changes; the error is logged to LOG and returned. If printing
/// fails, `unmake` undoes the changes of `make`: no later stage knows of them.
pub fn filter(
    tool: &Tool,
    make: impl FnOnce(&mut Document) -> Result<()>,
    unmake: impl FnOnce(&mut Document) -> Result<()>,
) -> Result<ExitCode> {
    let mut document = receive()?;
    let name = document.name().to_owned();
    make(&mut document)
        .or_else(|error| log::failure(tool, &document, error))
        .with_context(|| name.clone())?;
    if let Err(error) = send(&document) {
        unmake(&mut document).with_context(|| format!("{name}: {error:#}; while undoing"))?;
        return Err(error).context(name);
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads one document from standard input.
///
/// Fails if the input is not a document or is that of a dry run, whose facts describe nothing that
/// exists. Empty input is [`Silent`]: the previous stage has failed and reported the reason.
pub fn receive() -> Result<Document> {
    let document = Document::parse(&read()?)?;
    ensure!(
        !document.has(STEPS),
        "{}: this is the document of a dry run; nothing that it describes exists",
        document.name()
    );
    Ok(document)
}

/// Prints the document and flushes standard output.
pub fn send(document: &Document) -> Result<()> {
    print(&document.line())
}

/// Reads documents, one per line, calls `unmake` to undo the changes that each describes, and
/// prints them all.
///
/// After a failure the next document is processed; each error is reported, and the status is 1.
pub fn undo(tool: &Tool, mut unmake: impl FnMut(&mut Document) -> Result<()>) -> Result<ExitCode> {
    undo_together(tool, |documents| {
        documents.iter_mut().map(&mut unmake).collect()
    })
}

/// Like [`undo`], for a stage that waits: `unmake` gets all documents, so that it can wait for all
/// of them at the same time, and returns an outcome for each in the same order.
pub fn undo_together(
    tool: &Tool,
    unmake: impl FnOnce(&mut [Document]) -> Vec<Result<()>>,
) -> Result<ExitCode> {
    let mut status = ExitCode::SUCCESS;
    let mut fail = |error: anyhow::Error| {
        if !error.is::<Silent>() {
            tool.complain(&error);
        }
        status = ExitCode::FAILURE;
    };
    let mut documents = Vec::new();
    for line in read()?.lines() {
        match Document::parse(line) {
            Ok(document) => documents.push(document),
            Err(error) => fail(error),
        }
    }
    let outcomes = unmake(&mut documents);
    let mut lines = String::new();
    for (document, outcome) in documents.iter().zip(outcomes) {
        if let Err(error) = outcome {
            fail(error.context(document.name().to_owned()));
        }
        lines.push_str(&document.line());
    }
    print(&lines)?;
    Ok(status)
}

/// Reads standard input to its end. Fails if it is a terminal, empty ([`Silent`]) or not UTF-8.
pub(crate) fn read() -> Result<String> {
    if std::io::stdin().is_terminal() {
        bail!(Usage(
            "expects a document on standard input, as ob-conf prints it; see --help".to_owned()
        ));
    }
    // Large enough for most documents, so that two calls of read(2) suffice.
    let mut input = Vec::with_capacity(8192);
    std::io::stdin()
        .read_to_end(&mut input)
        .context("read the document")?;
    if input.is_empty() {
        bail!(Silent);
    }
    String::from_utf8(input).context("the input is no document: it is not UTF-8")
}

fn print(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    let printed = stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush());
    match printed {
        // The next stage has exited or was not started, and the reason has been reported already.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => bail!(Silent),
        printed => printed.context("print the document"),
    }
}
