//! The API file systems of a subhost without a POSTMOUNT: /dev, /dev/pts, /dev/shm and /run; and a
//! copy of /etc/adjtime. A boot mounts what [`list`] returns, and a dry run prints it.

use crate::dev::{self, Entry, TTY};
use crate::root::{Root, path_of};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fchownat, unlinkat};
use ob_confine::userns::IdRange;
use ob_document::one_line;
use ob_document::steps::{command, word};
use ob_sys::mount::{Depth, Filesystem, attach, clone_tree};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An API file system, which a boot mounts and a dry run prints.
struct ApiMount {
    kind: &'static str,
    /// The mount point in the root.
    path: &'static str,
    /// The options of `mount(8)`.
    options: String,
    entries: &'static [Entry],
}

/// Lists the mounts in order.
fn list(ram_size: &str, ids: Option<IdRange>) -> Vec<ApiMount> {
    let mount = |kind, path, options: &str, entries| ApiMount {
        kind,
        path,
        options: options.to_owned(),
        entries,
    };
    // A new instance, in which terminals belong to the group tty and any user may open ptmx.
    let pts = format!(
        "nosuid,noexec,gid={},mode=620,ptmxmode=666",
        dev::group(TTY, ids)
    );
    let run = format!("nosuid,nodev,mode=755,size={ram_size}");
    let lock = &[Entry::Directory("lock", 0o1777)];
    let mut list = vec![
        mount("tmpfs", "dev", "nosuid,mode=755,size=50M", dev::ENTRIES),
        mount("devpts", "dev/pts", &pts, &[]),
        mount("tmpfs", "dev/shm", "nosuid,nodev,mode=1777", &[]),
        mount("tmpfs", "run", &run, lock),
    ];
    list.retain(|mount| mount.path != "run" || ram_size != "none");
    list
}

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
    for mount in list(ram_size, ids) {
        let filesystem = match mount.create(ids) {
            Err(error) if mount.path == "run" => {
                let error = one_line(&error);
                warn(&format!("RAM_SIZE={ram_size}: no /run is mounted: {error}"));
                continue;
            }
            filesystem => filesystem?,
        };
        let mut refused = Vec::new();
        for entry in mount.entries {
            let name = entry.name();
            let made = entry.make(&filesystem, ids);
            if !made.with_context(|| format!("make /{}/{name}", mount.path))? {
                refused.push(name);
            }
        }
        let target = make_directory(root, mount.path)?;
        mounts.push(path_of(&target));
        attach(filesystem, target).with_context(|| format!("mount {}", mount.path))?;
        for node in refused {
            dev::bind_host_node(root, node).with_context(|| format!("make /dev/{node}"))?;
        }
    }
    for directory in ["proc", "sys"] {
        make_directory(root, directory)?;
    }
    let adjtime = root.find(Path::new("etc/adjtime"), OFlag::O_PATH);
    if let (Ok(text), Ok(target)) = (read_adjtime(), adjtime) {
        mounts.push(path_of(&target));
        let dev = make_directory(root, "dev")?;
        attach_copy(&text, &dev, target).context("copy /etc/adjtime")?;
    }
    Ok(mounts)
}

/// Appends to `steps` the commands for what [`mount_api_fs`] does below `live`.
pub fn describe(live: &Path, ram_size: &str, steps: &mut Vec<String>) {
    let at = |path: &str| live.join(path).display().to_string();
    for mount in list(ram_size, None) {
        let (kind, path) = (mount.kind, at(mount.path));
        steps.push(command(["mkdir", "-p", &path]));
        let words = ["mount", "-t", kind, "-o", &mount.options, kind, &path];
        steps.push(command(words));
        for entry in mount.entries {
            entry.describe(Path::new(&path), steps);
        }
    }
    steps.push(command(["mkdir", "-p", &at("proc"), &at("sys")]));
    // The shell looks for the file, since the root is not mounted yet.
    steps.push(format!(
        "[ ! -e /etc/adjtime ] || [ ! -e {path} ] || {{ cat /etc/adjtime >{copy} && mount --bind {copy} {path} && rm {copy}; }}",
        path = word(&at("etc/adjtime")),
        copy = word(&at("dev/.adjtime")),
    ));
}

impl ApiMount {
    /// Creates the file system as a detached mount.
    fn create(&self, ids: Option<IdRange>) -> Result<OwnedFd> {
        let created = match self.create_with(|_| true) {
            // EINVAL if this stage runs in a user namespace that has no gid 5.
            Err(Errno::EINVAL) if self.kind == "devpts" => self.create_with(|key| key != "gid"),
            created => created,
        };
        let created = created.with_context(|| format!("make a {}", self.kind))?;
        if let Some(ids) = ids.filter(|_| self.kind == "devpts") {
            // The kernel creates the root directory and ptmx with the ids of root in the user
            // namespace of the mounter (`mknod_ptmx` in fs/devpts/inode.c), not with the file
            // system ids.
            for name in ["", "ptmx"] {
                let (user, group) = (Some(ids.user(0)), Some(ids.group(0)));
                fchownat(&created, name, user, group, AtFlags::AT_EMPTY_PATH)
                    .context("give /dev/pts to root inside")?;
            }
        }
        Ok(created)
    }

    fn create_with(&self, is_set: impl Fn(&str) -> bool) -> nix::Result<OwnedFd> {
        let text = |text| CString::new(text).map_err(|_| Errno::EINVAL);
        let kind = text(self.kind)?;
        let filesystem = Filesystem::new(&kind)?;
        filesystem.set(c"source", self.kind)?;
        let mut attributes = 0;
        for option in self.options.split(',') {
            match (option, option.split_once('=')) {
                ("nosuid", _) => attributes |= MOUNT_ATTR_NOSUID,
                ("nodev", _) => attributes |= MOUNT_ATTR_NODEV,
                ("noexec", _) => attributes |= MOUNT_ATTR_NOEXEC,
                (_, Some((key, value))) if is_set(key) => filesystem.set(&text(key)?, value)?,
                (_, Some(_)) => {}
                (_, None) => return Err(Errno::EINVAL),
            }
        }
        filesystem.create()?;
        filesystem.mount(attributes)
    }
}

fn make_directory(root: &Root, path: &str) -> Result<OwnedFd> {
    root.make_directories(Path::new(path))
        .with_context(|| format!("make the directory {path}"))
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
