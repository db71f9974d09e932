//! The layers of a subhost with a user namespace: as root inside sees them, owned on disk as ever.

use crate::layers::{Layers, overlay};
use crate::ranges::range;
use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
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
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The identities of a subhost.
pub struct Mapped {
    /// Their range.
    pub ids: IdRange,
    /// A user namespace with that map, for the kernel to read it from.
    namespace: File,
}

impl Mapped {
    /// Gives the subhost its range and notes it; none if it wants none. Fails if others of the host could reach what root makes
    /// inside, which is as good as what root makes outside.
    pub fn of(document: &mut Document, layers: &Layers) -> Result<Option<Self>> {
        let wish = UsernsSetting::of(document)?;
        if wish == UsernsSetting::No {
            return Ok(None);
        }
        let upper = layers.written_to(document)?;
        ensure!(
            is_closed(&upper)?,
            "USERNS: others can reach {}, and a setuid file made inside is real on the host; chmod 700 {}",
            upper.display(),
            document.path("BASE").unwrap_or(&upper).display()
        );
        let ids = range(document, wish)?;
        let mapped = Mapped::with(ids)?;
        ids.note(document);
        Ok(Some(mapped))
    }

    /// That of a subhost which has it already.
    pub fn of_running(document: &Document) -> Result<Option<Self>> {
        IdRange::of(document)?.map(Mapped::with).transpose()
    }

    fn with(ids: IdRange) -> Result<Self> {
        let namespace = ids.hold(0).and_then(|holder| holder.open("user"));
        let namespace = namespace.context("USERNS")?;
        Ok(Mapped { ids, namespace })
    }

    /// Has this process make files as root inside, as long as it keeps what is returned.
    pub fn act_as_root(&self) -> Result<FsIdsGuard> {
        set_fs_ids(self.ids.user(0), self.ids.group(0)).context("act as root inside")
    }

    /// Makes a detached mount of the directory `path` with its owners as inside, and with nothing in it that is a device: what
    /// mounts lie below it stay as they are. `what` is for the message.
    pub fn layer(&self, path: &Path, depth: Depth, what: &str) -> Result<OwnedFd> {
        let tree = look(path).and_then(|source| clone_tree(source, c"", depth));
        let tree = tree.with_context(|| format!("clone {what}"))?;
        self.map(&tree, Depth::One, what)?;
        set_attributes(&tree, Depth::One, MOUNT_ATTR_NODEV, 0, None)?;
        Ok(tree)
    }

    /// Gives a detached mount the owners as inside.
    pub fn map(&self, tree: impl AsFd, depth: Depth, what: &str) -> Result<()> {
        let namespace = Some(self.namespace.as_fd());
        set_attributes(tree, depth, 0, 0, namespace)
            .map_err(|error| match error {
                Errno::EINVAL => anyhow!(
                    "its filesystem cannot map ids on this kernel (ext4, xfs and btrfs can, tmpfs since Linux 6.3, overlay and NFS cannot); USERNS=no, or put it on another"
                ),
                Errno::EPERM => anyhow!("its ids are mapped already, or it is not ours to map"),
                Errno::ENOSYS => anyhow!("USERNS needs Linux 5.19"),
                error => error.into(),
            })
            .with_context(|| format!("map the ids of {what}"))
    }

    /// Makes an overlay of mapped layers, not yet attached anywhere.
    ///
    /// No kernel before 6.15 takes layers that are attached nowhere, so they get a place: in a mount namespace that nobody else is
    /// in, and that ends with the child that made it. The overlay has copies of its own.
    pub fn overlay(&self, name: &str, lower: &Path, upper: &Path, work: &Path) -> Result<OwnedFd> {
        let store = FdStore::new()?;
        let (mut reason, teller) = pipe2(OFlag::O_CLOEXEC).map(|(r, w)| (File::from(r), w))?;
        let child = spawn(libc::CLONE_NEWNS, None, || {
            let made = self.overlay_here(name, lower, upper, work);
            let Err(error) = made.and_then(|tree| Ok(store.push(tree)?)) else {
                return 0;
            };
            if let Ok(teller) = teller.try_clone() {
                let _ = File::from(teller).write_all(one_line(&error).as_bytes());
            }
            1
        })
        .context("make a mount namespace")?;
        drop(teller);
        let mut text = String::new();
        reason.read_to_string(&mut text)?;
        waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        let tree = store.drain()?.pop();
        tree.with_context(|| match text.as_str() {
            "" => "the child that makes it was killed".to_owned(),
            text => text.to_owned(),
        })
    }

    fn overlay_here(&self, name: &str, lower: &Path, upper: &Path, work: &Path) -> Result<OwnedFd> {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
        // Both must be seen through one mount, so what is mapped is the directory that they have in common.
        let (upper, work) = (upper.canonicalize()?, work.canonicalize()?);
        let common = common(&upper, &work);
        let lower_tree = self.layer(lower, Depth::One, &format!("LOWER={}", lower.display()))?;
        let upper_tree = self.layer(&common, Depth::One, &format!("UPPER={}", upper.display()))?;

        enter_scratch()?;
        attach_at(&lower_tree, "lower")?;
        attach_at(&upper_tree, "upper")?;
        let inside =
            |path: &Path| Path::new("upper").join(path.strip_prefix(&common).unwrap_or(path));
        let (mapped_upper, mapped_work) = (inside(&upper), inside(&work));
        for (path, mapped) in [(&upper, &mapped_upper), (&work, &mapped_work)] {
            ensure!(
                is_same(path, mapped),
                "UPPER={} and WORK={} are not on one mount; put them side by side",
                upper.display(),
                work.display()
            );
        }
        // Who makes an overlay is who it works as; were that somebody without an id inside, it would come up read-only.
        let _acting = self.act_as_root()?;
        overlay(
            name,
            Path::new("lower"),
            &mapped_upper,
            &mapped_work,
            MOUNT_ATTR_NODEV,
        )
    }
}

/// Makes an empty directory of this mount namespace alone, and goes there.
pub fn enter_scratch() -> Result<()> {
    let made = || -> nix::Result<()> {
        let scratch = Filesystem::new(c"tmpfs")?;
        scratch.create()?;
        let scratch = scratch.mount(0)?;
        attach(&scratch, look(Path::new("/"))?)?;
        fchdir(&scratch)
    };
    made().context("make a place for the layers")
}

fn attach_at(tree: impl AsFd, directory: &str) -> Result<()> {
    let here = look(Path::new("."))?;
    mkdirat(&here, directory, Mode::S_IRWXU)?;
    attach(tree, look(Path::new(directory))?)
        .with_context(|| format!("attach the {directory} layer"))
}

/// Opens a place without what is there.
pub fn look(path: &Path) -> nix::Result<OwnedFd> {
    openat(
        AT_FDCWD,
        path,
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// The last directory on the ways to both.
fn common(one: &Path, other: &Path) -> PathBuf {
    let both = one.components().zip(other.components());
    both.take_while(|(one, other)| one == other)
        .map(|(component, _)| component)
        .collect()
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
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
            let common = common(Path::new(one), Path::new(other));
            assert_eq!(common, Path::new(expected));
        }
    }
}
