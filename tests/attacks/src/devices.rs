//! Device nodes: which nodes a subhost can make, and which it can open.

use crate::places::Mounted;
use crate::table::FROM_YES;
use crate::{Entry, Refused, Try, not_here, refused};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs;
use std::path::Path;

/// Entries about devices.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(5, "disk", "make a node of a disk of the host and open it", FROM_YES, open_disk),
    Entry::inside(5, "disk-mount", "mount a disk of the host", FROM_YES, mount_disk),
    Entry::inside(9, "kernel-messages", "make a node of `/dev/kmsg` and open it", FROM_YES, || open_node(SFlag::S_IFCHR, 1, 11)),
    Entry::inside(0, "memory-device", "make a node of the memory (`/dev/mem`) and open it", FROM_YES, || open_node(SFlag::S_IFCHR, 1, 1)),
    Entry::inside(0, "port-device", "make a node of the I/O ports (`/dev/port`) and open it", FROM_YES, || open_node(SFlag::S_IFCHR, 1, 4)),
    Entry::inside(0, "virtual-console", "make a node of the virtual console and open it", FROM_YES, || open_node(SFlag::S_IFCHR, 4, 0)),
    Entry::inside(0, "loop-control", "make a node of `/dev/loop-control` and open it", FROM_YES, || open_node(SFlag::S_IFCHR, 10, 237)),
    Entry::inside(0, "all-devices", "mount devtmpfs, with all device nodes of the host", FROM_YES, mount_all),
];

/// The major number of loop devices, which are files and not disks.
const LOOP: u64 = 7;

/// The path of the node.
const NODE: &str = "/node-of-an-attack";

fn open_disk() -> Try {
    with_a_disk(|number| open_node(SFlag::S_IFBLK, number.0, number.1))
}

/// The kernel mounts the present superblock again; nothing on the disk changes.
fn mount_disk() -> Try {
    with_a_disk(|number| {
        make_node(SFlag::S_IFBLK, number.0, number.1)?;
        let directory = Path::new("/disk-of-an-attack");
        fs::create_dir(directory).refused("mkdir")?;
        let mounted = mount(
            Some(NODE),
            directory,
            Some("ext4"),
            MsFlags::empty(),
            None::<&str>,
        );
        let has_root = directory.join("etc/passwd").exists();
        if mounted.is_ok() {
            let _ = nix::mount::umount(directory);
        }
        let _ = (fs::remove_file(NODE), fs::remove_dir(directory));
        match mounted {
            Ok(()) if has_root => Ok(()),
            Ok(()) | Err(Errno::EINVAL | Errno::EBUSY | Errno::ENOTBLK) => {
                not_here("the filesystem has no root directory")
            }
            Err(error) => given(error, "mount", number),
        }
    })
}

/// Tries the disks one by one until the attack succeeds.
fn with_a_disk(tried: impl Fn((u64, u64)) -> Try) -> Try {
    let partitions = fs::read_to_string("/proc/partitions").known("/proc/partitions")?;
    let numbers = partitions.lines().skip(2).filter_map(|line| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let numbers = numbers.filter(|(major, _)| *major != LOOP);
    let mut last = not_here("this machine has no disk");
    for number in numbers {
        last = tried(number);
        if last.is_ok() {
            break;
        }
    }
    last
}

fn mount_all() -> Try {
    let all = Mounted::new("devtmpfs", None).known("mount devtmpfs")?;
    fs::metadata(all.at("null")).refused("stat null").map(drop)
}

fn make_node(kind: SFlag, major: u64, minor: u64) -> Try {
    let mode = Mode::from_bits_truncate(0o600);
    mknod(NODE, kind, mode, makedev(major, minor)).refused("mknod")
}

/// Makes a node and opens it for reading.
fn open_node(kind: SFlag, major: u64, minor: u64) -> Try {
    make_node(kind, major, minor)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let opened = open(NODE, flags, Mode::empty());
    let _ = fs::remove_file(NODE);
    match opened {
        Ok(_) => Ok(()),
        Err(error) => given(error, "open a node", (major, minor)),
    }
}

fn given(error: Errno, what: &str, (major, minor): (u64, u64)) -> Try {
    match error {
        Errno::ENXIO | Errno::ENODEV | Errno::ENOMEDIUM => {
            not_here(format!("this machine has no device {major}:{minor}"))
        }
        // EPERM and not EACCES: the device cgroup around the machine refuses the device, not the
        // mode or nodev.
        Errno::EPERM => not_here(format!(
            "this machine refuses {major}:{minor} to every process"
        )),
        error => refused(format!("{what}: {}", error.desc())),
    }
}
