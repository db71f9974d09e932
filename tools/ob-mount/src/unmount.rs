//! Undo: unmounts the mounts in a document, if they belong to its subhost.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use ob_document::{Document, state};
use ob_sys::mount::mount_of;
use ob_sys::mountinfo::Mount;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// The facts that this stage notes.
pub const FACTS: &[&str] = &["root", "mounts", "mountids", "userns"];

/// Directories of the host that no document may name as the root of a subhost.
const OF_HOST: [&str; 12] = [
    "/", "/boot", "/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/usr", "/var",
];

/// Unmounts the mounts of the fact `mounts`, last first, and removes the facts of this stage.
/// Ignores mounts that are gone.
pub fn unmount(document: &mut Document) -> Result<()> {
    let outcome = unmount_noted(document);
    document.forget(FACTS);
    outcome
}

fn unmount_noted(document: &Document) -> Result<()> {
    let mounts = document.list("mounts")?;
    if mounts.is_empty() {
        return Ok(());
    }
    let live = document.path("LIVE").context("unmount")?;
    let mut owners = state::owners("LIVE", live);
    if let Some(owner) = owners.find(|name| name != document.name()) {
        bail!(
            "LIVE={} belongs to the subhost {owner}; nothing is unmounted",
            live.display()
        );
    }
    let mut ids: Vec<u64> = document.numbers("mountids").collect();
    ids.resize(mounts.len(), 0);
    let mut outcome = Ok(());
    for (path, id) in mounts.iter().zip(ids).rev() {
        let done = unmount_one(live, Path::new(path), id);
        outcome = outcome.and(done.with_context(|| format!("unmount {path}")));
    }
    outcome
}

/// Unmounts the mount at `path`, if it is the mount `id`, or if `id` is 0, which means unknown.
fn unmount_one(live: &Path, path: &Path, id: u64) -> Result<()> {
    let root = match open_inside(live, &inside(live, path)?) {
        // A symbolic link cannot be a mount point.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        root => root?,
    };
    if id != 0 && !mount_of(&root).is_ok_and(|mount| mount.id == id) {
        return Ok(());
    }
    let here = mount_of(&root).map(|mount| mount.id);
    let root = format!("/proc/self/fd/{}", root.as_raw_fd());
    // An unmount propagates to the peers of the parent mount, mount_namespaces(7): after
    // `mount --rbind /dev` on a host whose root is shared, umount2 would also unmount /dev/pts of
    // the host.
    if here.is_err() || here.is_ok_and(|here| has_peer_outside(live, here)) {
        let alone = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        match mount(
            None::<&str>,
            root.as_str(),
            None::<&str>,
            alone,
            None::<&str>,
        ) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(error) => return Err(error).context("make it private"),
        }
    }
    // A process that uses the mount must not block the undo.
    match umount2(root.as_str(), MntFlags::MNT_DETACH) {
        // EINVAL: it is not the root of a mount.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the mount `id`, or a mount on it, has a peer outside `live`, or may have such a peer. A
/// peer below `live` is a copy that the kernel made with the mount, and unmounts with it.
fn has_peer_outside(live: &Path, id: u64) -> bool {
    std::fs::read("/proc/self/mountinfo").map_or(true, |table| {
        peer_outside(&Mount::parse_table(&table), live, id)
    })
}

fn peer_outside(mounts: &[Mount], live: &Path, id: u64) -> bool {
    let mut tree = vec![id];
    let mut groups = Vec::new();
    // The order of the table says nothing: a mount may have been moved on one that is younger.
    while let Some(id) = tree.pop() {
        let this = mounts.iter().filter(|mount| mount.id == id);
        groups.extend(this.filter_map(|mount| mount.peer_group));
        let children = mounts.iter().filter(|mount| mount.parent == id);
        tree.extend(children.map(|mount| mount.id));
    }
    let mut others = mounts.iter().filter(|mount| !mount.point.starts_with(live));
    others.any(|mount| {
        mount
            .peer_group
            .is_some_and(|group| groups.contains(&group))
    })
}

/// Returns the path of `path` relative to LIVE. Fails if it has no plain path below LIVE, or if
/// LIVE is a directory of the host.
fn inside(live: &Path, path: &Path) -> Result<PathBuf> {
    let is_plain = |path: &Path| {
        let mut parts = path.components();
        let absolute = parts.next() == Some(Component::RootDir);
        absolute && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    let resolved = live.canonicalize().unwrap_or_else(|_| live.to_owned());
    let is_of_host = OF_HOST
        .iter()
        .any(|directory| resolved == Path::new(directory));
    ensure!(
        is_plain(live) && !is_of_host,
        "LIVE={} cannot be the root of a subhost",
        live.display()
    );
    // The document has the paths of mounts below LIVE as the kernel returned them.
    let below = path.strip_prefix(live).or(path.strip_prefix(&resolved));
    let below = below.ok().filter(|_| is_plain(path));
    let below = below.with_context(|| format!("it is not below LIVE={}", live.display()))?;
    Ok(below.to_owned())
}

fn open_inside(live: &Path, inside: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let live = open(live, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    if inside.as_os_str().is_empty() {
        return Ok(live);
    }
    let how = OpenHow::new()
        .flags(flags | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(&live, inside, how)
}

/// Returns the number of the mount at `path`, or 0 if it is unknown. The kernel uses the number
/// again after the mount is gone.
pub fn mount_id(path: &Path) -> u64 {
    let mount = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).and_then(mount_of);
    mount.map_or(0, |mount| mount.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_outside_ignores_peers_below_live() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 a rw\n\
            2 1 0:5 / /dev rw shared:2 - devtmpfs b rw\n3 1 8:1 /x /a\\040b/live rw shared:1 - ext4 a rw\n\
            7 3 8:1 /x /a\\040b/live ro shared:9 - ext4 a rw\n4 7 0:5 / /a\\040b/live/dev rw shared:2 - devtmpfs b rw\n\
            5 7 0:6 / /a\\040b/live/run rw shared:7 - tmpfs d rw\n6 1 0:6 / /a\\040b/live/run rw shared:7 - tmpfs d rw\n";
        let mounts = Mount::parse_table(table.as_bytes());
        let outside = |id| peer_outside(&mounts, Path::new("/a b/live"), id);
        assert!(outside(4) && outside(7) && outside(3));
        assert!(!outside(5) && !outside(8));
    }

    #[test]
    fn inside_accepts_only_plain_paths_below_live() {
        let inside = |live: &str, path: &str| inside(Path::new(live), Path::new(path)).ok();
        assert_eq!(inside("/a/live", "/a/live"), Some(PathBuf::new()));
        assert_eq!(inside("/a/live", "/a/live/dev/pts"), Some("dev/pts".into()));
        for (live, path) in [
            ("/a/live", "/a/live/../b"),
            ("/a/live", "/a/liver"),
            ("/a/live", "/b"),
            ("/a/live", "live"),
            ("/a/../a/live", "/a/../a/live"),
            ("/", "/b"),
            ("/home", "/home/b"),
            ("live", "live"),
        ] {
            assert_eq!(inside(live, path), None, "{live} {path}");
        }
    }
}
