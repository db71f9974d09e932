//! Files: handles that lead out of a mount, and the log as a file that is written to.

use crate::system::Handle;
use crate::table::{ALWAYS, FROM_YES};
use crate::{Entry, Refused, Try, not_here, refused};
use nix::errno::Errno;
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;

/// What has to do with files.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(8, "share-handle", "open the host's root by a handle through a share (`open_by_handle_at`)", FROM_YES, || root_through(c"/srv/shared")),
    Entry::inside(8, "mapped-share-handle", "the same through a share that is mapped (`idmap`)", FROM_YES, || root_through(c"/srv/mapped")),
    Entry::inside(8, "root-handle", "the same through `/`", ALWAYS, || root_through(c"/")),
    Entry::both(10, "setuid-file", "leave a setuid program in UPPER, for a user of the host to run", ALWAYS, leave_setuid),
    Entry::both(21, "setuid-log", "make the log a setuid file, through `/proc/1/fd/1`", ALWAYS, || change_log(|log| fs::set_permissions(log, fs::Permissions::from_mode(0o4755)).refused("chmod"))),
    Entry::both(21, "capable-log", "give the log file capabilities, through `/proc/1/fd/1`", ALWAYS, || change_log(give_capabilities)),
    Entry::both(0, "overlay-attributes", "leave attributes in UPPER that the overlay itself reads at the next boot", ALWAYS, set_redirect),
    Entry::both(0, "socket-in-lower", "connect to a socket of the host's that lies in LOWER", ALWAYS, connect_to_lower),
    Entry::both(0, "fifo-in-lower", "write into a FIFO that a process of the host's reads, in LOWER", ALWAYS, write_to_lower),
    Entry::inside(0, "namespace-handle", "open the host's namespaces by their handles", FROM_YES, open_namespaces),
];

/// On ext4 the root is number 2 and of no generation.
fn root_through(share: &CStr) -> Try {
    const NUMBER_AND_GENERATION: i32 = 1;
    const ROOT: u32 = 2;
    let path = share.to_string_lossy();
    let Ok(mount) = File::open(path.as_ref()) else {
        return not_here(format!("there is no {path}"));
    };
    let handle = Handle::of(share).refused("name_to_handle_at")?;
    if handle.kind != NUMBER_AND_GENERATION {
        return not_here("this filesystem has other handles");
    }
    let opened = Handle::new(NUMBER_AND_GENERATION, &[ROOT, 0]).open(&mount);
    let root = File::from(opened.refused("open_by_handle_at")?);
    match root.metadata().refused("look at it")?.ino() {
        2 => Ok(()),
        other => refused(format!("it is not the root but {other}")),
    }
}

/// The test runs it, as somebody else.
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

/// A directory that is said to be another one of LOWER's. The test looks what UPPER has got.
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

/// The test listens, and passes the path.
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

/// The word behind the name.
fn argument() -> Try<String> {
    std::env::args()
        .nth(2)
        .map_or_else(|| not_here("it wants a path"), Ok)
}

/// Since 6.18 namespaces have handles: a number that counts from the first, a type, the inode.
fn open_namespaces() -> Try {
    const NAMESPACE: i32 = 0xf1;
    // Those that the machine has begun with have the highest inodes, and the lowest numbers.
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

/// Whether this process is in the namespace with this inode.
fn is_own(inode: u64) -> bool {
    let own = fs::read_dir("/proc/self/ns")
        .into_iter()
        .flatten()
        .flatten();
    own.filter_map(|namespace| fs::metadata(namespace.path()).ok())
        .any(|own| own.ino() == inode)
}
