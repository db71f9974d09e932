//! Finds the parent of the control group of a subhost, and sets the limits of the group.

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use ob_confine::cgroup_limits::Limit;
use ob_sys::file::get_xattr;
use std::fs::{File, read_link};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a cgroup2 tree is mounted: alone, or beside version 1. To read the table of mounts instead
/// would take longer with every subhost that runs.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Limits, with the value to write to the file of each.
pub type Limits = Vec<(&'static Limit, String)>;

/// The child group for the supervisor and other processes of a unit: a group that enables
/// controllers for its children must not have processes, see "no internal processes" in cgroups(7).
const SUPERVISOR_GROUP: &str = "supervisor";

/// Returns the group in which the group of the subhost will be created, and enables the controllers
/// of its limits.
///
/// systemd owns the tree, except what it delegates, and may remove groups elsewhere. So under
/// systemd it is the unit of this process, if that has `Delegate=yes`, or a new scope, into which
/// the supervisor moves.
pub fn prepare_parent(tree: &Path, name: &str, limits: &Limits) -> Result<PathBuf> {
    require(tree, limits)?;
    let parent = if is_systemd_booted() {
        match delegated_unit(tree)? {
            Some(unit) => {
                move_to_leaf(&unit)?;
                unit
            }
            None => scope(tree, name).context("ask systemd for a scope")?,
        }
    } else {
        tree.to_owned()
    };
    let mut wanted: Vec<&str> = limits.iter().map(|(limit, _)| limit.controller).collect();
    wanted.dedup();
    let enabled = read(&parent.join("cgroup.subtree_control"))?;
    for controller in wanted {
        if !enabled.split_whitespace().any(|word| word == controller) {
            let path = parent.join("cgroup.subtree_control");
            std::fs::write(&path, format!("+{controller}"))
                .with_context(|| format!("write +{controller} to {}", path.display()))?;
        }
    }
    Ok(parent)
}

/// Returns the mount point of the cgroup2 tree, if the host has one.
pub fn tree() -> Option<PathBuf> {
    MOUNTS
        .iter()
        .find(|path| statfs(**path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC))
        .map(PathBuf::from)
}

/// Returns the error for a limit on a host without a cgroup2 tree.
pub fn no_tree(limit: &Limit) -> Error {
    let name = limit.name;
    let [alone, beside] = MOUNTS;
    anyhow!(
        "{name}: the host has no cgroup2 tree; mount one on {alone} or {beside}, or remove {name}"
    )
}

/// Sets the limits of `group`.
pub fn set(group: &Path, limits: &Limits) -> Result<()> {
    for (limit, value) in limits {
        let path = group.join(limit.file);
        ensure!(
            path.exists(),
            "{}: this kernel has no {} for control groups",
            limit.name,
            limit.file
        );
        std::fs::write(&path, value)
            .with_context(|| format!("{}: write {value} to {}", limit.name, path.display()))?;
    }
    Ok(())
}

/// Fails if the tree lacks the controller of a limit.
pub fn require(tree: &Path, limits: &Limits) -> Result<()> {
    let available = read(&tree.join("cgroup.controllers"))?;
    for (limit, _) in limits {
        if !available
            .split_whitespace()
            .any(|word| word == limit.controller)
        {
            let version_1 = Path::new("/sys/fs/cgroup").join(limit.controller).is_dir();
            let Limit {
                name, controller, ..
            } = limit;
            let remedy = if version_1 {
                format!(
                    ", which is in a tree of version 1 on this host; boot the host with \
                     cgroup_no_v1={controller}, or remove {name}"
                )
            } else {
                format!("; enable it in the kernel, or remove {name}")
            };
            bail!(
                "{name}: the cgroup2 tree at {} has no {controller} controller{remedy}",
                tree.display()
            );
        }
    }
    Ok(())
}

fn is_systemd_booted() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Returns the group of this process, if it is a unit with `Delegate=yes`; if this process is in
/// the child group of such a unit, the unit. A unit higher up belongs to another manager.
pub fn delegated_unit(tree: &Path) -> Result<Option<PathBuf>> {
    if !is_systemd_booted() {
        return Ok(None);
    }
    let own = group_of("self", tree)?;
    let own = if own.ends_with(SUPERVISOR_GROUP) {
        own.parent().unwrap_or(&own).to_owned()
    } else {
        own
    };
    // The name depends on the version of systemd.
    let mark = [c"user.delegate", c"trusted.delegate"];
    let is_delegated = mark
        .iter()
        .any(|mark| get_xattr(&own, mark).is_ok_and(|value| value == b"1"));
    Ok(is_delegated.then_some(own))
}

fn group_of(process: &str, tree: &Path) -> Result<PathBuf> {
    let table = read(&Path::new("/proc").join(process).join("cgroup"))?;
    let path = table.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(tree.join(path.context("the process is in no group of the cgroup2 tree")?))
}

/// Returns the `pids.max` whose limit is reached, of `group` or a group above it.
///
/// `None` for `group` is the group of this process.
pub fn reached_pids_max(group: Option<&File>) -> Option<PathBuf> {
    let group = match group {
        Some(group) => read_link(format!("/proc/self/fd/{}", group.as_raw_fd())).ok()?,
        None => group_of("self", &tree()?).ok()?,
    };
    let number = |path: PathBuf| read(&path).ok()?.trim().parse::<u64>().ok();
    let is_reached = |group: &&Path| {
        let current = number(group.join("pids.current"));
        let max = number(group.join("pids.max"));
        current
            .zip(max)
            .is_some_and(|(current, max)| current >= max)
    };
    let reached = group.ancestors().find(is_reached)?;
    Some(reached.join("pids.max"))
}

/// Moves all processes of the unit into its child group, so that the unit can enable controllers.
fn move_to_leaf(unit: &Path) -> Result<()> {
    let leaf = unit.join(SUPERVISOR_GROUP);
    let context = || {
        format!(
            "move the processes of {} to {SUPERVISOR_GROUP}",
            unit.display()
        )
    };
    match std::fs::create_dir(&leaf) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(context);
        }
        _ => {}
    }
    // A process that was just moved may have forked before.
    for _ in 0..100 {
        let processes = read(&unit.join("cgroup.procs"))?;
        if processes.is_empty() {
            return Ok(());
        }
        for process in processes.lines() {
            // The process may have exited.
            let _ = std::fs::write(leaf.join("cgroup.procs"), process);
        }
    }
    bail!("{}: new processes appear all the time", context())
}

/// Starts a delegated scope, and moves this process into a child group of it. The scope lasts until
/// the supervisor and all processes of the subhost have exited.
///
/// A scope needs a process: `cat`, which copies a byte when it runs, and exits when its input is
/// closed.
fn scope(tree: &Path, name: &str) -> Result<PathBuf> {
    let mut holder = Command::new("systemd-run")
        .args(["--scope", "--quiet", "--collect", "--property=Delegate=yes"])
        .arg(format!("--unit=overlay-boot-{}.scope", escape(name)))
        .arg(format!("--description=Subhost {name}"))
        .args(["--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run systemd-run")?;
    let (Some(mut input), Some(mut output)) = (holder.stdin.take(), holder.stdout.take()) else {
        bail!("systemd-run has no pipes");
    };
    let mut byte = [0];
    let is_running = input
        .write_all(b"\n")
        .and_then(|()| output.read_exact(&mut byte));
    if is_running.is_err() {
        drop(input);
        let message = holder.wait_with_output()?.stderr;
        bail!(
            "{}",
            String::from_utf8_lossy(&message).trim().replace('\n', " ")
        );
    }
    let joined = join(holder.id(), tree);
    drop(input);
    holder.wait()?;
    joined
}

/// Moves this process into a new child group of the scope of `holder`, and returns the scope.
fn join(holder: u32, tree: &Path) -> Result<PathBuf> {
    let scope = group_of(&holder.to_string(), tree)?;
    let leaf = scope.join(SUPERVISOR_GROUP);
    std::fs::create_dir(&leaf).with_context(|| format!("create {}", leaf.display()))?;
    std::fs::write(leaf.join("cgroup.procs"), "0")
        .with_context(|| format!("move to {}", leaf.display()))?;
    Ok(scope)
}

/// Replaces the characters that the name of a unit cannot have, as systemd-escape(1) does.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b":_.-".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("\\x{byte:02x}");
        }
    }
    escaped
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d_reached_limit_of_a_group_above_is_found() {
        let top = std::env::temp_dir().join(format!("ob-pids-max-{}", std::process::id()));
        let group = top.join("group");
        std::fs::create_dir_all(&group).unwrap();
        for (directory, max) in [(&top, "7"), (&group, "max")] {
            std::fs::write(directory.join("pids.max"), max).unwrap();
        }
        let reached = |current: &str| {
            for directory in [&top, &group] {
                std::fs::write(directory.join("pids.current"), current).unwrap();
            }
            reached_pids_max(Some(&File::open(&group).unwrap()))
        };
        let found = [reached("6\n"), reached("7\n")];
        std::fs::remove_dir_all(&top).unwrap();
        assert_eq!(found, [None, Some(top.join("pids.max"))]);
    }
}
