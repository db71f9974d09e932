//! Undoing: the mounts that a document notes, as far as they are those of its subhost.

use crate::FACTS;
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use ob_document::{Document, state};
use ob_sys::mount::mount_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Directories of the host that are the root of no subhost, whatever a document says.
const OF_HOST: [&str; 12] = [
    "/", "/boot", "/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/usr", "/var",
];

/// Unmounts the mounts that are noted, last first, and removes the facts. One that is gone is no error.
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

/// Unmounts what is at `path`, if that is a mount of the subhost.
///
/// `id` is that of the mount as it was noted, 0 if a stage has noted none.
fn unmount_one(live: &Path, path: &Path, id: u64) -> Result<()> {
    let root = match open_inside(live, &inside(live, path)?) {
        // A link is no mount point.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        root => root?,
    };
    if id != 0 && !mount_of(&root).is_ok_and(|mount| mount.id == id) {
        return Ok(());
    }
    let root = format!("/proc/self/fd/{}", root.as_raw_fd());
    // A mount below it that is unmounted from a peer is unmounted from all peers: `mount --rbind /dev`,
    // undone on a host whose root is shared, would take /dev/pts from the host, mount_namespaces(7).
    let none = None::<&str>;
    let alone = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    match mount(none, root.as_str(), none, alone, none) {
        Err(Errno::EINVAL) => return Ok(()),
        done => done.context("make it private")?,
    }
    // Detached rather than refused when busy: what still looks into it keeps it until it has done so.
    match umount2(root.as_str(), MntFlags::MNT_DETACH) {
        // Not the root of a mount.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The way from LIVE to `path`, without links that somebody inside may have put there.
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
        "LIVE={} is no root of a subhost",
        live.display()
    );
    // The paths of mounts below LIVE are noted as the kernel shows them.
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

/// The number of the mount at `path`, 0 if it cannot be known. The kernel gives it again when that
/// mount has ended.
pub fn mount_id(path: &Path) -> u64 {
    let mount = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).and_then(mount_of);
    mount.map_or(0, |mount| mount.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_paths_below_live_are_inside() {
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
