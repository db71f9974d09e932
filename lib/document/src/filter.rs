//! The frame of a filter: one document in, one document out, nothing made where it fails.

use crate::{Document, Silent, Tool, Usage, log};
use anyhow::{Context, Result, bail, ensure};
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;

/// Reads a document from standard input, has `make` do its one thing and note it there, and prints the document.
///
/// If it cannot be printed, `unmake` takes the thing back; what `make` itself leaves half done, `make` takes back. A failure
/// is told on stderr (by [`Tool::main`]) and in the subhost's log.
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

/// Reads the one document on standard input, to its end. Empty input is [`Silent`]: the stage before us has told why.
///
/// The document of a dry run is refused: what it says is not there.
pub fn receive() -> Result<Document> {
    let document = Document::parse(&read()?)?;
    ensure!(
        !document.has(crate::steps::FACT),
        "{}: this is the document of a dry run; nothing that it says has been made",
        document.name()
    );
    Ok(document)
}

/// Prints the document, at once.
pub fn send(document: &Document) -> Result<()> {
    print(&document.line())
}

/// Reads documents, one a line, has `unmake` take back its one thing from each, and prints them.
///
/// A failure does not keep it from the next document; all are told, and the status is 1.
pub fn undo(tool: &Tool, mut unmake: impl FnMut(&mut Document) -> Result<()>) -> Result<ExitCode> {
    undo_together(tool, |documents| {
        documents.iter_mut().map(&mut unmake).collect()
    })
}

/// The same for a stage that has to wait, and waits for all at once: `unmake` gets all documents, and returns an outcome for
/// each in the same order.
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

/// Reads standard input to its end. Empty input is [`Silent`]: the stage before us has failed and told so.
pub(crate) fn read() -> Result<String> {
    if std::io::stdin().is_terminal() {
        bail!(Usage(
            "expects a document on standard input, as ob-conf prints it; see --help".to_owned()
        ));
    }
    // A document fits: it is read in one piece, not in those that an empty vector grows by.
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
        // The next stage is gone, and who has ended it, or kept it from beginning, has told why.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => bail!(Silent),
        printed => printed.context("print the document"),
    }
}
