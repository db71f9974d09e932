//! What lies on the root where no POSTMOUNT does something else: /dev and /run, the host's adjtime.

use crate::root::{Root, path_of};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat, umask};
use nix::unistd::{Gid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use ob_confine::userns::IdRange;
use ob_document::steps::{command, word};
use ob_sys::mount::{Attributes, Depth, Filesystem, attach, clone_tree};
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The group of terminals, tty, as every distribution numbers it.
const TTY: u32 = 5;

/// Name, mode, group, major and minor number.
const NODES: &[(&str, u32, u32, u64, u64)] = &[
    ("console", 0o622, TTY, 5, 1),
    ("full", 0o666, 0, 1, 7),
    ("null", 0o666, 0, 1, 3),
    ("ptmx", 0o666, TTY, 5, 2),
    ("random", 0o444, 0, 1, 8),
    ("tty", 0o666, TTY, 5, 0),
    ("urandom", 0o444, 0, 1, 9),
    ("zero", 0o666, 0, 1, 5),
];

/// Major and minor number of /dev/null.
const NULL: (u64, u64) = (1, 3);

const LINKS: &[(&str, &str)] = &[
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// Mounts /dev with its nodes, /dev/pts, /dev/shm, and /run of `ram_size` (a size of tmpfs(5), or `none`), and a copy of the host's adjtime
/// over one that is there. Makes the directories that a subhost needs where they are missing.
///
/// With `ids` all that is made is root's inside, whom this process must act as.
///
/// Returns where the mounts are, in order. A bad `ram_size` only goes to `tell`, since the subhost boots without it today.
pub fn furnish(
    root: &Root,
    ram_size: &str,
    ids: Option<IdRange>,
    tell: impl Fn(&str),
) -> Result<Vec<PathBuf>> {
    let mut mounts = Vec::new();
    let mut put = |filesystem: &OwnedFd, path: &str| -> Result<()> {
        let target = root
            .make_directories(Path::new(path))
            .with_context(|| format!("make the directory {path}"))?;
        mounts.push(path_of(&target));
        attach(filesystem, target).with_context(|| format!("mount {path}"))
    };

    let dev = make(
        c"tmpfs",
        &[(c"mode", "755"), (c"size", "50M")],
        MOUNT_ATTR_NOSUID,
    )?;
    let missing = fill(&dev, ids)?;
    put(&dev, "dev")?;
    // Its own instance: terminals belong to the group tty, and anyone may open /dev/pts/ptmx.
    let tty = group(TTY, ids).to_string();
    let options = [
        (c"gid", tty.as_str()),
        (c"mode", "620"),
        (c"ptmxmode", "666"),
    ];
    let flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    let pts =
        make(c"devpts", &options, flags).or_else(|_| make(c"devpts", &options[1..], flags))?; // no gid 5 in this user namespace
    if let Some(ids) = ids {
        // The kernel makes these two as the host's root, whoever we are.
        for name in ["", "ptmx"] {
            let (user, group) = (Some(ids.user(0)), Some(ids.group(0)));
            fchownat(&pts, name, user, group, AtFlags::AT_EMPTY_PATH)
                .context("give /dev/pts to root inside")?;
        }
    }
    put(&pts, "dev/pts")?;
    let flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    put(&make(c"tmpfs", &[(c"mode", "1777")], flags)?, "dev/shm")?;
    for node in missing {
        borrow(root, node).with_context(|| format!("make /dev/{node}"))?;
    }

    if ram_size != "none" {
        match make(c"tmpfs", &[(c"mode", "755"), (c"size", ram_size)], flags) {
            Ok(run) => {
                make_directory(&run, "lock", 0o1777)?;
                put(&run, "run")?;
            }
            Err(error) => tell(&format!(
                "RAM_SIZE={ram_size}: no /run is mounted: {}",
                ob_document::one_line(&error)
            )),
        }
    }
    for directory in ["proc", "sys"] {
        let made = root.make_directories(Path::new(directory));
        made.with_context(|| format!("make the directory {directory}"))?;
    }

    let adjtime = root.find(Path::new("etc/adjtime"), OFlag::O_PATH);
    if let (Ok(text), Ok(target)) = (read_adjtime(), adjtime) {
        mounts.push(path_of(&target));
        attach_copy(&text, &dev, target).context("copy /etc/adjtime")?;
    }
    Ok(mounts)
}

/// Reads the host's adjtime, hwclock(8), which is three lines.
fn read_adjtime() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/etc/adjtime")?;
    file.take(4096).read_to_end(&mut text)?;
    Ok(text)
}

/// Mounts a file with this text on `target`; it lies in memory and loses its name. A bind mount of the
/// host's file would let root inside change that file, its owner and its mode.
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

/// What [`furnish`] would do below `live`, as commands.
pub fn describe(live: &Path, ram_size: &str, steps: &mut Vec<String>) {
    let at = |path: &str| live.join(path).display().to_string();
    let (dev, pts, shm, run) = (at("dev"), at("dev/pts"), at("dev/shm"), at("run"));
    let mut step = |words: &[&str]| steps.push(command(words.iter().copied()));
    let size = format!("nosuid,nodev,mode=755,size={ram_size}");
    let mut mount = |kind: &str, options: &str, path: &str| {
        step(&["mkdir", "-p", path]);
        step(&["mount", "-t", kind, "-o", options, kind, path]);
    };
    mount("tmpfs", "nosuid,mode=755,size=50M", &dev);
    mount(
        "devpts",
        "nosuid,noexec,newinstance,gid=5,mode=620,ptmxmode=666",
        &pts,
    );
    mount("tmpfs", "nosuid,nodev,mode=1777", &shm);
    if ram_size != "none" {
        mount("tmpfs", &size, &run);
        step(&["mkdir", "-m", "1777", &at("run/lock")]);
    }
    for (name, mode, owner, major, minor) in NODES {
        let (path, mode) = (at(&format!("dev/{name}")), format!("{mode:o}"));
        let (major, minor) = (major.to_string(), minor.to_string());
        step(&["mknod", "-m", &mode, &path, "c", &major, &minor]);
        if *owner != 0 {
            step(&["chgrp", &owner.to_string(), &path]);
        }
    }
    for (name, target) in LINKS {
        step(&["ln", "-s", target, &at(&format!("dev/{name}"))]);
    }
    step(&["mkdir", "-p", &at("proc"), &at("sys")]);
    // As the root has it that will be there: with LOWER=/ the host's.
    steps.push(format!(
        "[ ! -e /etc/adjtime ] || [ ! -e {path} ] || {{ cat /etc/adjtime >{copy} && mount --bind {copy} {path} && rm {copy}; }}",
        path = word(&at("etc/adjtime")),
        copy = word(&at("dev/.adjtime")),
    ));
}

/// Makes a filesystem, not yet attached anywhere.
fn make(kind: &CStr, options: &[(&CStr, &str)], attributes: Attributes) -> Result<OwnedFd> {
    let made = || -> nix::Result<OwnedFd> {
        let filesystem = Filesystem::new(kind)?;
        filesystem.set(c"source", kind)?;
        for (key, value) in options {
            filesystem.set(key, *value)?;
        }
        filesystem.create()?;
        filesystem.mount(attributes)
    };
    made().with_context(|| format!("make a {}", kind.to_string_lossy()))
}

/// Fills /dev; returns the nodes that we are not allowed to make.
fn fill(dev: &OwnedFd, ids: Option<IdRange>) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    let old = umask(Mode::empty()); // the modes are meant as they are written
    for (name, mode, owner, major, minor) in NODES {
        // Who is root of a user namespace alone is to read nothing that is typed at the host's console.
        let (major, minor) = match *name {
            "console" if ids.is_some() => NULL,
            _ => (*major, *minor),
        };
        let made = mknodat(
            dev,
            *name,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(*mode),
            makedev(major, minor),
        );
        match made {
            // Not root of the host, but of a user namespace. The host's ptmx would open the host's terminals.
            Err(Errno::EPERM) if *name == "ptmx" => symlinkat("pts/ptmx", dev, *name)?,
            Err(Errno::EPERM) => missing.push(*name),
            made => made.with_context(|| format!("make /dev/{name}"))?,
        }
        if made.is_ok() && *owner != 0 {
            let group = Some(group(*owner, ids));
            fchownat(dev, *name, None, group, AtFlags::AT_SYMLINK_NOFOLLOW)
                .with_context(|| format!("give /dev/{name} to its group"))?;
        }
    }
    umask(old);
    for (name, target) in LINKS {
        symlinkat(*target, dev, *name).with_context(|| format!("make /dev/{name}"))?;
    }
    make_directory(dev, "pts", 0o755)?;
    make_directory(dev, "shm", 0o755)?;
    Ok(missing)
}

/// The group that is `inside` in there.
fn group(inside: u32, ids: Option<IdRange>) -> Gid {
    ids.map_or(Gid::from_raw(inside), |ids| ids.group(inside))
}

/// Binds a node of the host's /dev, which its kernel knows to be allowed.
fn borrow(root: &Root, node: &str) -> Result<()> {
    let target = root.make_file(&Path::new("dev").join(node))?;
    let host = nix::fcntl::open(
        &Path::new("/dev").join(node),
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    Ok(attach(clone_tree(host, c"", Depth::One)?, target)?)
}

fn make_directory(parent: impl AsFd, name: &str, mode: u32) -> Result<()> {
    let old = umask(Mode::empty());
    let made = mkdirat(parent, name, Mode::from_bits_truncate(mode));
    umask(old);
    made.with_context(|| format!("make the directory {name}"))
}

/// Copies the reaper to /.reaper, where scripts of one's own may name it. One that is there already is theirs and stays.
pub fn provide_reaper(root: &Root) -> Result<()> {
    let path = Path::new(".reaper");
    let nofollow = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    if root.find(path, nofollow).is_ok() {
        return Ok(());
    }
    let reaper = std::env::current_exe()?.with_file_name("ob-reaper");
    let reaper = std::fs::read(&reaper).with_context(|| reaper.display().to_string())?;
    root.create(path, 0o755)?.write_all(&reaper)?;
    Ok(())
}
