//! Directories and files of the host in the subhost.

use crate::mapped::Mapped;
use crate::propagate::Crossing;
use crate::root::{Root, path_of};
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY, S_IFDIR, S_IFMT};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, fstat};
use ob_document::steps::command;
use ob_document::{Document, Usage, state};
use ob_sys::mount::{Depth, attach, clone_tree, set_attributes};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// One SHARE: `HOST[:DEST[:OPTIONS]]`.
pub struct Share {
    host: PathBuf,
    /// Where it is put, from the subhost's root.
    inside: PathBuf,
    read_only: bool,
    /// Whether its owners are as inside, and what root makes there is root's on the host.
    mapped: bool,
    depth: Depth,
}

/// What has become of a SHARE of the plan.
pub enum Outcome {
    /// It is mounted at this path of the host's.
    Mounted(PathBuf),
    /// It is LOWER itself, which the subhost has anyway.
    IsLower,
    /// The host has no such file.
    Missing,
}

impl Share {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self> {
        let share = ob_document::Share::parse(text).with_context(|| format!("SHARE={text}"))?;
        ensure!(
            share.host.is_absolute(),
            "SHARE={text}: {} is not an absolute path",
            share.host.display()
        );
        Ok(Share {
            host: share.host,
            inside: share.inside,
            read_only: share.read_only,
            mapped: share.mapped,
            depth: if share.recursive {
                Depth::Recursive
            } else {
                Depth::One
            },
        })
    }

    /// Reads one of SHARE_RO, which is read-only whatever its options are.
    pub fn parse_read_only(text: &str) -> Result<Self> {
        Ok(Share {
            read_only: true,
            ..Share::parse(text)?
        })
    }

    /// Puts it below `root`. A missing host path leaves nothing inside.
    pub fn mount(
        &self,
        root: &Root,
        lower: Option<&Path>,
        mapped: Option<&Mapped>,
    ) -> Result<Outcome> {
        let source = match open(&self.host, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Outcome::Missing),
            source => source.with_context(|| format!("share {}", self.host.display()))?,
        };
        if lower.is_some_and(|lower| path_of(&source) == lower) {
            return Ok(Outcome::IsLower);
        }
        let tree = self.copy(&source, mapped)?;
        let path = self.put(root, &source, tree)?;
        Ok(Outcome::Mounted(path))
    }

    /// What [`Share::mount`] would do below `live`, as commands.
    pub fn describe(&self, live: &str, lower: Option<&Path>, steps: &mut Vec<String>) {
        let host = self.host.display().to_string();
        let inside = format!("{live}{}", self.inside.display());
        if !self.host.exists() {
            steps.push(format!("# {host} is not there, and not shared"));
            return;
        }
        if self.host.canonicalize().ok().as_deref() == lower {
            return;
        }
        steps.push(match self.host.is_dir() {
            true => command(["mkdir", "-p", &inside]),
            false => command(["install", "-D", "/dev/null", &inside]),
        });
        let bind = match self.depth {
            Depth::One => "--bind",
            Depth::Recursive => "--rbind",
        };
        let mode = if self.read_only { "ro" } else { "rw" };
        steps.push(command(["mount", bind, "-o", mode, &host, &inside]));
    }

    /// Makes the detached mount of it.
    fn copy(&self, source: &OwnedFd, mapped: Option<&Mapped>) -> Result<OwnedFd> {
        let context = || format!("share {}", self.host.display());
        let tree = clone_tree(source, c"", self.depth).with_context(context)?;
        if let Some(mapped) = mapped.filter(|_| self.mapped) {
            mapped.map(&tree, self.depth, &self.host.display().to_string())?;
            if is_directory(source)? {
                // Owned by root inside, a device in there would be open to it.
                set_attributes(&tree, self.depth, MOUNT_ATTR_NODEV, 0, None)
                    .with_context(context)?;
            }
        }
        if self.read_only {
            set_attributes(&tree, self.depth, MOUNT_ATTR_RDONLY, 0, None)
                .map_err(|error| match error {
                    Errno::ENOSYS => anyhow::anyhow!("read-only shares need Linux 5.12"),
                    error => error.into(),
                })
                .with_context(context)?;
        }
        Ok(tree)
    }

    /// Puts the mount on its place.
    fn put(&self, root: &Root, source: &OwnedFd, tree: OwnedFd) -> Result<PathBuf> {
        let target = self.target(root, source)?;
        let path = path_of(&target);
        attach(tree, target).with_context(|| self.context())?;
        Ok(path)
    }

    /// Opens its place, made where it is not there: a directory for a directory, else an empty file.
    fn target(&self, root: &Root, source: &OwnedFd) -> Result<OwnedFd> {
        let target = if is_directory(source)? {
            root.make_directories(&self.inside)
        } else {
            root.make_file(&self.inside)
        };
        target.with_context(|| self.context())
    }

    fn context(&self) -> String {
        format!("share {} at {}", self.host.display(), self.inside.display())
    }
}

fn is_directory(source: &OwnedFd) -> Result<bool> {
    Ok(fstat(source)?.st_mode & S_IFMT == S_IFDIR)
}

/// Puts a share into the running subhost of `document`: copied here, where its path means something, and attached there.
///
/// A subhost with a user namespace gets it by propagation, see [`Crossing::attach_locked`]: root
/// inside can remount what is attached there directly.
pub fn into_running(document: &mut Document, share: &str) -> Result<()> {
    let (host, rest) = share.split_once(':').unwrap_or((share, ""));
    let host = Path::new(host).canonicalize().map_err(|error| {
        Usage(format!(
            "share {host}: {}",
            ob_document::one_line(&error.into())
        ))
    })?;
    let share = Share::parse(&format!("{}:{rest}", host.display()))?;
    let pid_1 = state::open_own_pid1(document).context("it is not running")?;
    let mapped = Mapped::of_running(document)?;
    // Private from here on, so that the copy is so on a kernel before 5.12 as well.
    unshare(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    let crossing = Crossing::from_here_to(&pid_1)?;
    let source = open(&share.host, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("share {}", share.host.display()))?;
    let tree = share.copy(&source, mapped.as_ref())?;
    crossing.join()?;
    let root = Root::open(Path::new("/"))?;
    let acting = mapped.as_ref().map(Mapped::act_as_root).transpose()?;
    let target = share.target(&root, &source)?;
    drop(acting);
    if mapped.is_none() {
        return attach(tree, target).with_context(|| share.context());
    }
    let attached = crossing.attach_locked(&root, &tree, &target);
    attached.with_context(|| share.context())
}
