//! Mounts: of what is the host's, and over what is kept from the subhost.

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

/// What has to do with mounts.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(9, "debugfs", "mount debugfs, the kernel's workshop", FROM_YES, || mount_and_look("debugfs")),
    Entry::inside(9, "tracefs", "mount tracefs, which sees into all processes", FROM_YES, || mount_and_look("tracefs")),
    Entry::inside(18, "binfmt", "mount binfmt_misc, to have the host run an interpreter of the attacker's", FROM_YES, binfmt),
    Entry::inside(0, "securityfs", "mount securityfs", FROM_YES, || mount_and_look("securityfs")),
    Entry::inside(0, "configfs", "mount configfs", FROM_YES, || mount_and_look("configfs")),
    Entry::inside(0, "efivarfs", "mount the variables of the firmware", FROM_YES, || mount_and_look("efivarfs")),
    Entry::inside(0, "pstore", "mount what the kernel has left of its last crash", FROM_YES, || mount_and_look("pstore")),
    Entry::inside(0, "filesystem-image", "have the kernel read a filesystem of the attacker's making, by `fsopen(2)`", FROM_YES, read_image),
    Entry::inside(0, "below-root", "find the host's root by joining the own mount namespace again", ALWAYS, below_root),
    Entry::inside(0, "chroot", "climb out of the root by `chroot(2)` with a directory kept outside of it", ALWAYS, climb),
    Entry::inside(0, "mask", "take away what covers a file of `MASK`, and read it", FROM_YES, uncover),
    Entry::inside(0, "read-only-share", "make a read-only share writable, and write", FROM_YES, write_share),
    Entry::inside(0, "nested-read-only-share", "the same from a user namespace in the subhost", ALWAYS, write_share_nested),
    Entry::inside(0, "overlay-share", "write to a read-only share by an overlay on it", ALWAYS, write_by_overlay),
    Entry::inside(0, "bound-share", "bind a read-only share elsewhere, writable", FROM_YES, write_bound),
    Entry::inside(0, "devices-on-shm", "make `/dev/shm` carry devices, and open one there", FROM_YES, devices_on_shm),
    Entry::inside(0, "devices-on-root", "make the root carry devices, and open one there", FROM_YES, devices_on_root),
    Entry::inside(0, "unmount-dev", "take away `/dev`, to see what lies below it", FROM_YES, unmount_dev),
    Entry::inside(0, "devices-on-own", "mount a filesystem of its own that carries devices, and open one there", FROM_YES, devices_on_own),
];

fn mount_and_look(kind: &str) -> Try {
    let mounted = Mounted::new(kind, None).known(format!("mount {kind}"))?;
    fs::read_dir(mounted.at(""))
        .refused("look into it")
        .map(drop)
}

/// In a user namespace newer kernels give an instance that counts for its programs alone.
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
        (false, 0) => refused("mounted, but an instance of its own"),
        _ => Ok(()),
    }
}

/// All kinds that lie on disks; none is given one, for the kernel asks who we are before.
fn read_image() -> Try {
    let kinds = fs::read_to_string("/proc/filesystems").known("/proc/filesystems")?;
    let mut last = not_here("there are no such filesystems");
    for kind in kinds.lines().filter_map(|line| line.strip_prefix('\t')) {
        let name = CString::new(kind).unwrap_or_default();
        let created = system::fsopen(&name).and_then(system::create);
        last = match created {
            Err(error @ (Errno::EPERM | Errno::ENOSYS)) => Err(error).known(format!("make {kind}")),
            // It wants to know where the filesystem lies.
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

/// Who joins a mount namespace is at its root, under whatever else was mounted there.
fn below_root() -> Try {
    let root = fs::metadata("/").refused("look at /")?;
    let namespace = File::open("/proc/self/ns/mnt").refused("/proc/self/ns/mnt")?;
    unshare(CloneFlags::CLONE_NEWNS).refused("unshare")?;
    setns(&namespace, CloneFlags::CLONE_NEWNS).refused("setns")?;
    let joined = fs::metadata("/").refused("look at /")?;
    unshare(CloneFlags::CLONE_NEWNS).refused("unshare")?;
    let _ = umount2("/", MntFlags::MNT_DETACH);
    let _ = chdir("/");
    let below = fs::metadata("/..").refused("look at /..")?;
    if is_same(&root, &joined) && is_same(&root, &below) {
        return refused("there is the subhost's own root");
    }
    Ok(())
}

fn climb() -> Try {
    let root = fs::metadata("/").refused("look at /")?;
    let kept = File::open("/").refused("open /")?;
    let directory = "/root-of-an-attack";
    let _ = fs::create_dir(directory);
    let changed = chroot(directory);
    let climbed = changed.and_then(|()| nix::unistd::fchdir(&kept));
    for _ in 0..64 {
        let _ = chdir("..");
    }
    let found = fs::metadata(".").refused("look at .")?;
    let _ = fs::remove_dir(Path::new(".").join(directory.trim_start_matches('/')));
    climbed.refused("chroot")?;
    if is_same(&root, &found) {
        return refused("there is the subhost's own root");
    }
    Ok(())
}

/// The test has written a line into a file, and has it masked.
fn uncover() -> Try {
    let masked = Path::new("/srv/masked");
    let is_read = || fs::read(masked).is_ok_and(|text| !text.is_empty());
    if !masked.exists() {
        return not_here("there is nothing masked");
    }
    let _ = unshare(CloneFlags::CLONE_NEWNS);
    let taken = umount2(masked, MntFlags::MNT_DETACH);
    if is_read() {
        return Ok(());
    }
    // All but what lies on it.
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
    refused("it is covered still")
}

const SHARE: &str = "/srv/readonly";

fn write_there(directory: &Path) -> Try {
    let file = directory.join("written-by-an-attack");
    fs::write(&file, "").refused("write")?;
    fs::remove_file(file).refused("remove")
}

fn write_share() -> Try {
    if !Path::new(SHARE).exists() {
        return not_here("there is no share");
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
    // Without a map we are nobody, but with all capabilities over what is mounted here.
    write_share()
}

fn write_bound() -> Try {
    if !Path::new(SHARE).exists() {
        return not_here("there is no share");
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

/// What is written must land in the attacker's own layer.
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
        _ => refused("only a copy was written"),
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

/// Opens a null device that we have made there: what opens with it opens with others.
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
