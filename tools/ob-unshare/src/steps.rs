//! The dry run: prints what the stage would do, as shell commands.

use crate::cgroup_parent::no_tree;
use crate::environment::{PASSED, variables};
use crate::facts::require_network;
use crate::init::{REAPER_FD, stop_timeout};
use anyhow::{Result, bail, ensure};
use ob_confine::cgroup_limits;
use ob_confine::protect::{Protection, Seccomp};
use ob_confine::userns::{IdRange, UsernsSetting};
use ob_document::Document;
use ob_document::state::StateDir;
use ob_document::steps::{command, hook, input, word};
use ob_shutdown::FACTS;
use std::path::Path;

/// The script of the shell that starts pid 1. It is executed on the host; pid 1 executes a program
/// of the subhost.
const PIVOT: &str = "cd \"$0\" && mount -t proc -o nosuid,nodev,noexec proc proc && \
                     { mount -t sysfs -o nosuid,nodev,noexec sysfs sys || :; } && \
                     pivot_root . . && umount -l . && cd / && exec \"$@\"";

/// Makes all checks that change nothing, and adds the commands that start pid 1 to `steps`.
///
/// If no command has the same effect, the step is this stage, after a comment.
pub fn describe(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    document.forget(FACTS);
    let state_dir = StateDir::of(document.name());
    if state_dir.is_locked() {
        bail!("{}", state_dir.in_use_message());
    }
    let root = document.path("root")?;
    ensure!(root.is_dir(), "{} is not a directory", root.display());
    require_network(document)?;
    let remarks = remarks(document)?;
    let is_given = steps.iter().any(|step| step.starts_with("document="));
    if is_given || !remarks.is_empty() {
        let mut comments = Vec::new();
        group(document, &mut comments)?;
        comments.extend(remarks);
        return add_stage(document, is_given, &comments, steps);
    }
    group(document, steps)?;
    steps.push(pid1(document)?);
    Ok(())
}

/// Returns the command that starts pid 1.
fn pid1(document: &Document) -> Result<String> {
    let mut namespaces = vec!["unshare"];
    let net = document.optional("net").map(|net| format!("--net={net}"));
    if let Some(net) = &net {
        namespaces = vec!["nsenter", net, "unshare"];
    }
    namespaces.extend("--pid --fork --ipc --uts --time --mount --propagation private".split(' '));
    Ok(format!(
        // A blank before the script: sh reads "$((" as the start of an arithmetic expansion.
        "{} sh -c {} {} {} /bin/sh -c \"$( {} )\" {REAPER_FD}<\"$(command -v ob-reaper)\"",
        command(namespaces),
        word(PIVOT),
        word(document.text("root")?),
        environment(document)?,
        script(document)?,
    ))
}

/// Returns the command that prints the script of pid 1.
fn script(document: &Document) -> Result<String> {
    if let Some(hook) = hook(document, "INIT", &[])? {
        return Ok(hook);
    }
    Ok(command([
        "env",
        &format!("NAME={}", document.name()),
        &format!("START={}", document.list("START")?.join(" ")),
        &format!("STOP_TIMEOUT={}", stop_timeout(document)),
        "ob-unshare",
        "--init",
    ]))
}

/// Returns the words of env(1) with the environment of pid 1. The shell that runs the step is the
/// caller.
fn environment(document: &Document) -> Result<String> {
    let mut words = vec!["env".to_owned(), "-i".to_owned()];
    let common = variables(document, &format!("/proc/self/fd/{REAPER_FD}"));
    words.extend(common.iter().map(|variable| word(variable)));
    words.extend(PASSED.map(|name| format!("${{{name}+\"{name}=${name}\"}}")));
    // The last assignment to a variable counts.
    let set = protection(document)?.environment;
    let set = set
        .iter()
        .map(|(name, value)| word(&format!("{name}={value}")));
    words.extend(set);
    Ok(words.join(" "))
}

/// Adds the step that runs this stage, on the document of the earlier stages or of their commands.
fn add_stage(
    document: &Document,
    is_given: bool,
    comments: &[String],
    steps: &mut Vec<String>,
) -> Result<()> {
    let comments = comments
        .iter()
        .map(|step| step.strip_prefix("# ").unwrap_or(step));
    steps.extend(comments.map(|step| format!("# ob-unshare: {step}")));
    let mut line = input(document, steps)?;
    if !is_given {
        let root = format!("root={}", document.text("root")?);
        let net = document.optional("net").map(|net| format!("net={net}"));
        let facts = ["ob-conf", "-", &root].into_iter().chain(net.as_deref());
        line = format!("{line} | {}", command(facts));
    }
    steps.push(format!("{line} | ob-unshare"));
    Ok(())
}

/// Adds the commands that create the control group and move the shell into it.
fn group(document: &Document, steps: &mut Vec<String>) -> Result<()> {
    let limits = cgroup_limits::of(document)?;
    let Some(tree) = crate::cgroup_parent::tree() else {
        if let Some((limit, _)) = limits.first() {
            return Err(no_tree(limit));
        }
        return Ok(());
    };
    if !limits.is_empty() {
        if Path::new("/run/systemd/system").exists() {
            steps.push(
                "# under systemd the control group is in a scope, or in a delegated unit"
                    .to_owned(),
            );
        }
        crate::cgroup_parent::require(&tree, &limits)?;
    }
    let tree = tree.display();
    let group = format!("{tree}/{}", document.name());
    let quoted = |file: &str| word(&format!("{group}/{file}"));
    let enable = |controller: &str| format!("echo +{controller} >{tree}/cgroup.subtree_control");
    steps.extend(limits.iter().map(|(limit, _)| enable(limit.controller)));
    steps.push(command(["mkdir", &group]));
    let set = limits.iter();
    steps.extend(set.map(|(limit, value)| format!("echo {} >{}", word(value), quoted(limit.file))));
    steps.push(format!("echo $$ >{}", quoted("cgroup.procs")));
    Ok(())
}

/// Returns the protection of the plan, with a user namespace if the plan has one.
fn protection(document: &Document) -> Result<Protection> {
    Protection::of(document, UsernsSetting::of(document)? != UsernsSetting::No)
}

/// Returns comments about the protection that no command can set.
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
    if !protection.rlimits.is_empty() {
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
    let comments = remarks
        .iter()
        .map(|remark| format!("pid 1 also gets {remark}"));
    Ok(comments.collect())
}
