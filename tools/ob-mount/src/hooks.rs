//! The hooks PREMOUNT and POSTMOUNT.

use anyhow::{Context, Result};
use ob_confine::userns::IdRange;
use ob_document::{Document, Hook, log};
use ob_sys::process::set_cloexec_from;
use std::path::Path;
use std::process::Stdio;

/// Fails if a hook of the plan is not an executable file.
pub fn check(document: &Document) -> Result<()> {
    for name in ["PREMOUNT", "POSTMOUNT", "INIT"] {
        if let Some(hook) = Hook::of(document, name) {
            hook.check().context(name)?;
        }
    }
    Ok(())
}

/// Runs a hook with its output in the log. Warns if its exit status is not 0: the boot continues,
/// since existing hooks end in a test that may fail.
pub fn run(
    document: &Document,
    hook: &Hook,
    name: &str,
    arguments: &[&Path],
    warn: impl Fn(&str),
) -> Result<()> {
    let log = log::open(document.path("LOG")?)?;
    set_cloexec_from(3)?;
    let mut hook = hook.with_plan(document, arguments);
    if let Some(ids) = IdRange::of(document)? {
        hook.env("USERNS", ids.to_string()); // the plan may only have "auto"
    }
    let status = hook
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .status()
        .with_context(|| format!("run {name}"))?;
    if !status.success() {
        warn(&format!("{name} ended with {status}"));
    }
    Ok(())
}
