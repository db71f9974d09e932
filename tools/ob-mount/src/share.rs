//! Shares: directories and files of the host that are bind-mounted in a subhost.

use crate::idmap::Idmap;
use crate::overlay::open_path;
use crate::propagate::Crossing;
use crate::root::{Root, path_of};
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY, S_IFDIR, S_IFMT};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::fstat;
use ob_document::steps::command;
use ob_document::{Document, Usage, state};
use ob_sys::mount::{Depth, attach, clone_tree, set_attributes};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// One SHARE: `HOST[:DEST[:OPTIONS]]`.
pub struct Share {
    host: PathBuf,
    /// The mount point, from the root of the subhost.
    inside: PathBuf,
    read_only: bool,
    /// Whether it is an idmapped mount, so that root inside is root of the host there.
    mapped: bool,
    depth: Depth,
}

/// The result of a share of the plan.
pub enum Outcome {
    /// It is mounted at this path on the host.
    Mounted(PathBuf),
    /// It is LOWER, which the subhost has as its root.
    IsLower,
    /// The host has no such file.
    Missing,
}

impl Share {
    /// Parses a word of SHARE.
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

    /// Parses a word of SHARE_RO, which is read-only with any options.
    pub fn parse_read_only(text: &str) -> Result<Self> {
        Ok(Share {
            read_only: true,
            ..Share::parse(text)?
        })
    }

    /// Mounts it below `root`. Makes no mount point if the file is missing on the host.
    pub fn mount(
        &self,
        root: &Root,
        lower: Option<&Path>,
        idmap: Option<&Idmap>,
    ) -> Result<Outcome> {
        let source = match open_path(&self.host) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Outcome::Missing),
            source => source.with_context(|| format!("share {}", self.host.display()))?,
        };
        if lower.is_some_and(|lower| path_of(&source) == lower) {
            return Ok(Outcome::IsLower);
        }
        let tree = self.clone_source(&source, idmap)?;
        let path = self.attach(root, &source, tree)?;
        Ok(Outcome::Mounted(path))
    }

    /// Appends to `steps` the commands for what [`Share::mount`] does below `live`.
    pub fn describe(&self, live: &str, lower: Option<&Path>, steps: &mut Vec<String>) {
        let host = self.host.display().to_string();
        let inside = format!("{live}{}", self.inside.display());
        if !self.host.exists() {
            steps.push(format!("# {host} does not exist, and is not shared"));
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

    /// Clones its source as a detached mount with the attributes of the share.
    fn clone_source(&self, source: &OwnedFd, idmap: Option<&Idmap>) -> Result<OwnedFd> {
        let context = || format!("share {}", self.host.display());
        let tree = clone_tree(source, c"", self.depth).with_context(context)?;
        if let Some(idmap) = idmap.filter(|_| self.mapped) {
            idmap.apply(&tree, self.depth, &self.host.display().to_string())?;
            if is_directory(source)? {
                // Root inside owns a device node in it, and could open that.
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

    /// Attaches `tree` to the mount point, and returns the path of that on the host.
    fn attach(&self, root: &Root, source: &OwnedFd, tree: OwnedFd) -> Result<PathBuf> {
        let target = self.target(root, source)?;
        let path = path_of(&target);
        attach(tree, target).with_context(|| self.context())?;
        Ok(path)
    }

    /// Opens the mount point. Makes a missing mount point: a directory, or an empty file.
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

/// Mounts a share in the running subhost of `document`. Clones it in the mount namespace of the
/// caller, to which its path belongs, and attaches the clone in that of the subhost.
///
/// If the subhost has a user namespace, the mount propagates to it, see
/// [`Crossing::attach_locked`]: root inside could remount a mount that is attached directly.
pub fn into_running(document: &mut Document, share: &str) -> Result<()> {
    let (host, rest) = share.split_once(':').unwrap_or((share, ""));
    let host = Path::new(host).canonicalize().map_err(|error| {
        Usage(format!(
            "share {host}: {}",
            ob_document::one_line(&error.into())
        ))
    })?;
    let share = Share::parse(&format!("{}:{rest}", host.display()))?;
    let pid_1 = state::open_own_pid1(document)?.context("it is not running")?;
    let idmap = Idmap::of_running(document)?;
    // Before Linux 5.12 clone_tree cannot make the clone private, so its source must be private.
    unshare(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    let crossing = Crossing::from_here_to(&pid_1)?;
    let source =
        open_path(&share.host).with_context(|| format!("share {}", share.host.display()))?;
    let tree = share.clone_source(&source, idmap.as_ref())?;
    crossing.join()?;
    let root = Root::open(Path::new("/"))?;
    let ids = idmap.as_ref().map(Idmap::set_fs_ids).transpose()?;
    let target = share.target(&root, &source)?;
    drop(ids);
    if idmap.is_none() {
        return attach(tree, target).with_context(|| share.context());
    }
    let attached = crossing.attach_locked(&root, &tree, &target);
    attached.with_context(|| share.context())
}
