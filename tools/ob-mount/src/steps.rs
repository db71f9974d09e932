//! The dry run: the commands that do what the stage does.

use crate::contents::RAM_SIZE;
use crate::layers::Layers;
use crate::overlay::ensure_can_mount;
use crate::prepare::{count_pairs, is_prepared};
use crate::unmount::FACTS;
use crate::{alive, api_fs, shares};
use anyhow::{Context, Result};
use ob_conf::conf::Conf;
use ob_confine::protect::ReadOnly;
use ob_confine::userns::UsernsSetting;
use ob_document::Document;
use ob_document::steps::{command, hook, input, leave_to, word};
use std::path::{Path, PathBuf};

/// Checks the plan, and appends the commands of each mount to `steps`. Notes the root in the
/// document.
pub fn describe(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    // The checks mount as well, in a private mount namespace.
    ensure_can_mount()?;
    document.forget(FACTS);
    let commands = set_by_commands(document);
    let is_mapped = UsernsSetting::of(document)? != UsernsSetting::No;
    if !is_mapped && !meets_links(document)? {
        if !commands.is_empty() {
            let conf = word(document.text("CONFIG")?);
            steps.push(format!(
                "ACTION=overlay-boot ob-conf {conf} >/dev/null # runs the commands of {}",
                commands.join(" ")
            ));
        }
        return describe_mounts(document, &commands, steps);
    }
    // No command makes idmapped mounts, or follows links inside the root, so the commands become
    // comments of the stage.
    let mut comments = Vec::new();
    describe_mounts(document, &commands, &mut comments)?;
    if is_mapped {
        return leave_to("ob-mount", document, &comments, steps);
    }
    // The steps of the other stages are commands, which read no facts.
    let comments = comments.iter().map(|text| text.trim_start_matches("# "));
    steps.extend(comments.map(|text| format!("# ob-mount: {text}")));
    steps.push(format!("{} | ob-mount >/dev/null", input(document, steps)?));
    Ok(())
}

/// Whether a mount point may lie behind a symbolic link of UPPER or LOWER. mount(8) would follow
/// the link to a directory of the host.
fn meets_links(document: &Document) -> Result<bool> {
    let mut points: Vec<PathBuf> = ["dev", "run", "proc", "sys", "etc/adjtime"]
        .map(PathBuf::from)
        .into();
    for (_, share) in shares::parse(document)? {
        points.push(share.plain_inside().strip_prefix("/")?.to_owned());
    }
    let layers = [document.path("UPPER")?, document.path("LOWER")?];
    let is_link = |path: &Path| {
        layers
            .iter()
            .any(|layer| !path.as_os_str().is_empty() && layer.join(path).is_symlink())
    };
    Ok(points.iter().any(|point| point.ancestors().any(is_link)))
}

/// Returns the variables whose values commands in the configuration print. Such a command may mount
/// the directory that it prints.
fn set_by_commands(document: &Document) -> Vec<String> {
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

/// Chooses the layers. If a directory is missing that a command of the configuration will mount,
/// returns the layers of the plan unchecked.
fn plan_layers(document: &Document, commands: &[String]) -> Result<Layers> {
    let planned = Layers::plan(document).and_then(|(layers, claims)| {
        let _marks = claims.lock(false)?;
        alive::ensure_ended(&claims, document.path("LOWER")?)?;
        Ok(layers)
    });
    let path = |variable| document.path(variable).map(Path::to_owned);
    let is_missing = ["LOWER", "UPPER", "WORK"].iter().any(|layer| {
        commands.iter().any(|name| name == layer) && path(layer).is_ok_and(|path| !path.exists())
    });
    if !is_missing || planned.is_ok() {
        return planned;
    }
    let (lower, upper) = (path("LOWER")?, path("UPPER")?);
    if lower == upper {
        return Ok(Layers::Bind { source: upper });
    }
    let work = path("WORK")?;
    Ok(Layers::Overlay { lower, upper, work })
}

/// Appends the commands in the order in which the stage does its work.
fn describe_mounts(
    document: &mut Document,
    commands: &[String],
    steps: &mut Vec<String>,
) -> Result<()> {
    let layers = plan_layers(document, commands)?;
    let read_only = ReadOnly::of(document)?;
    let live = document.text("LIVE")?.to_owned();
    let upper = document.path("UPPER")?;
    steps.extend(ob_document::closed(upper).map(|closed| format!("# {closed}")));

    if layers.needs_mount() {
        let upper = document.text("UPPER")?;
        if let Some(hook) = hook(document, "PREMOUNT", &[upper])? {
            steps.push(hook);
        } else if read_only != ReadOnly::Volatile {
            describe_prepare(document, upper, steps)?;
        }
    }
    describe_root(document, &layers, &live, steps)?;
    if read_only == ReadOnly::Volatile {
        describe_volatile(document, &live, steps)?;
    }
    describe_contents(document, &live, steps)?;
    if read_only == ReadOnly::Yes {
        if !layers.needs_mount() {
            steps.push(command(["mount", "--rbind", &live, &live]));
        }
        steps.push(command(["mount", "-o", "remount,bind,ro", &live]));
    }
    document.set("root", live);
    Ok(())
}

/// Appends the command that writes etc/network/interfaces in `directory`, unless UPPER has it.
fn describe_prepare(document: &Document, directory: &str, steps: &mut Vec<String>) -> Result<()> {
    if !is_prepared(document.path("UPPER")?) {
        let pairs = count_pairs(document.list("CABLES")?);
        let cables = format!("CABLES={}", vec!["="; pairs].join(" "));
        steps.push(command([
            "env",
            &cables,
            "ob-mount",
            "--prepare",
            directory,
        ]));
    }
    Ok(())
}

fn describe_root(
    document: &Document,
    layers: &Layers,
    live: &str,
    steps: &mut Vec<String>,
) -> Result<()> {
    match UsernsSetting::of(document)? {
        UsernsSetting::No => {}
        UsernsSetting::Auto => {
            steps.push("the layers are mapped to a free range of ids".to_owned());
        }
        UsernsSetting::Range(ids) => steps.push(format!("the layers are mapped to the ids {ids}")),
    }
    match layers {
        Layers::Existing => {}
        Layers::Bind { source } => {
            steps.push(command(["mount", "--bind", text(source)?, live]));
        }
        Layers::Overlay { lower, upper, work } => {
            let options = options(text(lower)?, text(upper)?, text(work)?);
            steps.push(overlay(document.name(), &options, live));
        }
    }
    Ok(())
}

/// READONLY=volatile: while the tmpfs with the upper layer covers LIVE, descriptor 8 leads to the
/// root below.
fn describe_volatile(document: &Document, live: &str, steps: &mut Vec<String>) -> Result<()> {
    const BELOW: &str = "/proc/self/fd/8";
    let (upper, work) = (format!("{live}/upper"), format!("{live}/work"));
    steps.push(format!("exec 8<{}", word(live)));
    steps.push(command([
        "mount", "-t", "tmpfs", "-o", "mode=700", "volatile", live,
    ]));
    steps.push(format!(
        "mkdir -m \"$(stat -Lc %a {BELOW})\" {}",
        word(&upper)
    ));
    steps.push(command(["mkdir", "-m", "700", &work]));
    if !document.has("PREMOUNT") {
        describe_prepare(document, &upper, steps)?;
    }
    let options = options(BELOW, &upper, &work);
    steps.push(overlay(document.name(), &options, live));
    Ok(())
}

fn describe_contents(document: &Document, live: &str, steps: &mut Vec<String>) -> Result<()> {
    match hook(document, "POSTMOUNT", &[live, document.text("UPPER")?])? {
        Some(hook) => steps.push(hook),
        None => {
            let size = document.optional("RAM_SIZE").unwrap_or(RAM_SIZE);
            api_fs::describe(Path::new(live), size, steps);
        }
    }
    if hook(document, "INIT", &[])?.is_some() {
        steps.push(format!(
            "[ -e {path} ] || cp \"$(command -v ob-reaper)\" {path}",
            path = word(&format!("{live}/.reaper"))
        ));
    }
    let lower = document.path("LOWER").ok();
    for (_, share) in shares::parse(document)? {
        share.describe(live, lower, steps);
    }
    Ok(())
}

fn overlay(name: &str, options: &str, live: &str) -> String {
    command(["mount", "-t", "overlay", name, "-o", options, live])
}

/// Returns the options of an overlay, with a backslash before each character that has a meaning to
/// overlayfs in a path.
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
