//! The steps of a dry run: the commands that do by hand the same as a stage.

use crate::filter::{read, send};
use crate::{Document, Hook, STEPS, quote};
use anyhow::{Context, Result};
use std::process::ExitCode;

/// Reads a document, calls `describe` to run the checks of the stage and to add its steps, and
/// prints the document with them.
///
/// An error is returned and not logged: a dry run must not change the log of a subhost that runs.
pub fn plan(
    describe: impl FnOnce(&mut Document, &mut Vec<String>) -> Result<()>,
) -> Result<ExitCode> {
    let mut document = Document::parse(&read()?)?;
    let steps = document.list(STEPS)?;
    let mut steps: Vec<String> = steps.into_iter().map(str::to_owned).collect();
    let name = document.name().to_owned();
    describe(&mut document, &mut steps).context(name)?;
    // A shell comment ends at a newline: the text after a newline in a path would be a command.
    for remark in steps.iter_mut().filter(|step| step.starts_with('#')) {
        *remark = remark.replace(['\n', '\r'], "?");
    }
    document.set(STEPS, steps);
    send(&document)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a command line of these words, quoted for a shell where necessary.
#[must_use]
pub fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(word).collect();
    words.join(" ")
}

/// Returns `text` as one word of a command line, quoted where necessary.
#[must_use]
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@%^".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        quote(text)
    }
}

/// Returns the step that runs the hook of `variable`; `None` if that is not set.
///
/// The step runs in BASE, with the plan in the environment. Only the wildcards of the hook stay
/// unquoted, so the shell expands them. Fails if the hook is not an executable file.
pub fn hook(document: &Document, variable: &str, arguments: &[&str]) -> Result<Option<String>> {
    let Some(words) = document.optional(variable) else {
        return Ok(None);
    };
    if let Some(hook) = Hook::of(document, variable) {
        hook.check().context(variable.to_owned())?;
    }
    let expanded = |part: &str| {
        let kept = |c: char| word(&c.to_string()).len() == 1 || "*?[]".contains(c);
        if part.chars().all(kept) {
            part.to_owned()
        } else {
            quote(part)
        }
    };
    let words = words.split_whitespace().map(expanded);
    let words: Vec<String> = words.chain(arguments.iter().copied().map(word)).collect();
    Ok(Some(format!(
        "(cd {} && ob-conf {} -- env ACTION=overlay-boot UNSHARED=yes {})",
        word(document.text("BASE")?),
        word(document.text("CONFIG")?),
        words.join(" "),
    )))
}

/// Adds `stage` itself as a step, for actions that no command of the host performs. Adds each of
/// `actions` as a comment before it.
///
/// The step reads the output of the step before it from `$document`, see [`input`].
pub fn leave_to(
    stage: &str,
    document: &Document,
    actions: &[String],
    steps: &mut Vec<String>,
) -> Result<()> {
    for action in actions {
        let action = action.strip_prefix("# ").unwrap_or(action);
        steps.push(format!("# {stage}: {action}"));
    }
    let input = input(document, steps)?;
    steps.push(format!("document=$({input} | {stage})"));
    Ok(())
}

/// Returns the command that prints the input of a step: `$document` if a step before it has set
/// that variable, else a new document from CONFIG.
pub fn input(document: &Document, steps: &[String]) -> Result<String> {
    if steps.iter().any(|step| step.starts_with("document=")) {
        return Ok("printf '%s\\n' \"$document\"".to_owned());
    }
    let conf = word(document.text("CONFIG")?);
    Ok(format!("ACTION=overlay-boot ob-conf {conf}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_when_needed() {
        assert_eq!(command(["ls", "/a b", "", "$x"]), "ls '/a b' '' '$x'");
    }

    #[test]
    fn hook_in_a_step_keeps_only_its_wildcards() {
        let mut document = Document::new("a").unwrap();
        document.set("BASE", "/");
        document.set("CONFIG", "/a.conf");
        document.set("INIT", "/bin/ec* $(x) y");
        assert_eq!(
            hook(&document, "INIT", &[]).unwrap().unwrap(),
            "(cd / && ob-conf /a.conf -- env ACTION=overlay-boot UNSHARED=yes /bin/ec* '$(x)' y)"
        );
    }
}
