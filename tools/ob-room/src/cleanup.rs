//! The cleanup command: it gets the documents of subhosts that have ended, and removes what their
//! stages created.

use crate::configured::{Configured, VARIABLE};
use anyhow::{Context, Result, anyhow, bail};
use ob_document::state::{StateDir, open_own_pid1};
use ob_document::{Document, Silent, one_line};
use ob_shutdown::{cgroup, ending};
use std::io::{ErrorKind, Write};
use std::process::{Child, Command, Stdio};

/// A cleanup command that waits for the documents on its standard input.
pub struct Cleanup<'a> {
    command: &'a str,
    child: Child,
}

impl<'a> Cleanup<'a> {
    /// Starts `command`, if there is one.
    ///
    /// The command reads standard input to its end before it does anything. So it can start while
    /// the subhosts end.
    pub fn start(command: Option<&'a str>) -> Result<Option<Self>> {
        let Some(command) = command else {
            return Ok(None);
        };
        ob_sys::process::set_cloexec_from(3)?;
        let child = parse(command)
            .env_remove("OB_COMMAND")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("run '{command}'"))?;
        Ok(Some(Cleanup { command, child }))
    }

    /// Writes the documents to the command and waits until it has exited.
    fn finish(mut self, documents: &[&Document]) -> Result<()> {
        let lines: String = documents.iter().map(|document| document.line()).collect();
        let stdin = self.child.stdin.take();
        let written = stdin.map_or(Ok(()), |mut stdin| stdin.write_all(lines.as_bytes()));
        let status = self.child.wait()?;
        match (status.code(), written) {
            (Some(0), Ok(())) => Ok(()),
            // A stage fails if its input is empty.
            _ if documents.is_empty() => Ok(()),
            // The command has reported why.
            (Some(1), Ok(())) => bail!(Silent),
            (Some(1), Err(error)) if error.kind() == ErrorKind::BrokenPipe => bail!(Silent),
            (Some(0 | 1), Err(error)) => {
                Err(error).with_context(|| format!("write the documents to '{}'", self.command))
            }
            _ => bail!("'{}' ended with {status}", self.command),
        }
    }
}

/// Returns the command for `line`: executed directly if `line` has only blanks, letters, digits and
/// `-_./`, and by `/bin/sh -c` otherwise. To start a shell takes longer than to run a stage.
fn parse(line: &str) -> Command {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " -_./".contains(c);
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    match words.next().filter(|_| line.chars().all(is_plain)) {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
        None => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", line]);
            command
        }
    }
}

/// Gives the documents to the cleanup command, or each to the stages of its PIPELINE, then removes
/// control groups and state directories. Returns a result for each document.
///
/// Only for the process that holds the locks of these subhosts. If the command fails for several
/// documents, it runs again for each alone. If it or a stage fails for one, the state directory of
/// that subhost stays, so that the next attempt can clean up.
pub fn finish(cleanup: Option<Cleanup>, documents: &[&Document]) -> Vec<Result<()>> {
    let is_default = |document: &&&Document| !document.has(VARIABLE);
    let default: Vec<&Document> = documents.iter().filter(is_default).copied().collect();
    let command = cleanup.as_ref().map(|cleanup| cleanup.command);
    let mut failure = cleanup.and_then(|cleanup| cleanup.finish(&default).err());
    let each = documents.iter().map(|document| {
        if document.has(VARIABLE) {
            undo_configured(document).and_then(|()| remove(document))
        } else if failure.is_none() {
            remove(document)
        } else if default.len() < 2 {
            failure.take().map_or(Ok(()), Err)
        } else {
            clean_up(command, document)
        }
    });
    each.collect()
}

fn undo_configured(document: &Document) -> Result<()> {
    let Some(stages) = Configured::of(document)? else {
        return Ok(());
    };
    stages.undo(document).map_err(|error| {
        let (name, error) = (document.name(), one_line(&error));
        anyhow!("{name}: {error}; remove its objects, then type rm -r /run/overlay-boot/{name}")
    })
}

fn remove(document: &Document) -> Result<()> {
    cgroup::remove(document)?;
    StateDir::of(document.name()).remove()
}

/// Runs the cleanup `command` for one subhost. Only for the process that holds its lock.
pub fn clean_up(command: Option<&str>, document: &Document) -> Result<()> {
    let command = command.filter(|_| !document.has(VARIABLE));
    let mut cleaned = finish(Cleanup::start(command)?, &[document]);
    cleaned.pop().unwrap_or(Ok(()))
}

/// Ends and cleans up what a killed guard has left. Only for the process that holds the lock.
///
/// Returns whether there was a state file.
pub fn clean_up_after(state_dir: &StateDir, name: &str, command: Option<&str>) -> Result<bool> {
    let left = match state_dir.document() {
        Ok(Some(document)) => document,
        Ok(None) => return Ok(false),
        // The file is damaged, for example because /run was full. The name is enough to clean up.
        Err(_) => Document::new(name)?,
    };
    if let Some(pid1) = open_own_pid1(&left)? {
        ending::end_pid1(&left, pid1)?;
    }
    clean_up(command, &left)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn plain_words_are_executed_without_a_shell() {
        let words = |line: &str| {
            let command = parse(line);
            let arguments = command.get_args().map(|word| word.to_str().unwrap());
            let program = command.get_program().to_str().unwrap();
            std::iter::once(program)
                .chain(arguments)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words("ob-cable --undo"), ["ob-cable", "--undo"]);
        assert_eq!(words(" /my/undo  a.b "), ["/my/undo", "a.b"]);
        for line in [
            "ob-cable --undo | ob-mount --undo",
            "a $B",
            "a 'b'",
            "a;",
            "a\n",
            "a\tb",
            ":",
            "",
        ] {
            assert_eq!(words(line), ["/bin/sh", "-c", line]);
        }
    }
}
