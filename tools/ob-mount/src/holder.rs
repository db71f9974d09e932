//! Finds the process that keeps an overlay alive, for a message.

use crate::claims::Directory;
use crate::octal::unescape;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::unistd::pipe2;
use ob_sys::process::{pidfd_signal, spawn};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How long the search may take.
const PATIENCE: u16 = 1000; // milliseconds

/// What is known so far.
struct Search<'a> {
    layers: [&'a Path; 2],
    /// Whether the filesystem of a device number is the overlay.
    devices: BTreeMap<u64, bool>,
    /// The mount namespaces that were searched.
    namespaces: BTreeSet<PathBuf>,
}

/// Describes a process that has a file of an overlay of `upper` on `lower` open, or is in a mount
/// namespace where it is mounted. None if no such process is found within [`PATIENCE`].
pub fn find(upper: &Directory, lower: &Path) -> Option<String> {
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC).ok()?;
    // A child, since a file that a process has open may be on a server that does not answer.
    let child = spawn(0, None, || {
        let found = search(&upper.real, lower).unwrap_or_default();
        u8::from(File::from(writing).write_all(found.as_bytes()).is_err())
    });
    let child = child.ok()?;
    let mut ended = [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
    let ended = poll(&mut ended, PATIENCE).is_ok_and(|ended| ended > 0);
    let _ = pidfd_signal(&child.pidfd, Signal::SIGKILL);
    let mut found = String::new();
    if ended {
        File::from(reading).read_to_string(&mut found).ok()?;
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
        let mounts = std::fs::read_to_string(process.join("mountinfo")).ok()?;
        let overlays = mounts.lines().filter(|mount| mount.contains(" - overlay "));
        // The root of the mount in its filesystem, and its place.
        let mut places = overlays.filter_map(|mount| {
            let mut fields = mount.split(' ').skip(3);
            (fields.next()? == "/").then(|| unescape(fields.next().unwrap_or_default()))
        });
        let place = places.find(|place| {
            let path = place.trim_start_matches('/');
            self.is_on(&process.join("root").join(path), Path::new("/"))
        })?;
        Some(format!("{name} has it mounted on {place}; umount it there"))
    }

    /// Whether the file at `path` lies on the overlay, in which it is at `inside`.
    ///
    /// Nothing shows which UPPER an overlay has that is not mounted. But it shows the times and the
    /// mode of what is in UPPER, or else in LOWER. Every process in a subhost is first seen by its
    /// root directory, so that a file of LOWER is not taken for another subhost's.
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
