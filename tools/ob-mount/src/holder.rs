//! The search for the process that keeps an overlay alive, for an error.

use crate::claims::Directory;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::unistd::pipe2;
use ob_sys::mountinfo::Mount;
use ob_sys::process::{pidfd_signal, spawn};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How many milliseconds the search may take.
const TIMEOUT: u16 = 1000;

/// The state of the search.
struct Search<'a> {
    layers: [&'a Path; 2],
    /// Whether the filesystem of a device number is the overlay.
    devices: BTreeMap<u64, bool>,
    /// The mount namespaces that were searched.
    namespaces: BTreeSet<PathBuf>,
}

/// Describes a process that has a file of an overlay of `upper` on `lower` open, or is in a mount
/// namespace where it is mounted, and what to do. Returns None if no such process is found within
/// [`TIMEOUT`].
pub fn find(upper: &Directory, lower: &Path) -> Option<String> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).ok()?;
    // A child can be killed if it blocks: an open file may be on a server that does not answer.
    let child = spawn(0, None, || {
        let found = search(&upper.real, lower).unwrap_or_default();
        u8::from(File::from(writer).write_all(found.as_bytes()).is_err())
    });
    let child = child.ok()?;
    let mut fds = [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
    let has_ended = poll(&mut fds, TIMEOUT).is_ok_and(|ready| ready > 0);
    let _ = pidfd_signal(&child.pidfd, Signal::SIGKILL);
    let mut found = String::new();
    if has_ended {
        File::from(reader).read_to_string(&mut found).ok()?;
    }
    Some(found).filter(|found| !found.is_empty())
}

fn search(upper: &Path, lower: &Path) -> Option<String> {
    let mut search = Search {
        layers: [upper, lower],
        devices: BTreeMap::new(),
        namespaces: BTreeSet::new(),
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.find_map(|pid: u32| search.look_at(pid))
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
                return Some(format!("{name} keeps it open; end that process"));
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
        let point = overlay.point.display();
        Some(format!("{name} has it mounted on {point}; umount it there"))
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
