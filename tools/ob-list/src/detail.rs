//! The measurements of `-l`: the resources that a running subhost uses, and its addresses.

use crate::clock::ticks;
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

/// The measurements of one subhost; `None` if the kernel does not account for a resource.
#[derive(Default, Clone, Debug, PartialEq)]
pub struct Detail {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processor time.
    pub cpu: Option<Duration>,
    /// Threads.
    pub tasks: Option<u64>,
    /// The addresses of its links, without the loopback device.
    pub addresses: Vec<Address>,
    /// The size of UPPER.
    pub upper: Option<Upper>,
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    /// The name of the link inside.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// The length of the network prefix in bits.
    pub prefix: u32,
}

/// The size of a tree.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
pub struct Upper {
    /// Bytes on disk. A file with several hard links is counted once.
    pub bytes: u64,
    /// Files of all types but directories, including whiteouts.
    pub files: u64,
}

/// Measures subhosts.
pub struct Meter {
    /// The network namespace of this process, to return to.
    our_net: File,
    /// The sums over the processes of each pid namespace, for a host without control groups.
    /// Computed at most once.
    processes: OnceCell<HashMap<u64, Detail>>,
}

impl Meter {
    /// Opens the network namespace of this process, and fails if that fails.
    pub fn new() -> Result<Self> {
        Ok(Meter {
            our_net: File::open("/proc/self/ns/net")
                .context("open the network namespace of the host")?,
            processes: OnceCell::new(),
        })
    }

    /// Measures the running subhost of the document, whose pid 1 is `pid_1`.
    ///
    /// Fails only if this process cannot return to its network namespace.
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

    /// Returns the addresses in the network namespace of `pid_1`, sorted.
    ///
    /// The thread joins that namespace for a moment. No file of the subhost is read or run.
    fn addresses(&self, pid_1: &OwnedFd) -> Result<Vec<Address>> {
        if setns(pid_1, CloneFlags::CLONE_NEWNET).is_err() {
            return Ok(Vec::new()); // pid 1 has ended meanwhile
        }
        let addresses = getifaddrs();
        setns(&self.our_net, CloneFlags::CLONE_NEWNET)
            .context("return to the network namespace of the host")?;
        let addresses = addresses.into_iter().flatten();
        let mut addresses: Vec<Address> = addresses
            .filter(|found| found.interface_name != "lo")
            .filter_map(|found| {
                Some(Address {
                    ip: ip(&found.address?)?,
                    prefix: found
                        .netmask
                        .and_then(|mask| ip(&mask))
                        .map_or(0, prefix_length),
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

fn prefix_length(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    }
}

/// Returns the counters of a control group; `None` for a controller that is not enabled.
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

/// Returns the sums over the processes of each pid namespace, by its inode number.
fn of_processes() -> HashMap<u64, Detail> {
    let mut sums: HashMap<u64, Detail> = HashMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in entries.map(|entry| entry.path()) {
        let Ok(pidns) = std::fs::metadata(process.join("ns/pid")) else {
            continue; // not a process, or it has ended
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

/// Returns the size of a tree. Symbolic links are not followed, since a subhost may create any.
fn of_tree(root: &Path) -> Option<Upper> {
    let mut walk = Walk::open(root).ok()?;
    let mut size = Upper::default();
    let mut counted = HashSet::new();
    // The subdirectories left to measure, for each directory on the path of the walk. A directory
    // that has been removed meanwhile is skipped.
    let mut levels = vec![measure(&walk, &mut size, &mut counted)];
    while let Some(directories) = levels.last_mut() {
        match directories.pop() {
            Some(name) if walk.enter(name.as_c_str()).is_ok() => {
                levels.push(measure(&walk, &mut size, &mut counted));
            }
            Some(_) => {}
            None => {
                levels.pop();
                // `leave` fails if the directory was moved: then its parent is another directory.
                walk.leave().ok()?;
            }
        }
    }
    Some(size)
}

/// Adds the sizes of the files in the directory where the walk is.
///
/// Returns the names of its subdirectories.
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
    fn prefix_length_is_the_number_of_set_bits() {
        assert_eq!(prefix_length("255.255.254.0".parse().unwrap()), 23);
        assert_eq!(prefix_length("ffff:ffff::".parse().unwrap()), 32);
    }
}
