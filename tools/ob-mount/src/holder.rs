//! The search for the process that keeps an overlay alive, for an error.

use crate::claims::Directory;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use ob_sys::mountinfo::Mount;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the search may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The state of the search.
struct Search<'a> {
    layers: [&'a Path; 2],
    /// Whether the filesystem of a device number is the overlay.
    devices: BTreeMap<u64, bool>,
    /// The mount namespaces that were searched.
    namespaces: BTreeSet<PathBuf>,
}

/// Describes a process that has a file of an overlay of `upper` on `lower` open, or is in a mount
/// namespace where it is mounted. None if no such process is found in time.
pub fn find(upper: &Directory, lower: &Path) -> Option<String> {
    let end = Instant::now() + TIMEOUT;
    let mut search = Search {
        layers: [&upper.real, lower],
        devices: BTreeMap::new(),
        namespaces: BTreeSet::new(),
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes
        .take_while(|_: &u32| Instant::now() < end)
        .find_map(|pid| search.look_at(pid))
}

impl Search<'_> {
    fn look_at(&mut self, pid: u32) -> Option<String> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
        let name = format!(
            "process {pid} ({})",
            name.trim().replace(char::is_control, "?")
        );
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten();
        let files = files.flatten().map(|file| file.path());
        let links = ["root", "cwd"].map(|link| process.join(link));
        for link in links.into_iter().chain(files) {
            let inside = std::fs::read_link(&link).unwrap_or_default();
            if self.is_on(&link, &inside) {
                return Some(format!("{name} keeps it open"));
            }
        }
        let namespace = std::fs::read_link(process.join("ns/mnt")).ok()?;
        if !self.namespaces.insert(namespace) {
            return None;
        }
        let mounts = Mount::parse_table(&std::fs::read(process.join("mountinfo")).ok()?);
        let mut overlays = mounts
            .iter()
            .filter(|mount| mount.kind == "overlay" && mount.root == Path::new("/"));
        let overlay = overlays.find(|mount| {
            let path = mount.point.strip_prefix("/").unwrap_or(&mount.point);
            self.is_on(&process.join("root").join(path), Path::new("/"))
        })?;
        Some(format!(
            "{name} has it mounted on {}",
            overlay.point.display()
        ))
    }

    /// Whether the file at `path` lies on the overlay, in which it is at `inside`.
    ///
    /// No file of /proc has the UPPER of an overlay that is not mounted. But a file on the overlay
    /// has the times and the mode of the file in UPPER, or else in LOWER. The root directory of
    /// each process is examined first, so that a file of LOWER is not mistaken for that of another
    /// subhost.
    fn is_on(&mut self, path: &Path, inside: &Path) -> bool {
        let Ok(below) = inside.strip_prefix("/") else {
            return false; // a pipe, a socket
        };
        let Ok(status) = path.metadata() else {
            return false;
        };
        if let Some(known) = self.devices.get(&status.dev()) {
            return *known;
        }
        let overlay = statfs(path).is_ok_and(|fs| fs.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
        let shown = |status: &Metadata| {
            let changed = (status.ctime(), status.ctime_nsec());
            (status.mode(), status.mtime(), status.mtime_nsec(), changed)
        };
        let mut own = self
            .layers
            .iter()
            .filter_map(|layer| layer.join(below).metadata().ok());
        let same = overlay && own.next().is_some_and(|own| shown(&own) == shown(&status));
        if same || !overlay || inside == Path::new("/") {
            self.devices.insert(status.dev(), same);
        }
        same
    }
}
