//! Verifies what the plan promises and earlier stages must have done, before anything is created.
//! Any program can be an earlier stage.

use anyhow::{Context, Result, ensure};
use nix::sys::statfs::{FsType, NSFS_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, fstatfs, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use ob_confine::protect::{ReadOnly, is_protected};
use ob_confine::userns::{IdRange, is_own};
use ob_document::{Document, netns};
use ob_sys::mountinfo::Mount;
use ob_sys::namespace::owner;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// From linux/magic.h; nix has no constant for it.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// The facts of the earlier stages, checked.
pub struct Facts {
    /// The ids of the user namespace; `None`: as on the host.
    pub ids: Option<IdRange>,
    /// The network namespace; `None`: as the caller.
    pub net: Option<File>,
}

impl Facts {
    /// Reads and checks the facts.
    ///
    /// # Errors
    /// A fact that the plan needs is missing, or contradicts the plan.
    pub fn of(document: &Document) -> Result<Self> {
        let ids = IdRange::required(document)?;
        check_root(document, ids)?;
        let net = network(document, ids)?;
        Ok(Facts { ids, net })
    }
}

fn check_root(document: &Document, ids: Option<IdRange>) -> Result<()> {
    let root = document.path("root")?;
    let context = || format!("root={}", root.display());
    let status = root.metadata().with_context(context)?;
    ensure!(status.is_dir(), "{}: it is not a directory", context());
    if let Some(ids) = ids {
        // An idmapped mount shows the owners of files as ids of the host, shifted into the range.
        ensure!(
            ids.has(status.uid()) && ids.has(status.gid()),
            "{}: it belongs to the user {} of the host, which is not in userns={ids}; ob-mount maps it",
            context(),
            status.uid()
        );
    }
    match ReadOnly::of(document)? {
        ReadOnly::No => {}
        ReadOnly::Yes => ensure!(
            statvfs(root)?.flags().contains(FsFlags::ST_RDONLY),
            "READONLY=yes, but {} is writable; ob-mount makes it read-only",
            root.display()
        ),
        ReadOnly::Volatile => ensure!(
            is_volatile(root)?,
            "READONLY=volatile, but changes to {} are kept; ob-mount adds a layer in memory",
            root.display()
        ),
    }
    Ok(())
}

/// Returns whether changes below `root` stay in memory.
///
/// For an overlay this depends on the upper layer, of which the kernel shows only the path in the
/// mount options.
fn is_volatile(root: &Path) -> Result<bool> {
    let is_memory = |kind| kind == TMPFS_MAGIC || kind == RAMFS_MAGIC;
    let kind = statfs(root)?.filesystem_type();
    if kind != OVERLAYFS_SUPER_MAGIC {
        return Ok(is_memory(kind));
    }
    let mounts = Mount::parse_table(&std::fs::read("/proc/self/mountinfo")?);
    let Some(upper) = upper_layer(&mounts, root.metadata()?.dev()) else {
        return Ok(false);
    };
    // ob-mount attaches its upper layer to LIVE until the overlay exists, or passes a descriptor.
    let is_of_ob_mount = upper == root.join("upper") || upper.starts_with("/proc/self/fd");
    let is_in_memory = || statfs(&upper).is_ok_and(|fs| is_memory(fs.filesystem_type()));
    Ok(is_of_ob_mount || is_in_memory())
}

/// Returns the path of the upper layer of the overlay with the device number `device`.
fn upper_layer(mounts: &[Mount], device: u64) -> Option<PathBuf> {
    let mut overlays = mounts.iter().filter(|mount| mount.device == device);
    Some(overlays.next()?.option("upperdir")?.into())
}

/// Fails if a protected subhost would get the network of the host only because `net` is missing.
pub fn require_network(document: &Document) -> Result<()> {
    ensure!(
        document.has("net") || !is_protected(document)?,
        "PROTECT is set, and no stage has noted a network namespace as net; ob-cable makes one, and net=/proc/self/ns/net is that of the caller"
    );
    Ok(())
}

/// Opens the network namespace. From PROTECT=yes on there must be one. With a user namespace, it
/// must be owned by one; the id maps are compared when pid 1 joins that.
fn network(document: &Document, ids: Option<IdRange>) -> Result<Option<File>> {
    require_network(document)?;
    if !document.has("net") {
        return Ok(None);
    }
    let path = document.path("net")?;
    let context = || format!("net={}", path.display());
    let net = match path.starts_with(netns::DIRECTORY) {
        true => netns::open_pinned(path)
            .map(File::from)
            .with_context(context)?,
        false => File::open(path).with_context(context)?,
    };
    let kind = fstatfs(&net).with_context(context)?.filesystem_type();
    ensure!(kind == NSFS_MAGIC, "{}: it is no namespace", context());
    if let Some(ids) = ids {
        let owner = owner(&net).with_context(|| format!("{}: find its owner", context()))?;
        let callers = Path::new("/proc/self/ns/net").metadata()?;
        ensure!(
            net.metadata()?.ino() == callers.ino() || !is_own(&owner)?,
            "{}: it belongs to the user namespace of the host, and not to userns={ids}; ob-cable makes one that does",
            context()
        );
    }
    Ok(Some(net))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::makedev;

    #[test]
    fn upper_layer_is_found_by_the_number_of_the_overlay() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
            2 1 0:40 / /a rw shared:1 - overlay a rw,lowerdir=/,upperdir=/a\\040b/u,workdir=/w\n";
        let mounts = Mount::parse_table(mounts.as_bytes());
        let upper = |minor| upper_layer(&mounts, makedev(0, minor));
        assert_eq!(upper(40).as_deref(), Some(Path::new("/a b/u")));
        assert_eq!(upper(41), None);
        assert_eq!(upper_layer(&mounts, makedev(8, 1)), None);
    }
}
