//! Idmapped mounts: the layers and shares of a subhost with a user namespace. Root inside owns the
//! files that root owns on disk.

use crate::overlay::{self, Layer, open_path};
use crate::ranges;
use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{self, MOUNT_ATTR_NODEV};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{fchdir, pipe2};
use ob_confine::userns::{IdRange, UsernsSetting, is_closed};
use ob_document::{Document, one_line};
use ob_sys::fdstore::FdStore;
use ob_sys::identity::{FsIdsGuard, set_fs_ids};
use ob_sys::mount::{Depth, Filesystem, attach, clone_tree, set_attributes};
use ob_sys::process::spawn;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The id mapping of a subhost.
pub struct Idmap {
    /// The ids on the host that it uses.
    pub ids: IdRange,
    /// A user namespace with that mapping: `mount_setattr(2)` reads it from there.
    namespace: File,
}

impl Idmap {
    /// Allocates ids for the subhost and notes them in the document; returns None if its plan has
    /// no user namespace. `writable` is the tree that keeps what the subhost writes.
    ///
    /// # Errors
    /// Fails if other users of the host can reach `writable`: a setuid file that root creates
    /// inside is on disk a setuid file of root.
    pub fn allocate(
        document: &mut Document,
        writable: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>> {
        let setting = UsernsSetting::of(document)?;
        if setting == UsernsSetting::No {
            return Ok(None);
        }
        ensure!(
            is_closed(writable)?,
            "USERNS: other users can reach {}, and a setuid file made inside is real on the host; chmod 700 {}",
            writable.display(),
            document.path("BASE").unwrap_or(writable).display()
        );
        let ids = ranges::allocate(document, setting, warnings)?;
        let idmap = Idmap::new(ids)?;
        ids.note(document);
        Ok(Some(idmap))
    }

    /// Returns the id mapping that the document of a running subhost notes, if any.
    pub fn of_running(document: &Document) -> Result<Option<Self>> {
        IdRange::of(document)?.map(Idmap::new).transpose()
    }

    fn new(ids: IdRange) -> Result<Self> {
        let namespace = ids.hold(0).and_then(|holder| holder.open("user"));
        let namespace = namespace.context("USERNS")?;
        Ok(Idmap { ids, namespace })
    }

    /// Sets the file system ids of this process to the ids of root inside, setfsuid(2), until the
    /// guard is dropped.
    pub fn set_fs_ids(&self) -> Result<FsIdsGuard> {
        set_fs_ids(self.ids.user(0), self.ids.group(0)).context("act as root inside")
    }

    /// Clones the directory `path` as a detached, idmapped mount without devices. The mounts below
    /// it keep their owners and devices. `what` names it in errors.
    pub fn clone_layer(&self, path: &Path, depth: Depth, what: &str) -> Result<OwnedFd> {
        let tree = open_path(path).and_then(|source| clone_tree(source, c"", depth));
        let tree = tree.with_context(|| format!("clone {what}"))?;
        self.apply(&tree, Depth::One, what)?;
        set_attributes(&tree, Depth::One, MOUNT_ATTR_NODEV, 0, None)?;
        Ok(tree)
    }

    /// Makes the detached mount `tree` an idmapped mount.
    pub fn apply(&self, tree: impl AsFd, depth: Depth, what: &str) -> Result<()> {
        let namespace = Some(self.namespace.as_fd());
        set_attributes(tree, depth, 0, 0, namespace)
            .map_err(|error| match error {
                Errno::EINVAL => anyhow!(
                    "its filesystem cannot map ids on this kernel (ext4, xfs and btrfs can, tmpfs since Linux 6.3, overlay and NFS cannot); USERNS=no, or put it on another"
                ),
                Errno::EPERM => anyhow!("it is an idmapped mount already, or its filesystem belongs to another user namespace"),
                Errno::ENOSYS => anyhow!("USERNS needs Linux 5.19"),
                error => error.into(),
            })
            .with_context(|| format!("map the ids of {what}"))
    }

    /// Creates an overlay of idmapped layers as a detached mount.
    ///
    /// Before Linux 6.15 overlayfs takes no detached mounts as layers, so a child attaches them in
    /// a mount namespace that no other process joins and that ends with the child. The overlay
    /// keeps private clones of its layers (`clone_private_mount` in fs/namespace.c).
    pub fn create_overlay(
        &self,
        name: &str,
        lower: &Layer,
        upper: &Layer,
        work: &Path,
    ) -> Result<OwnedFd> {
        let store = FdStore::new()?;
        let (mut errors, sender) = pipe2(OFlag::O_CLOEXEC).map(|(r, w)| (File::from(r), w))?;
        let child = spawn(libc::CLONE_NEWNS, None, || {
            let created = self.create_overlay_here(name, lower, upper, work);
            let Err(error) = created.and_then(|tree| Ok(store.push(tree)?)) else {
                return 0;
            };
            if let Ok(sender) = sender.try_clone() {
                let _ = File::from(sender).write_all(one_line(&error).as_bytes());
            }
            1
        })
        .context("make a mount namespace")?;
        drop(sender);
        let mut text = String::new();
        errors.read_to_string(&mut text)?;
        waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        let tree = store.drain()?.pop();
        tree.with_context(|| match text.as_str() {
            "" => "the child that creates it was killed".to_owned(),
            text => text.to_owned(),
        })
    }

    fn create_overlay_here(
        &self,
        name: &str,
        lower: &Layer,
        upper: &Layer,
        work: &Path,
    ) -> Result<OwnedFd> {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
        // overlayfs requires UPPER and WORK on one mount (`ovl_get_workdir`), so the idmapped mount
        // is that of the deepest directory which contains both.
        let (upper_path, work) = (upper.path.canonicalize()?, work.canonicalize()?);
        let common = common_parent(&upper_path, &work);
        let lower_tree = self.clone_layer(lower.path, Depth::One, lower.name)?;
        let upper_tree = self.clone_layer(&common, Depth::One, upper.name)?;

        enter_scratch()?;
        attach_in_scratch(&lower_tree, "lower")?;
        attach_in_scratch(&upper_tree, "upper")?;
        let inside =
            |path: &Path| Path::new("upper").join(path.strip_prefix(&common).unwrap_or(path));
        let (mapped_upper, mapped_work) = (inside(&upper_path), inside(&work));
        // overlayfs accesses its layers with the credentials of the process that creates it. Ids
        // that are not mapped could not write to UPPER, and the overlay would be read-only.
        let _ids = self.set_fs_ids()?;
        let lower = Layer {
            path: Path::new("lower"),
            ..*lower
        };
        let upper = Layer {
            path: &mapped_upper,
            ..*upper
        };
        overlay::create(name, &lower, &upper, &mapped_work, MOUNT_ATTR_NODEV)
    }
}

/// Mounts an empty tmpfs on `/` of a private mount namespace, and changes to it.
pub fn enter_scratch() -> Result<()> {
    let enter = || -> nix::Result<()> {
        let scratch = Filesystem::new(c"tmpfs")?;
        scratch.create()?;
        let scratch = scratch.mount(0)?;
        attach(&scratch, open_path(Path::new("/"))?)?;
        fchdir(&scratch)
    };
    enter().context("make a scratch directory for mounts")
}

fn attach_in_scratch(tree: impl AsFd, directory: &str) -> Result<()> {
    let here = open_path(Path::new("."))?;
    mkdirat(&here, directory, Mode::S_IRWXU)?;
    attach(tree, open_path(Path::new(directory))?)
        .with_context(|| format!("attach the {directory} layer"))
}

/// Returns the deepest directory that contains both.
fn common_parent(one: &Path, other: &Path) -> PathBuf {
    let both = one.components().zip(other.components());
    both.take_while(|(one, other)| one == other)
        .map(|(component, _)| component)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_parent_is_the_deepest_shared_directory() {
        for (one, other, expected) in [
            ("/opt/mta/root", "/opt/mta/work", "/opt/mta"),
            ("/a/b", "/c/d", "/"),
            ("/a/bc", "/a/bd", "/a"),
        ] {
            let common = common_parent(Path::new(one), Path::new(other));
            assert_eq!(common, Path::new(expected));
        }
    }
}
