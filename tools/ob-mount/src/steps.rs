//! The dry run: what the stage would do, as commands.

use crate::layers::Layers;
use crate::unmount::FACTS;
use crate::{alive, furnish, pairs, readonly, shares};
use anyhow::{Context, Result};
use ob_conf::conf::Conf;
use ob_confine::protect::ReadOnly;
use ob_confine::userns::UsernsSetting;
use ob_document::Document;
use ob_document::steps::{command, hook, leave_to, word};
use std::path::Path;

/// Checks what can be checked, and tells of each mount with what is needed for it. Notes the root as it would be.
pub fn describe(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    document.forget(FACTS);
    let commands = commands(document);
    let wish = UsernsSetting::of(document)?;
    if wish == UsernsSetting::No {
        if !commands.is_empty() {
            let conf = word(document.text("CONFIG")?);
            steps.push(format!(
                "ACTION=overlay-boot ob-conf {conf} >/dev/null # runs the commands of {}",
                commands.join(" ")
            ));
        }
        return mounts(document, &commands, steps);
    }
    let mut told = Vec::new();
    mounts(document, &commands, &mut told)?;
    leave_to("ob-mount", document, &told, steps)
}

/// The variables that commands of the configuration give a value to: they may mount what it names.
fn commands(document: &Document) -> Vec<String> {
    let conf = document.path("CONFIG").and_then(Conf::read);
    let Ok(conf) = conf else {
        return Vec::new();
    };
    let mut names: Vec<String> = Vec::new();
    for assignment in conf.assignments() {
        if assignment.command().is_some() && !names.iter().any(|name| name == assignment.name) {
            names.push(assignment.name.to_owned());
        }
    }
    names
}

/// The layers; as the plan has them, where a command will only mount them.
fn layers(document: &Document, commands: &[String]) -> Result<Layers> {
    let planned = Layers::plan(document).and_then(|(layers, claims)| {
        let _marks = claims.lock(false)?;
        alive::ensure_ended(&claims, document.path("LOWER")?)?;
        Ok(layers)
    });
    let path = |variable| document.path(variable).map(Path::to_owned);
    let unseen = ["LOWER", "UPPER", "WORK"].iter().any(|layer| {
        commands.iter().any(|name| name == layer) && path(layer).is_ok_and(|path| !path.exists())
    });
    if !unseen || planned.is_ok() {
        return planned;
    }
    let (lower, upper) = (path("LOWER")?, path("UPPER")?);
    if lower == upper {
        return Ok(Layers::Bind { source: upper });
    }
    let work = path("WORK")?;
    Ok(Layers::Overlay { lower, upper, work })
}

/// The mounts, one by one.
fn mounts(document: &mut Document, commands: &[String], steps: &mut Vec<String>) -> Result<()> {
    let layers = layers(document, commands)?;
    let read_only = ReadOnly::of(document)?;
    let live = document.text("LIVE")?.to_owned();
    let upper = document.text("UPPER")?.to_owned();
    let wish = UsernsSetting::of(document)?;

    steps.extend(ob_document::closed(Path::new(&upper)).map(|closed| format!("# {closed}")));
    if layers.are_mounted_here() {
        if let Some(hook) = hook(document, "PREMOUNT", &[&upper])? {
            steps.push(hook);
        } else if read_only != ReadOnly::Volatile && !readonly::is_prepared(Path::new(&upper)) {
            let cables = format!("CABLES={}", vec!["="; pairs(document)].join(" "));
            steps.push(command(["env", &cables, "ob-mount", "--prepare", &upper]));
        }
    }
    match wish {
        UsernsSetting::No => {}
        UsernsSetting::Auto => {
            steps.push("the layers are mapped to a free range of ids".to_owned());
        }
        UsernsSetting::Range(ids) => steps.push(format!("the layers are mapped to the ids {ids}")),
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
    for (_, share) in shares(document)? {
        share.describe(&live, lower, steps);
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
