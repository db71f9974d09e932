//! One share: a directory or file of the host that is bind-mounted in a subhost.

use crate::idmap::Idmap;
use crate::overlay::open_path;
use crate::root::Root;
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY, S_IFDIR, S_IFMT};
use nix::sys::stat::fstat;
use ob_document::steps::{command, word};
use ob_sys::mount::{Depth, clone_tree, set_attributes};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// One SHARE, `HOST[:DEST[:OPTIONS]]`, with an absolute HOST.
pub struct Share(ob_document::Share);

impl Share {
    /// Parses a word of SHARE.
    pub fn parse(text: &str) -> Result<Self> {
        let share = ob_document::Share::parse(text).with_context(|| format!("SHARE={text}"))?;
        ensure!(
            share.host.is_absolute(),
            "SHARE={text}: {} is not an absolute path",
            share.host.display()
        );
        Ok(Share(share))
    }

    /// Parses a word of SHARE or SHARE_RO in a plan. The latter is read-only with any options.
    pub fn parse_planned(text: &str, read_only: bool) -> Result<Self> {
        let mut share = Share::parse(text)?;
        let visible = share.0.ensure_visible();
        visible.with_context(|| format!("SHARE={text}"))?;
        share.0.read_only |= read_only;
        Ok(share)
    }

    /// The path on the host.
    pub fn host(&self) -> &Path {
        &self.0.host
    }

    /// The mount point, from the root of the subhost.
    pub fn inside(&self) -> &Path {
        &self.0.inside
    }

    /// Returns the mount point without `..`, as it is if no directory in it is a symbolic link.
    pub fn plain_inside(&self) -> PathBuf {
        self.0.plain_inside()
    }

    /// Opens its source. Returns None if the host has no such file.
    pub fn open_source(&self) -> Result<Option<OwnedFd>> {
        match open_path(self.host()) {
            Ok(source) => Ok(Some(source)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("share {}", self.host().display())),
        }
    }

    /// Clones its source as a detached mount with the attributes of the share.
    pub fn clone_source(&self, source: &OwnedFd, idmap: Option<&Idmap>) -> Result<OwnedFd> {
        let context = || format!("share {}", self.host().display());
        let depth = self.depth();
        let tree = clone_tree(source, c"", depth).with_context(context)?;
        if let Some(idmap) = idmap.filter(|_| self.0.mapped) {
            idmap.apply(&tree, depth, &self.host().display().to_string())?;
            if is_directory(source)? {
                // Root inside owns a device node in it, and could open that.
                set_attributes(&tree, depth, MOUNT_ATTR_NODEV, 0, None).with_context(context)?;
            }
        }
        if self.0.read_only {
            set_attributes(&tree, depth, MOUNT_ATTR_RDONLY, 0, None)
                .map_err(|error| match error {
                    Errno::ENOSYS => anyhow::anyhow!("read-only shares need Linux 5.12"),
                    error => error.into(),
                })
                .with_context(context)?;
        }
        Ok(tree)
    }

    /// Opens the mount point `path`. Makes a missing mount point: a directory, or an empty file.
    pub fn target(&self, root: &Root, path: &Path, source: &OwnedFd) -> Result<OwnedFd> {
        let target = if is_directory(source)? {
            root.make_directories(path)
        } else {
            root.make_file(path)
        };
        target.with_context(|| self.context())
    }

    /// Describes the share for errors.
    pub fn context(&self) -> String {
        format!(
            "share {} at {}",
            self.host().display(),
            self.inside().display()
        )
    }

    /// Appends to `steps` the commands for what a boot does below `live`.
    pub fn describe(&self, live: &str, lower: Option<&Path>, steps: &mut Vec<String>) {
        let host = self.host().display().to_string();
        let inside = format!("{live}{}", self.0.plain_inside().display());
        if !self.host().exists() {
            steps.push(format!("# {host} does not exist, and is not shared"));
            return;
        }
        if self.host().canonicalize().ok().as_deref() == lower {
            return;
        }
        steps.push(match self.host().is_dir() {
            true => command(["mkdir", "-p", &inside]),
            // `install` would replace an existing file.
            false => format!(
                "[ -e {path} ] || install -D /dev/null {path}",
                path = word(&inside)
            ),
        });
        let bind = match self.depth() {
            Depth::One => "--bind",
            Depth::Recursive => "--rbind",
        };
        let mode = if self.0.read_only { "ro" } else { "rw" };
        steps.push(command(["mount", bind, "-o", mode, &host, &inside]));
    }

    fn depth(&self) -> Depth {
        match self.0.recursive {
            true => Depth::Recursive,
            false => Depth::One,
        }
    }
}

fn is_directory(source: &OwnedFd) -> Result<bool> {
    Ok(fstat(source)?.st_mode & S_IFMT == S_IFDIR)
}
