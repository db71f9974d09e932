//! Mounts: of filesystems of the host, and over protected files.

use crate::places::Mounted;
use crate::system;
use crate::table::{ALWAYS, FROM_YES};
use crate::{Entry, Refused, Try, not_here, refused};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chdir, chroot};
use std::ffi::CString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Entries about mounts.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(9, "debugfs", "mount debugfs", FROM_YES, || mount_and_look("debugfs")),
    Entry::inside(9, "tracefs", "mount tracefs", FROM_YES, || mount_and_look("tracefs")),
    Entry::inside(18, "binfmt", "mount binfmt_misc, to register an interpreter on the host", FROM_YES, binfmt),
    Entry::inside(0, "securityfs", "mount securityfs", FROM_YES, || mount_and_look("securityfs")),
    Entry::inside(0, "configfs", "mount configfs", FROM_YES, || mount_and_look("configfs")),
    Entry::inside(0, "efivarfs", "mount efivarfs, the variables of the firmware", FROM_YES, || mount_and_look("efivarfs")),
    Entry::inside(0, "pstore", "mount pstore, the records of kernel crashes", FROM_YES, || mount_and_look("pstore")),
    Entry::inside(0, "filesystem-image", "mount a filesystem image of the attacker, `fsopen(2)`", FROM_YES, read_image),
    Entry::inside(0, "below-root", "reach the root of the host by joining the present mount namespace again", ALWAYS, below_root),
    Entry::inside(0, "chroot", "escape the root with `chroot(2)` and an open directory", ALWAYS, climb),
    Entry::inside(0, "mask", "unmount the cover of a file of `MASK` and read the file", FROM_YES, uncover),
    Entry::inside(0, "read-only-share", "remount a read-only share writable and write", FROM_YES, write_share),
    Entry::inside(0, "nested-read-only-share", "remount a read-only share writable in a nested user namespace", ALWAYS, write_share_nested),
    Entry::inside(0, "overlay-share", "write to a read-only share through an overlay", ALWAYS, write_by_overlay),
    Entry::inside(0, "bound-share", "bind a read-only share elsewhere and remount it writable", FROM_YES, write_bound),
    Entry::inside(0, "devices-on-shm", "remount `/dev/shm` without nodev and open a device there", FROM_YES, devices_on_shm),
    Entry::inside(0, "devices-on-root", "remount the root without nodev and open a device there", FROM_YES, devices_on_root),
    Entry::inside(0, "unmount-dev", "unmount `/dev`, to reach the directory below", FROM_YES, unmount_dev),
    Entry::inside(0, "devices-on-own", "mount a tmpfs without nodev and open a device there", FROM_YES, devices_on_own),
];

fn mount_and_look(kind: &str) -> Try {
    let mounted = Mounted::new(kind, None).known(format!("mount {kind}"))?;
    fs::read_dir(mounted.at(""))
        .refused("list the mount")
        .map(drop)
}

/// Newer kernels mount a separate instance for each user namespace.
fn binfmt() -> Try {
    let mounted = Mounted::new("binfmt_misc", None).known("mount binfmt_misc")?;
    let map = fs::read_to_string("/proc/self/uid_map").refused("uid_map")?;
    let is_host = map.split_whitespace().nth(1) == Some("0");
    let register = OpenOptions::new().write(true).open(mounted.at("register"));
    let owner = register
        .and_then(|file| file.metadata())
        .refused("register")?
        .uid();
    match (is_host, owner) {
        (false, 0) => refused("the mount is a separate instance"),
        _ => Ok(()),
    }
}

/// Tries all filesystem types on devices, without a device: the kernel checks the permission first.
fn read_image() -> Try {
    let kinds = fs::read_to_string("/proc/filesystems").known("/proc/filesystems")?;
    let mut last = not_here("this kernel has no such filesystem");
    for kind in kinds.lines().filter_map(|line| line.strip_prefix('\t')) {
        let name = CString::new(kind).unwrap_or_default();
        let created = system::fsopen(&name).and_then(system::create);
        last = match created {
            Err(error @ (Errno::EPERM | Errno::ENOSYS)) => Err(error).known(format!("make {kind}")),
            // Other errors mean that only the device is missing.
            _ => Ok(()),
        };
        if last.is_ok() {
            break;
        }
    }
    last
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// After setns(2), a process is at the root of the mount namespace, below later mounts on it.
fn below_root() -> Try {
    let root = fs::metadata("/").refused("stat /")?;
    let namespace = File::open("/proc/self/ns/mnt").refused("/proc/self/ns/mnt")?;
    unshare(CloneFlags::CLONE_NEWNS).refused("unshare")?;
    setns(&namespace, CloneFlags::CLONE_NEWNS).refused("setns")?;
    let joined = fs::metadata("/").refused("stat /")?;
    unshare(CloneFlags::CLONE_NEWNS).refused("unshare")?;
    let _ = umount2("/", MntFlags::MNT_DETACH);
    let _ = chdir("/");
    let below = fs::metadata("/..").refused("stat /..")?;
    if is_same(&root, &joined) && is_same(&root, &below) {
        return refused("the directory is the root of the subhost");
    }
    Ok(())
}

fn climb() -> Try {
    let root = fs::metadata("/").refused("stat /")?;
    let kept = File::open("/").refused("open /")?;
    let directory = "/root-of-an-attack";
    let _ = fs::create_dir(directory);
    let changed = chroot(directory);
    let climbed = changed.and_then(|()| nix::unistd::fchdir(&kept));
    for _ in 0..64 {
        let _ = chdir("..");
    }
    let found = fs::metadata(".").refused("stat .")?;
    let _ = fs::remove_dir(Path::new(".").join(directory.trim_start_matches('/')));
    climbed.refused("chroot")?;
    if is_same(&root, &found) {
        return refused("the directory is the root of the subhost");
    }
    Ok(())
}

/// The test has masked a file with one line.
fn uncover() -> Try {
    let masked = Path::new("/srv/masked");
    let is_read = || fs::read(masked).is_ok_and(|text| !text.is_empty());
    if !masked.exists() {
        return not_here("no file is masked");
    }
    let _ = unshare(CloneFlags::CLONE_NEWNS);
    let taken = umount2(masked, MntFlags::MNT_DETACH);
    if is_read() {
        return Ok(());
    }
    // A bind mount without the mounts on it.
    let mirror = Path::new("/mirror-of-an-attack");
    let _ = fs::create_dir(mirror);
    let bound = mount(
        Some("/srv"),
        mirror,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    );
    let is_seen = fs::read(mirror.join("masked")).is_ok_and(|text| !text.is_empty());
    let _ = (
        umount2(mirror, MntFlags::MNT_DETACH),
        fs::remove_dir(mirror),
    );
    if is_seen {
        return Ok(());
    }
    taken.and(bound).refused("umount")?;
    refused("the file is still covered")
}

const SHARE: &str = "/srv/readonly";

fn write_there(directory: &Path) -> Try {
    let file = directory.join("written-by-an-attack");
    fs::write(&file, "").refused("write")?;
    fs::remove_file(file).refused("remove")
}

fn write_share() -> Try {
    if !Path::new(SHARE).exists() {
        return not_here("the share does not exist");
    }
    let _ = unshare(CloneFlags::CLONE_NEWNS);
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    let mounted = mount(None::<&str>, SHARE, None::<&str>, again, None::<&str>);
    match write_there(Path::new(SHARE)) {
        Ok(()) => Ok(()),
        failed => mounted.refused("mount -o remount,rw").and(failed),
    }
}

fn write_share_nested() -> Try {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).refused("unshare")?;
    // Without a map, this process has all capabilities over the mounts of the new namespace.
    write_share()
}

fn write_bound() -> Try {
    if !Path::new(SHARE).exists() {
        return not_here("the share does not exist");
    }
    let _ = unshare(CloneFlags::CLONE_NEWNS);
    let mirror = Path::new("/mirror-of-an-attack");
    fs::create_dir(mirror).refused("mkdir")?;
    let bound = mount(
        Some(SHARE),
        mirror,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    );
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    let changed =
        bound.and_then(|()| mount(None::<&str>, mirror, None::<&str>, again, None::<&str>));
    let written = changed.refused("mount").and_then(|()| write_there(mirror));
    let _ = (
        umount2(mirror, MntFlags::MNT_DETACH),
        fs::remove_dir(mirror),
    );
    written
}

/// The write must go to the upper layer of the attacker.
fn write_by_overlay() -> Try {
    let own = Mounted::new("tmpfs", None).refused("mount tmpfs")?;
    for directory in ["upper", "work", "merged"] {
        fs::create_dir(own.at(directory)).refused("mkdir")?;
    }
    let merged = own.at("merged");
    let options = format!(
        "lowerdir={SHARE},upperdir={},workdir={}",
        own.at("upper").display(),
        own.at("work").display()
    );
    mount(
        Some("overlay"),
        &merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .refused("mount overlay")?;
    let written = fs::write(merged.join("canary"), "changed");
    let _ = umount2(&merged, MntFlags::MNT_DETACH);
    written.refused("write")?;
    match fs::read_to_string(Path::new(SHARE).join("canary"))
        .refused("read")?
        .as_str()
    {
        "changed" => Ok(()),
        _ => refused("only the copy in the upper layer changed"),
    }
}

fn devices_on_shm() -> Try {
    let _ = unshare(CloneFlags::CLONE_NEWNS);
    let changed = mount(
        None::<&str>,
        "/dev/shm",
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND,
        None::<&str>,
    );
    changed.known("mount -o remount,dev")?;
    open_device(Path::new("/dev/shm"))
}

fn devices_on_root() -> Try {
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    let _ = unshare(CloneFlags::CLONE_NEWNS);
    let changed = mount(None::<&str>, "/", None::<&str>, again, None::<&str>);
    open_device(Path::new("/")).or_else(|why| changed.refused("mount -o remount,dev").and(Err(why)))
}

fn unmount_dev() -> Try {
    let _ = unshare(CloneFlags::CLONE_NEWNS);
    umount2("/dev", MntFlags::MNT_DETACH).refused("umount")
}

fn devices_on_own() -> Try {
    let own = Mounted::new("tmpfs", None).refused("mount tmpfs")?;
    open_device(&own.at(""))
}

/// Makes a null device there and opens it; if that opens, other devices do.
fn open_device(directory: &Path) -> Try {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let node = directory.join("device-of-an-attack");
    mknod(
        &node,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        makedev(1, 3),
    )
    .refused("mknod")?;
    let opened = File::open(&node);
    let _ = fs::remove_file(&node);
    opened.refused("open a node").map(drop)
}
