//! The limits of a subhost: where its control group may lie so that they work, and their values.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use ob_confine::cgroup_limits::Limit;
use ob_sys::file::get_xattr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a cgroup2 tree is mounted: alone, or beside version 1. To read the table of mounts instead would take longer
/// with every subhost that runs.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A limit and the value that the kernel is to get.
pub type Limits = Vec<(&'static Limit, String)>;

/// The group below a group with limits for its children where the processes are that are no child's: the supervisor, and what
/// else a unit has.
const SUPERVISOR_GROUP: &str = "supervisor";

/// Returns the group in which that of the subhost is to be made, with all controllers on that the limits need.
///
/// Where systemd runs, the tree is systemd's but for what it delegates, and what is made elsewhere it may take down: so it is the
/// unit that we are in, if that is delegated, or a new scope, in which the supervisor then is.
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

/// Refuses a limit that nothing here can keep.
pub fn require(tree: &Path, limits: &Limits) -> Result<()> {
    let there = read(&tree.join("cgroup.controllers"))?;
    for (limit, _) in limits {
        if !there
            .split_whitespace()
            .any(|word| word == limit.controller)
        {
            let version_1 = Path::new("/sys/fs/cgroup").join(limit.controller).is_dir();
            bail!(
                "{}: the cgroup2 tree at {} has no {} controller{}",
                limit.name,
                tree.display(),
                limit.controller,
                if version_1 {
                    ", which is in a tree of version 1 on this host"
                } else {
                    ""
                }
            );
        }
    }
    Ok(())
}

fn is_systemd_booted() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Our own group if it is a unit with `Delegate=yes`, also seen from its leaf. No higher one: that would be another manager's.
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
    // Which it is depends on the version of systemd.
    let mark = [c"user.delegate", c"trusted.delegate"];
    let is_delegated = mark
        .iter()
        .any(|mark| get_xattr(&own, mark).is_ok_and(|value| value == b"1"));
    Ok(is_delegated.then_some(own))
}

fn group_of(process: &str, tree: &Path) -> Result<PathBuf> {
    let table = read(&Path::new("/proc").join(process).join("cgroup"))?;
    let path = table.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(tree.join(path.context("it is in no group of the cgroup2 tree")?))
}

/// Moves all processes of the unit into a leaf: a group with limits for its children may have none itself.
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
    // Again, until there is none: they may have had children meanwhile.
    for _ in 0..100 {
        let processes = read(&unit.join("cgroup.procs"))?;
        if processes.is_empty() {
            return Ok(());
        }
        for process in processes.lines() {
            // One that has ended needs no moving.
            let _ = std::fs::write(leaf.join("cgroup.procs"), process);
        }
    }
    bail!("{}: there are always more", context())
}

/// Has systemd make a scope that is delegated to us, and moves this process to a leaf of it: the scope lasts until the supervisor
/// has ended, and all of the subhost.
///
/// systemd wants a process for it: one that waits for a byte and copies it, by which we know that it is there.
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
        bail!("it has no pipes");
    };
    let mut byte = [0];
    let is_there = input
        .write_all(b"\n")
        .and_then(|()| output.read_exact(&mut byte));
    if is_there.is_err() {
        drop(input);
        let told = holder.wait_with_output()?.stderr;
        bail!(
            "{}",
            String::from_utf8_lossy(&told).trim().replace('\n', " ")
        );
    }
    let joined = (|| {
        let scope = group_of(&holder.id().to_string(), tree)?;
        let leaf = scope.join(SUPERVISOR_GROUP);
        std::fs::create_dir(&leaf).with_context(|| format!("make {}", leaf.display()))?;
        std::fs::write(leaf.join("cgroup.procs"), "0")
            .with_context(|| format!("go to {}", leaf.display()))?;
        Ok(scope)
    })();
    drop(input);
    holder.wait()?;
    joined
}

/// As names of units have other characters than theirs.
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
