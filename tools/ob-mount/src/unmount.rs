//! Undoing: the mounts that a document notes, as far as they are those of its subhost.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use ob_document::{Document, state};
use ob_sys::mount::mount_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// The facts that this stage makes.
pub const FACTS: &[&str] = &["root", "mounts", "mountids", "userns"];

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
    let here = mount_of(&root).map(|mount| mount.id);
    let root = format!("/proc/self/fd/{}", root.as_raw_fd());
    // What is unmounted from a mount is unmounted from its peers as well: after `mount --rbind /dev` on a
    // host whose root is shared, umount2 would take /dev/pts from the host, mount_namespaces(7).
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
    // Detached rather than refused when busy: what still looks into it keeps it until it has done so.
    match umount2(root.as_str(), MntFlags::MNT_DETACH) {
        // Not the root of a mount.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the mount with the number `id`, or one on it, has a peer that is not below `live`, as far
/// as can be seen. A peer below `live` is a copy which the kernel made with it, and unmounts with it.
fn has_peer_outside(live: &Path, id: u64) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo");
    table.is_err() || table.is_ok_and(|table| peer_outside(&table, live, id))
}

fn peer_outside(table: &str, live: &Path, id: u64) -> bool {
    let mounts: Vec<Mount> = table.lines().filter_map(Mount::of).collect();
    let mut tree = vec![id];
    let mut groups = Vec::new();
    // A mount is made after the one that it lies on, but may have been moved: no order is to be relied on.
    while let Some(id) = tree.pop() {
        groups.extend(
            mounts
                .iter()
                .filter(|mount| mount.id == id)
                .filter_map(|mount| mount.group),
        );
        tree.extend(
            mounts
                .iter()
                .filter(|mount| mount.parent == id)
                .map(|mount| mount.id),
        );
    }
    let mut others = mounts.iter().filter(|mount| !mount.point.starts_with(live));
    others.any(|mount| mount.group.is_some_and(|group| groups.contains(&group)))
}

/// A line of proc_pid_mountinfo(5).
struct Mount<'a> {
    id: u64,
    parent: u64,
    point: PathBuf,
    /// Its peer group, `shared:N`.
    group: Option<&'a str>,
}

impl<'a> Mount<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let mut fields = line.split(' ');
        let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let point = fields.nth(2)?;
        let mut optional = fields.skip(1).take_while(|field| *field != "-");
        // As in the table: blank, tab, newline and backslash are in octal digits.
        let escapes = [
            ("\\040", " "),
            ("\\011", "\t"),
            ("\\012", "\n"),
            ("\\134", "\\"),
        ];
        let plain = |text: String, (code, plain)| text.replace(code, plain);
        Some(Mount {
            id,
            parent,
            point: escapes.into_iter().fold(point.to_owned(), plain).into(),
            group: optional.find(|field| field.starts_with("shared:")),
        })
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
    fn peers_below_live_are_copies_and_others_are_not() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 a rw\n\
            2 1 0:5 / /dev rw shared:2 - devtmpfs b rw\n3 1 8:1 /x /a\\040b/live rw shared:1 - ext4 a rw\n\
            7 3 8:1 /x /a\\040b/live ro shared:9 - ext4 a rw\n4 7 0:5 / /a\\040b/live/dev rw shared:2 - devtmpfs b rw\n\
            5 7 0:6 / /a\\040b/live/run rw shared:7 - tmpfs d rw\n6 1 0:6 / /a\\040b/live/run rw shared:7 - tmpfs d rw\n";
        let outside = |id| peer_outside(table, Path::new("/a b/live"), id);
        assert!(outside(4) && outside(7) && outside(3));
        assert!(!outside(5) && !outside(8));
    }

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
