//! The dry run: what the stage would do, as commands.

use crate::layers::Layers;
use crate::share::Share;
use crate::{furnish, pairs, readonly};
use anyhow::{Context, Result};
use ob_conf::Document;
use ob_conf::protect::ReadOnly;
use ob_conf::steps::{command, hook, word};
use ob_conf::userns::Wish;
use std::path::Path;

/// Checks what can be checked, and tells of each mount with what is needed for it. Notes the root as it would be.
pub fn describe(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    let layers = Layers::plan(document)?;
    let read_only = ReadOnly::of(document)?;
    layers.claims(document)?;
    let live = document.text("LIVE")?.to_owned();
    let upper = document.text("UPPER")?.to_owned();
    let wish = Wish::of(document)?;

    if layers.are_mounted_here() {
        if let Some(hook) = hook(document, "PREMOUNT", &[&upper])? {
            steps.push(hook);
        } else if read_only != ReadOnly::Volatile && !readonly::is_prepared(Path::new(&upper)) {
            let cables = format!("CABLES={}", vec!["="; pairs(document)].join(" "));
            steps.push(command(["env", &cables, "ob-mount", "--prepare", &upper]));
        }
    }
    if wish != Wish::No {
        let range = match wish {
            Wish::Range(ids) => ids.to_string(),
            _ => "a free range of 65536".to_owned(),
        };
        steps.push(format!(
            "# for USERNS the layers are mapped to {range}, which mount(8) cannot do for an overlay"
        ));
    }
    match &layers {
        Layers::There => {}
        Layers::Bind { source } => {
            steps.push(command(["mount", "--bind", text(source)?, &live]));
        }
        Layers::Overlay { lower, upper, work } => {
            let options = options(text(lower)?, text(upper)?, text(work)?);
            steps.push(overlay(document.name(), &options, &live));
        }
    }
    if read_only == ReadOnly::Volatile {
        forget(document, &live, steps);
    }
    match hook(document, "POSTMOUNT", &[&live, &upper])? {
        Some(hook) => steps.push(hook),
        None => furnish::describe(
            Path::new(&live),
            document.optional("RAM_SIZE").unwrap_or("50M"),
            steps,
        ),
    }
    if hook(document, "INIT", &[])?.is_some() {
        steps.push(format!(
            "[ -e {path} ] || cp \"$(command -v ob-reaper)\" {path}",
            path = word(&format!("{live}/.reaper"))
        ));
    }
    let lower = document.path("LOWER").ok();
    for share in document.list("SHARE")? {
        Share::parse(share)?.describe(&live, lower, steps);
    }
    for share in document.list("SHARE_RO")? {
        Share::parse_read_only(share)?.describe(&live, lower, steps);
    }
    if read_only == ReadOnly::Yes {
        if !layers.are_mounted_here() {
            steps.push(command(["mount", "--rbind", &live, &live]));
        }
        steps.push(command(["mount", "-o", "remount,bind,ro", &live]));
    }
    document.set("root", live);
    Ok(())
}

/// The layer in memory: for a moment it lies on LIVE, and what was there is reached by a descriptor.
fn forget(document: &Document, live: &str, steps: &mut Vec<String>) {
    let (upper, work) = (format!("{live}/upper"), format!("{live}/work"));
    steps.push(format!("exec 8<{}", word(live)));
    steps.push(command([
        "mount", "-t", "tmpfs", "-o", "mode=700", "volatile", live,
    ]));
    steps.push(command(["mkdir", "-m", "755", &upper, &work]));
    let options = options("/proc/self/fd/8", &upper, &work);
    steps.push(overlay(document.name(), &options, live));
}

fn overlay(name: &str, options: &str, live: &str) -> String {
    command(["mount", "-t", "overlay", name, "-o", options, live])
}

/// The kernel's own way to write such paths.
fn options(lower: &str, upper: &str, work: &str) -> String {
    let escape = |path: &str| {
        let path = path.replace('\\', r"\\");
        path.replace(':', r"\:").replace(',', r"\,")
    };
    let (lower, upper, work) = (escape(lower), escape(upper), escape(work));
    format!("lowerdir={lower},upperdir={upper},workdir={work}")
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}
