//! Finds objects that a process holds and that are outside of the mounts of the subhost.

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, fstatfs};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mounts and namespaces of the subhost.
pub struct Own {
    mounts: BTreeSet<String>,
    namespaces: BTreeSet<u64>,
}

impl Own {
    /// Reads the present mounts and namespaces.
    pub fn new() -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = table.lines().filter_map(|line| line.split(' ').next());
        let namespaces = fs::read_dir("/proc/self/ns")
            .into_iter()
            .flatten()
            .flatten();
        let inode = |link: fs::DirEntry| fs::metadata(link.path()).ok().map(|status| status.ino());
        Own {
            mounts: mounts.map(str::to_owned).collect(),
            namespaces: namespaces.filter_map(inode).collect(),
        }
    }

    /// Searches `parts` of /proc/PID, links or directories of links, and opens the first useful
    /// object that is outside of the subhost.
    pub fn find(&self, process: &str, parts: &[&str]) -> Option<OwnedFd> {
        let directory = Path::new("/proc").join(process);
        parts.iter().find_map(|part| {
            let part = directory.join(part);
            let has_links = part.ends_with("fd") || part.ends_with("map_files");
            let links: Vec<PathBuf> = match fs::read_dir(&part).ok().filter(|_| has_links) {
                Some(below) => below.flatten().map(|entry| entry.path()).collect(),
                None => vec![part],
            };
            links.into_iter().find_map(|link| self.take(&link))
        })
    }

    fn take(&self, link: &Path) -> Option<OwnedFd> {
        let fd = open(link, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        self.is_foreign(&fd).then_some(fd)
    }

    /// Returns whether `fd` is a file, directory or device outside of the mounts of the subhost and
    /// not a sealed memfd, or a namespace of another subhost or the host. Pipes and sockets are the
    /// normal connection to the caller.
    pub fn is_foreign(&self, fd: &OwnedFd) -> bool {
        let Ok(status) = fstat(fd) else { return false };
        if fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC) {
            return !self.namespaces.contains(&status.st_ino);
        }
        if is_own_proc(fd) {
            return false;
        }
        let worth = [
            SFlag::S_IFREG,
            SFlag::S_IFDIR,
            SFlag::S_IFBLK,
            SFlag::S_IFCHR,
        ];
        let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
        worth.contains(&kind) && !self.mounts.contains(&mount_of(fd)) && !is_sealed(fd)
    }
}

/// Returns whether `fd` is the root of a procfs that shows this pid namespace.
fn is_own_proc(fd: &OwnedFd) -> bool {
    let shown = fs::read_link(format!("/proc/self/fd/{}/self", fd.as_raw_fd()));
    let is_proc = fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC);
    is_proc && shown.is_ok_and(|shown| Some(shown) == fs::read_link("/proc/self").ok())
}

/// Returns the id of the mount on which `fd` was opened.
fn mount_of(fd: &OwnedFd) -> String {
    let info = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let info = fs::read_to_string(info).unwrap_or_default();
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    mount.unwrap_or_default().trim().to_owned()
}

/// Returns whether `fd` is a sealed memfd.
fn is_sealed(fd: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened = open(path.as_str(), flags, Mode::empty());
    let seals = opened.and_then(|opened| fcntl(&opened, FcntlArg::F_GET_SEALS));
    seals.is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE))
}
