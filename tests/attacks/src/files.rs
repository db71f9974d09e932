//! Files: handles that lead out of a mount, changes to the log, and special files in the layers.

use crate::system::Handle;
use crate::table::{ALWAYS, FROM_YES};
use crate::{Entry, Refused, Try, not_here, refused};
use nix::errno::Errno;
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;

/// Entries about files.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(8, "share-handle", "open the root of the host with a file handle through a share (`open_by_handle_at(2)`)", FROM_YES, || root_through(c"/srv/shared")),
    Entry::inside(8, "mapped-share-handle", "open the root of the host with a file handle through an idmapped share", FROM_YES, || root_through(c"/srv/mapped")),
    Entry::inside(8, "root-handle", "open the root of the host with a file handle through `/`", ALWAYS, || root_through(c"/")),
    Entry::both(10, "setuid-file", "leave a setuid program in UPPER that a user of the host runs", ALWAYS, leave_setuid),
    Entry::both(21, "setuid-log", "make the log a setuid file through `/proc/1/fd/1`", ALWAYS, || change_log(|log| fs::set_permissions(log, fs::Permissions::from_mode(0o4755)).refused("chmod"))),
    Entry::both(21, "capable-log", "give the log file capabilities through `/proc/1/fd/1`", ALWAYS, || change_log(give_capabilities)),
    Entry::both(0, "overlay-attributes", "leave overlay attributes in UPPER for the next boot", ALWAYS, set_redirect),
    Entry::both(0, "socket-in-lower", "connect to a socket of the host in LOWER", ALWAYS, connect_to_lower),
    Entry::both(0, "fifo-in-lower", "write into a FIFO in LOWER that a process of the host reads", ALWAYS, write_to_lower),
    Entry::inside(0, "namespace-handle", "open namespaces of the host with their file handles", FROM_YES, open_namespaces),
];

/// The root directory of an ext4 has inode 2 and generation 0.
fn root_through(share: &CStr) -> Try {
    const NUMBER_AND_GENERATION: i32 = 1;
    const ROOT: u32 = 2;
    let path = share.to_string_lossy();
    let Ok(mount) = File::open(path.as_ref()) else {
        return not_here(format!("{path} does not exist"));
    };
    let handle = Handle::of(share).refused("name_to_handle_at")?;
    if handle.kind != NUMBER_AND_GENERATION {
        return not_here("this filesystem has another type of handles");
    }
    let opened = Handle::new(NUMBER_AND_GENERATION, &[ROOT, 0]).open(&mount);
    let root = File::from(opened.refused("open_by_handle_at")?);
    match root.metadata().refused("look at it")?.ino() {
        2 => Ok(()),
        other => refused(format!("the handle opened inode {other}, not the root")),
    }
}

/// The test runs the program as another user.
fn leave_setuid() -> Try {
    let program = "/setuid-of-an-attack";
    fs::copy("/proc/self/exe", program).refused("copy")?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o4755)).refused("chmod")
}

fn change_log(change: fn(&str) -> Try) -> Try {
    let log = "/proc/1/fd/1";
    fs::metadata(log).refused(log)?;
    change(log)
}

fn give_capabilities(log: &str) -> Try {
    // Version 2, effective: CAP_DAC_OVERRIDE.
    const CAPABILITIES: [u32; 5] = [0x0200_0001, 2, 0, 0, 0];
    let value: Vec<u8> = CAPABILITIES
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    crate::system::set_attribute(log, c"security.capability", &value).refused("setxattr")
}

/// Marks a directory as a redirect to a directory of LOWER. The test checks UPPER.
fn set_redirect() -> Try {
    let directory = "/redirected-by-an-attack";
    let _ = fs::create_dir(directory);
    let names = [c"trusted.overlay.redirect", c"user.overlay.redirect"];
    let set = names
        .map(|name| crate::system::set_attribute(directory, name, b"/root").refused("setxattr"));
    set.into_iter()
        .find(Result::is_ok)
        .unwrap_or_else(|| refused("setxattr"))
}

/// The test listens and passes the path.
fn connect_to_lower() -> Try {
    UnixStream::connect(argument()?)
        .refused("connect")
        .map(drop)
}

fn write_to_lower() -> Try {
    let mut flags = OpenOptions::new();
    flags.write(true).custom_flags(nix::libc::O_NONBLOCK);
    let mut fifo = flags.open(argument()?).refused("open")?;
    fifo.write_all(b"written").refused("write")
}

/// Returns the argument after the name.
fn argument() -> Try<String> {
    std::env::args()
        .nth(2)
        .map_or_else(|| not_here("the path is missing"), Ok)
}

/// Since 6.18, namespaces have file handles: a serial number, a type and the inode.
fn open_namespaces() -> Try {
    const NAMESPACE: i32 = 0xf1;
    // The initial namespaces have the highest inodes and the lowest serial numbers.
    let own = File::open("/proc/self/ns/pid").refused("/proc/self/ns/pid")?;
    let handle = match Handle::of(c"/proc/self/ns/pid") {
        Err(Errno::EOPNOTSUPP) => return not_here("namespaces have no handles"),
        handle => handle.refused("name_to_handle_at")?,
    };
    if handle.kind != NAMESPACE {
        return not_here(format!("handles of namespaces are of kind {}", handle.kind));
    }
    let own_inode = own.metadata().refused("look at it")?.ino();
    let mut last = Errno::ESTALE;
    for number in 1..16 {
        for inode in 0xeffffff0..=0xefffffff_u32 {
            for kind in [0x2000_0000, 0x0002_0000, 0x4000_0000, 0x1000_0000] {
                match Handle::new(NAMESPACE, &[number, 0, kind, inode]).open(&own) {
                    Ok(found) => {
                        let found = File::from(found).metadata().refused("look at it")?;
                        if found.ino() != own_inode && !is_own(found.ino()) {
                            return Ok(());
                        }
                    }
                    Err(Errno::ESTALE) => {}
                    Err(error) => last = error,
                }
            }
        }
    }
    Err(last).refused("open_by_handle_at")
}

/// Returns whether this process is in the namespace with this inode.
fn is_own(inode: u64) -> bool {
    let own = fs::read_dir("/proc/self/ns")
        .into_iter()
        .flatten()
        .flatten();
    own.filter_map(|namespace| fs::metadata(namespace.path()).ok())
        .any(|own| own.ino() == inode)
}
