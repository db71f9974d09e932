//! Where network namespaces have their names, as `ip netns` has them: each is pinned on a file in /run/netns.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the names are.
pub const DIRECTORY: &str = "/run/netns";

/// Where the namespace called `name` is pinned.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Makes the directory a shared mount of its own, so that a name given in one mount namespace is taken back in all.
pub fn prepare_directory() -> Result<()> {
    // A mount already, as a rule: then this changes nothing. What is mounted below is not touched; it may be a thousand.
    match share_directory() {
        Err(Errno::EINVAL | Errno::ENOENT) => {}
        result => return result.with_context(|| format!("share {DIRECTORY}")),
    }
    let made = DirBuilder::new().mode(0o755).create(DIRECTORY);
    if made.is_ok() {
        // Whatever the caller's umask is.
        fs::set_permissions(DIRECTORY, Permissions::from_mode(0o755))
            .with_context(|| format!("make {DIRECTORY}"))?;
    }
    let directory = File::open(DIRECTORY).with_context(|| format!("make {DIRECTORY}"))?;
    // One at a time, as iproute2 does: each bind mount doubles what is mounted below.
    directory
        .lock()
        .with_context(|| format!("lock {DIRECTORY}"))?;
    match share_directory() {
        Err(Errno::EINVAL) => {}
        result => return result.with_context(|| format!("share {DIRECTORY}")),
    }
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    let here = Some(DIRECTORY);
    mount(here, DIRECTORY, None::<&str>, bind, None::<&str>)
        .and_then(|()| share_directory())
        .with_context(|| format!("mount {DIRECTORY} on itself"))
}

fn share_directory() -> nix::Result<()> {
    let none = None::<&str>;
    mount(none, DIRECTORY, none, MsFlags::MS_SHARED, none)
}
