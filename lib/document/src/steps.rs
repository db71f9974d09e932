//! The dry run: what a stage would do, as commands that can be typed.

use crate::filter::{read, send};
use crate::{Document, Hook, quote};
use anyhow::{Context, Result};
use std::process::ExitCode;

/// The fact that marks a document as one of a dry run: nothing of what it says has been made.
pub const FACT: &str = "steps";

/// Reads a document, has `describe` check what can be checked and tell what it would do, and prints the document with that
/// added to its `steps`. A failure is told on stderr alone: the log is the subhost's.
pub fn plan(
    describe: impl FnOnce(&mut Document, &mut Vec<String>) -> Result<()>,
) -> Result<ExitCode> {
    let mut document = Document::parse(&read()?)?;
    let steps = document.list(FACT)?;
    let mut steps: Vec<String> = steps.into_iter().map(str::to_owned).collect();
    let name = document.name().to_owned();
    describe(&mut document, &mut steps).context(name)?;
    // A remark ends with its line: the text after a line break in a path would be a command.
    for remark in steps.iter_mut().filter(|step| step.starts_with('#')) {
        *remark = remark.replace(['\n', '\r'], "?");
    }
    document.set(FACT, steps);
    send(&document)?;
    Ok(ExitCode::SUCCESS)
}

/// A command line of these words, each quoted where it has to be.
#[must_use]
pub fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(word).collect();
    words.join(" ")
}

/// One word of a command line.
#[must_use]
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@%^".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        quote(text)
    }
}

/// The step that runs the hook of `variable`, if the plan has one: in BASE, with the plan, its wildcards expanded.
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

/// For what no command of the host's does: `stage` itself becomes the step, on the document that the stage before it has left in
/// `$document`, else on a new one; what it does, `told`, are remarks.
pub fn leave_to(
    stage: &str,
    document: &Document,
    told: &[String],
    steps: &mut Vec<String>,
) -> Result<()> {
    for step in told {
        let step = step.strip_prefix("# ").unwrap_or(step);
        steps.push(format!("# {stage}: {step}"));
    }
    let input = input(document, steps)?;
    steps.push(format!("document=$({input} | {stage})"));
    Ok(())
}

/// What prints the document that a step is to begin with.
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
