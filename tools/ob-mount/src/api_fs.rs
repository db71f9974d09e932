//! The API file systems of a subhost without a POSTMOUNT: /dev, /dev/pts, /dev/shm and /run; and a
//! copy of /etc/adjtime.

use crate::dev::{self, TTY};
use crate::root::{Root, path_of};
use anyhow::{Context, Result};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fchownat, unlinkat};
use ob_confine::userns::IdRange;
use ob_document::one_line;
use ob_document::steps::{command, word};
use ob_sys::mount::{Attributes, Depth, Filesystem, attach, clone_tree};
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Mounts the API file systems below `root`, with a /run of the size `ram_size` (tmpfs(5), or
/// `none`), and a copy of /etc/adjtime of the host on that of the subhost. Makes missing mount
/// points, and the directories /proc and /sys.
///
/// With `ids`, this process must have the file system ids of root inside, which will own all files.
///
/// Returns the mount points in order. An invalid `ram_size` is reported by `warn`, since a subhost
/// boots without /run.
pub fn mount_api_fs(
    root: &Root,
    ram_size: &str,
    ids: Option<IdRange>,
    warn: impl Fn(&str),
) -> Result<Vec<PathBuf>> {
    let mut mounts = Vec::new();
    let mut put = |filesystem: &OwnedFd, path: &str| -> Result<()> {
        let target = make_directory(root, path)?;
        mounts.push(path_of(&target));
        attach(filesystem, target).with_context(|| format!("mount {path}"))
    };
    let no_devices = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    let options = [(c"mode", "755"), (c"size", "50M")];
    let dev = create(c"tmpfs", &options, MOUNT_ATTR_NOSUID)?;
    let refused = dev::fill(&dev, ids)?;
    put(&dev, "dev")?;
    put(&create_devpts(ids)?, "dev/pts")?;
    let shm = create(c"tmpfs", &[(c"mode", "1777")], no_devices)?;
    put(&shm, "dev/shm")?;
    for node in refused {
        dev::bind_host_node(root, node).with_context(|| format!("make /dev/{node}"))?;
    }
    if ram_size != "none" {
        let options = [(c"mode", "755"), (c"size", ram_size)];
        match create(c"tmpfs", &options, no_devices) {
            Ok(run) => {
                dev::make_directory(&run, "lock", 0o1777)?;
                put(&run, "run")?;
            }
            Err(error) => warn(&format!(
                "RAM_SIZE={ram_size}: no /run is mounted: {}",
                one_line(&error)
            )),
        }
    }
    for directory in ["proc", "sys"] {
        make_directory(root, directory)?;
    }
    let adjtime = root.find(Path::new("etc/adjtime"), OFlag::O_PATH);
    if let (Ok(text), Ok(target)) = (read_adjtime(), adjtime) {
        mounts.push(path_of(&target));
        attach_copy(&text, &dev, target).context("copy /etc/adjtime")?;
    }
    Ok(mounts)
}

fn make_directory(root: &Root, path: &str) -> Result<OwnedFd> {
    root.make_directories(Path::new(path))
        .with_context(|| format!("make the directory {path}"))
}

/// Creates a new instance of devpts, in which terminals belong to the group tty and any user may
/// open ptmx.
fn create_devpts(ids: Option<IdRange>) -> Result<OwnedFd> {
    let tty = dev::group(TTY, ids).to_string();
    let options = [
        (c"gid", tty.as_str()),
        (c"mode", "620"),
        (c"ptmxmode", "666"),
    ];
    let flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    // EINVAL if this stage runs in a user namespace that has no gid 5.
    let pts =
        create(c"devpts", &options, flags).or_else(|_| create(c"devpts", &options[1..], flags))?;
    if let Some(ids) = ids {
        // The kernel creates the root directory and ptmx with the ids of root in the user namespace
        // of the mounter (`mknod_ptmx` in fs/devpts/inode.c), not with the file system ids.
        for name in ["", "ptmx"] {
            let (user, group) = (Some(ids.user(0)), Some(ids.group(0)));
            fchownat(&pts, name, user, group, AtFlags::AT_EMPTY_PATH)
                .context("give /dev/pts to root inside")?;
        }
    }
    Ok(pts)
}

/// Reads /etc/adjtime of the host, hwclock(8), which has three lines.
fn read_adjtime() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/etc/adjtime")?;
    file.take(4096).read_to_end(&mut text)?;
    Ok(text)
}

/// Mounts a nameless file with this text, in the tmpfs `dev`, on `target`. With a bind mount of the
/// file of the host, root inside could change its text, owner and mode.
fn attach_copy(text: &[u8], dev: &OwnedFd, target: OwnedFd) -> Result<()> {
    const NAME: &str = ".adjtime";
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o644);
    let mut file = openat(dev, NAME, flags, mode).map(File::from)?;
    let attached = file
        .write_all(text)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(attach(clone_tree(&file, c"", Depth::One)?, target)?));
    unlinkat(dev, NAME, UnlinkatFlags::NoRemoveDir)?;
    attached
}

/// Creates a file system as a detached mount.
fn create(kind: &CStr, options: &[(&CStr, &str)], attributes: Attributes) -> Result<OwnedFd> {
    let create = || -> nix::Result<OwnedFd> {
        let filesystem = Filesystem::new(kind)?;
        filesystem.set(c"source", kind)?;
        for (key, value) in options {
            filesystem.set(key, *value)?;
        }
        filesystem.create()?;
        filesystem.mount(attributes)
    };
    create().with_context(|| format!("make a {}", kind.to_string_lossy()))
}

/// Appends to `steps` the commands for what [`mount_api_fs`] does below `live`.
pub fn describe(live: &Path, ram_size: &str, steps: &mut Vec<String>) {
    let at = |path: &str| live.join(path).display().to_string();
    let mut step = |words: &[&str]| steps.push(command(words.iter().copied()));
    let size = format!("nosuid,nodev,mode=755,size={ram_size}");
    let mut mount = |kind: &str, options: &str, path: &str| {
        step(&["mkdir", "-p", path]);
        step(&["mount", "-t", kind, "-o", options, kind, path]);
    };
    mount("tmpfs", "nosuid,mode=755,size=50M", &at("dev"));
    mount(
        "devpts",
        "nosuid,noexec,newinstance,gid=5,mode=620,ptmxmode=666",
        &at("dev/pts"),
    );
    mount("tmpfs", "nosuid,nodev,mode=1777", &at("dev/shm"));
    if ram_size != "none" {
        mount("tmpfs", &size, &at("run"));
        step(&["mkdir", "-m", "1777", &at("run/lock")]);
    }
    dev::describe(live, steps);
    steps.push(command(["mkdir", "-p", &at("proc"), &at("sys")]));
    // The shell looks for the file, since the root is not mounted yet.
    steps.push(format!(
        "[ ! -e /etc/adjtime ] || [ ! -e {path} ] || {{ cat /etc/adjtime >{copy} && mount --bind {copy} {path} && rm {copy}; }}",
        path = word(&at("etc/adjtime")),
        copy = word(&at("dev/.adjtime")),
    ));
}
