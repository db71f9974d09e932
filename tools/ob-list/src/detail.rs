//! What `-l` tells: what a running subhost takes of the machine, and where it can be reached.

use crate::subhost::ticks;
use anyhow::{Context, Result};
use nix::fcntl::AtFlags;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use nix::sys::stat::{SFlag, fstatat};
use ob_document::Document;
use ob_document::tree::Walk;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// What is measured of one subhost; what cannot be is none.
#[derive(Default, Clone, Debug, PartialEq)]
pub struct Detail {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processor time.
    pub cpu: Option<Duration>,
    /// Threads.
    pub tasks: Option<u64>,
    /// What its links answer to, the loopback aside.
    pub addresses: Vec<Address>,
    /// What is different from LOWER.
    pub upper: Option<Upper>,
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    /// The link inside.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// The length of its network's prefix.
    pub prefix: u32,
}

/// The size of a tree.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
pub struct Upper {
    /// Bytes on disk, those of a file with several names once.
    pub bytes: u64,
    /// Files of all kinds but directories; marks of what was removed from LOWER too.
    pub files: u64,
}

/// Measures subhosts.
pub struct Meter {
    /// The way back from their networks.
    our_net: File,
    /// What the processes of each pid namespace take, found out once, for a host that has no control groups.
    processes: OnceCell<HashMap<u64, Detail>>,
}

impl Meter {
    /// Makes a meter.
    pub fn new() -> Result<Self> {
        Ok(Meter {
            our_net: File::open("/proc/self/ns/net").context("open our network namespace")?,
            processes: OnceCell::new(),
        })
    }

    /// Measures the running subhost of the document, whose pid 1 is proven.
    ///
    /// Fails only if this process cannot get back out of its network.
    pub fn measure(&self, document: &Document, pid_1: &OwnedFd) -> Result<Detail> {
        let mut detail = document.path("cgroup").map(of_group).unwrap_or_default();
        if detail.memory.is_none() || detail.cpu.is_none() || detail.tasks.is_none() {
            let processes = self.processes.get_or_init(of_processes);
            if let Some(sum) = document
                .number("pidns")
                .ok()
                .and_then(|pidns| processes.get(&pidns))
            {
                detail.memory = detail.memory.or(sum.memory);
                detail.cpu = detail.cpu.or(sum.cpu);
                detail.tasks = detail.tasks.or(sum.tasks);
            }
        }
        if document.has("net") {
            detail.addresses = self.addresses(pid_1)?;
        }
        detail.upper = document.path("UPPER").ok().and_then(of_tree);
        Ok(detail)
    }

    /// Asks the kernel from within the subhost's network; nothing of the subhost is run or read.
    fn addresses(&self, pid_1: &OwnedFd) -> Result<Vec<Address>> {
        if setns(pid_1, CloneFlags::CLONE_NEWNET).is_err() {
            return Ok(Vec::new()); // it has ended meanwhile
        }
        let addresses = getifaddrs();
        setns(&self.our_net, CloneFlags::CLONE_NEWNET).context("get back to our network")?;
        let addresses = addresses.into_iter().flatten();
        let mut addresses: Vec<Address> = addresses
            .filter(|found| found.interface_name != "lo")
            .filter_map(|found| {
                Some(Address {
                    ip: ip(&found.address?)?,
                    prefix: found.netmask.and_then(|mask| ip(&mask)).map_or(0, ones),
                    interface: found.interface_name,
                })
            })
            .collect();
        addresses.sort_by(|a, b| (&a.interface, a.ip).cmp(&(&b.interface, b.ip)));
        Ok(addresses)
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    address.family()?;
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

fn ones(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    }
}

/// What the control group counts; nothing where its controllers are not there.
fn of_group(group: &Path) -> Detail {
    let number = |file: &str| {
        let text = std::fs::read_to_string(group.join(file)).ok()?;
        text.trim().parse().ok()
    };
    let stat = std::fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
    let usage = stat
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    Detail {
        memory: number("memory.current"),
        cpu: usage
            .and_then(|usage| usage.parse().ok())
            .map(Duration::from_micros),
        tasks: number("pids.current"),
        ..Detail::default()
    }
}

/// What the processes of each pid namespace take, by its number.
fn of_processes() -> HashMap<u64, Detail> {
    let mut sums: HashMap<u64, Detail> = HashMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in entries.map(|entry| entry.path()) {
        let Ok(pidns) = std::fs::metadata(process.join("ns/pid")) else {
            continue; // no process, or one that has ended
        };
        let read = |file| std::fs::read(process.join(file)).unwrap_or_default();
        let (stat, status) = (read("stat"), read("status"));
        let (stat, status) = (
            String::from_utf8_lossy(&stat),
            String::from_utf8_lossy(&status),
        );
        let field = |number: usize| {
            let (_, fields) = stat.rsplit_once(')')?;
            fields.split_whitespace().nth(number - 3)?.parse().ok()
        };
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|size| size.trim().strip_suffix(" kB")?.parse().ok());
        let times: Option<u64> = field(14).zip(field(15)).map(|(user, kernel)| user + kernel);
        let sum = sums.entry(pidns.ino()).or_default();
        add(
            &mut sum.memory,
            resident.map(|size: u64| size * 1024).unwrap_or_default(),
        );
        add(&mut sum.cpu, ticks(times.unwrap_or_default()));
        add(&mut sum.tasks, field(20).unwrap_or_default());
    }
    sums
}

fn add<T: std::ops::Add<Output = T> + Default + Copy>(sum: &mut Option<T>, value: T) {
    *sum = Some(sum.unwrap_or_default() + value);
}

/// The size of a tree, links in it never followed: a subhost may have made them.
fn of_tree(root: &Path) -> Option<Upper> {
    let mut walk = Walk::open(root).ok()?;
    let mut size = Upper::default();
    let mut counted = HashSet::new();
    // For each directory on the way, those in it that are left. One that is gone meanwhile is left
    // out.
    let mut levels = vec![measure(&walk, &mut size, &mut counted)];
    while let Some(directories) = levels.last_mut() {
        match directories.pop() {
            Some(name) if walk.enter(name.as_c_str()).is_ok() => {
                levels.push(measure(&walk, &mut size, &mut counted));
            }
            Some(_) => {}
            None => {
                levels.pop();
                // One that was moved meanwhile leads elsewhere.
                walk.leave().ok()?;
            }
        }
    }
    Some(size)
}

/// Adds the files in the directory where the walk is. Returns the names of the directories in it.
fn measure(walk: &Walk, size: &mut Upper, counted: &mut HashSet<(u64, u64)>) -> Vec<CString> {
    let mut names = walk.names().unwrap_or_default();
    names.retain(|name| {
        let Ok(status) = fstatat(walk.here(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
            return false;
        };
        let is_directory = status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        size.files += u64::from(!is_directory);
        if is_directory || status.st_nlink == 1 || counted.insert((status.st_dev, status.st_ino)) {
            size.bytes += u64::try_from(status.st_blocks).unwrap_or_default() * 512;
        }
        is_directory
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_size_does_not_follow_links() {
        let root = std::env::temp_dir().join(format!("ob-list-tree-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/one"), vec![1; 100_000]).unwrap();
        let lone = of_tree(&root).unwrap();
        std::fs::hard_link(root.join("a/b/one"), root.join("a/two")).unwrap();
        std::os::unix::fs::symlink("/", root.join("a/root")).unwrap();
        let upper = of_tree(&root).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(lone.files, 1);
        assert!(lone.bytes >= 100_000);
        assert_eq!(upper.files, 3);
        assert!(upper.bytes < lone.bytes + 100_000, "{upper:?}");
        assert_eq!(of_tree(&root), None);
    }

    #[test]
    fn own_pid_namespace_uses_memory_and_tasks() {
        let pidns = std::fs::metadata("/proc/self/ns/pid").unwrap().ino();
        let ours = of_processes().remove(&pidns).unwrap();
        assert!(ours.memory.unwrap() > 100_000);
        assert!(ours.tasks.unwrap() >= 1);
    }

    #[test]
    fn prefix_length_counts_the_ones_of_a_mask() {
        assert_eq!(ones("255.255.254.0".parse().unwrap()), 23);
        assert_eq!(ones("ffff:ffff::".parse().unwrap()), 32);
    }
}
