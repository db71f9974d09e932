//! The dry run: what the stage would do, as commands.

use crate::facts::require_network;
use crate::init::{REAPER_FD, stop_timeout};
use crate::supervise::PATH;
use anyhow::{Result, bail, ensure};
use ob_confine::cgroup_limits;
use ob_confine::protect::{Protection, Seccomp};
use ob_confine::userns::{IdRange, UsernsSetting};
use ob_document::Document;
use ob_document::state::StateDir;
use ob_document::steps::{command, hook, input, word};
use ob_shutdown::FACTS;
use std::path::Path;

/// Checks what can be checked, and tells how pid 1 would be started. Where there is no command for it, that is told as a remark, and
/// the stage itself is the command.
pub fn describe(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    document.forget(FACTS);
    let name = document.name().to_owned();
    let home = StateDir::of(&name);
    if home.is_locked() {
        bail!("{}", home.in_use_message());
    }
    let root = document.path("root")?;
    ensure!(root.is_dir(), "{} is not a directory", root.display());
    require_network(document)?;
    let remarks = remarks(document)?;
    let given = steps.iter().any(|step| step.starts_with("document="));
    if given || !remarks.is_empty() {
        let mut told = Vec::new();
        group(document, &name, &mut told)?;
        told.extend(remarks);
        return by_ourselves(document, given, &told, steps);
    }
    group(document, &name, steps)?;

    let text = match hook(document, "INIT", &[])? {
        Some(hook) => hook,
        None => command([
            "env",
            &format!("NAME={name}"),
            &format!("START={}", document.list("START")?.join(" ")),
            &format!("STOP_TIMEOUT={}", stop_timeout(document)),
            "ob-unshare",
            "--init",
        ]),
    };
    let mut namespaces = vec!["unshare"];
    let net = document.optional("net").map(|net| format!("--net={net}"));
    if let Some(net) = &net {
        namespaces = vec!["nsenter", net, "unshare"];
    }
    namespaces.extend("--pid --fork --ipc --uts --time --mount --propagation private".split(' '));
    let environment = protection(document)?.environment;
    let environment = environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let mut clean = vec![
        "env".to_owned(),
        "-i".to_owned(),
        format!("PATH={PATH}"),
        "HOME=/root".to_owned(),
        "container=overlay-boot".to_owned(),
        format!("NAME={name}"),
    ];
    clean.extend(environment);
    // The shell that pivots is the host's; the one that it becomes is the subhost's own.
    let pivot = "cd \"$0\" && mount -t proc -o nosuid,nodev,noexec proc proc && \
                 { mount -t sysfs -o nosuid,nodev,noexec sysfs sys || :; } && \
                 pivot_root . . && umount -l . && cd / && exec \"$@\"";
    steps.push(format!(
        "{} sh -c {} {} {} /bin/sh -c \"$({text})\" {REAPER_FD}<\"$(command -v ob-reaper)\"",
        command(namespaces),
        word(pivot),
        word(document.text("root")?),
        command(clean.iter().map(String::as_str)),
    ));
    Ok(())
}

/// Where no command does it all: the stage itself, on the document as the others have left it, or as their commands have made it so.
fn by_ourselves(
    document: &Document,
    given: bool,
    told: &[String],
    steps: &mut Vec<String>,
) -> Result<()> {
    let told = told
        .iter()
        .map(|step| step.strip_prefix("# ").unwrap_or(step));
    steps.extend(told.map(|step| format!("# ob-unshare: {step}")));
    let mut line = input(document, steps)?;
    if !given {
        let root = format!("root={}", document.text("root")?);
        let net = document.optional("net").map(|net| format!("net={net}"));
        let facts = ["ob-conf", "-", &root].into_iter().chain(net.as_deref());
        line = format!("{line} | {}", command(facts));
    }
    steps.push(format!("{line} | ob-unshare"));
    Ok(())
}

/// The control group, where the shell that starts pid 1 then is, too.
fn group(document: &Document, name: &str, steps: &mut Vec<String>) -> Result<()> {
    let limits = cgroup_limits::of(document)?;
    let Some(tree) = crate::cgroup_parent::tree() else {
        if let Some((limit, _)) = limits.first() {
            bail!("{}: the host has no cgroup2 tree", limit.name);
        }
        return Ok(());
    };
    if !limits.is_empty() && Path::new("/run/systemd/system").exists() {
        steps.push(
            "# the group is made where systemd lets it be: in a scope, or a delegated unit"
                .to_owned(),
        );
    }
    if !limits.is_empty() {
        crate::cgroup_parent::require(&tree, &limits)?;
    }
    let tree = tree.display();
    let group = format!("{tree}/{name}");
    for (limit, _) in &limits {
        steps.push(format!(
            "echo +{} >{tree}/cgroup.subtree_control",
            limit.controller
        ));
    }
    steps.push(command(["mkdir", &group]));
    for (limit, value) in &limits {
        steps.push(format!(
            "echo {} >{}",
            word(value),
            word(&format!("{group}/{}", limit.file))
        ));
    }
    steps.push(format!(
        "echo $$ >{}",
        word(&format!("{group}/cgroup.procs"))
    ));
    Ok(())
}

/// The protection as it would be: with a user namespace where the plan asks for one.
fn protection(document: &Document) -> Result<Protection> {
    Protection::of(document, UsernsSetting::of(document)? != UsernsSetting::No)
}

/// What pid 1 gets that no command does.
fn remarks(document: &Document) -> Result<Vec<String>> {
    let protection = protection(document)?;
    let mut remarks = Vec::new();
    match IdRange::of(document)?.map_or(UsernsSetting::of(document)?, UsernsSetting::Range) {
        UsernsSetting::No => {}
        UsernsSetting::Auto => remarks.push("a user namespace of a free range of ids".to_owned()),
        UsernsSetting::Range(ids) => remarks.push(format!("a user namespace of the ids {ids}")),
    }
    if protection.capabilities.is_some() {
        remarks.push("fewer capabilities".to_owned());
    }
    match &protection.seccomp {
        Seccomp::None => {}
        Seccomp::Default => remarks.push("the default filter of system calls".to_owned()),
        Seccomp::Profile(path) => remarks.push(format!("the filter {}", path.display())),
    }
    if protection.no_new_privs {
        remarks.push("no new privileges".to_owned());
    }
    if !protection.limits.is_empty() {
        remarks.push("the limits of RLIMITS".to_owned());
    }
    if let Some(hostname) = &protection.hostname {
        remarks.push(format!("the host name {hostname}"));
    }
    let covered = protection.masks.iter().chain(&protection.read_only);
    let covered: Vec<String> = covered.map(|path| path.display().to_string()).collect();
    if !covered.is_empty() {
        remarks.push(format!("these covered or read-only: {}", covered.join(" ")));
    }
    if protection.no_devices {
        remarks.push("a root in which no device opens".to_owned());
    }
    let told = remarks
        .iter()
        .map(|remark| format!("pid 1 also gets {remark}"));
    Ok(told.collect())
}
