//! Overlays, and the detached mounts that become their layers.

use anyhow::{Error, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, statvfs};
use ob_sys::mount::{Attributes, Filesystem, mount_of};
use ob_sys::mountinfo::Mount;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Fails if this process has no right to mount: `fsopen(2)` needs `CAP_SYS_ADMIN` in the user
/// namespace of the mount namespace.
pub fn ensure_can_mount() -> Result<()> {
    let is_refused = matches!(Filesystem::new(c"tmpfs"), Err(Errno::EPERM));
    ensure!(
        !is_refused,
        "only root can mount (CAP_SYS_ADMIN is missing); use sudo"
    );
    Ok(())
}

/// A layer of an overlay.
pub struct Layer<'a> {
    /// How errors name it.
    pub name: &'a str,
    pub path: &'a Path,
}

/// Creates an overlay as a detached mount with these attributes. Its source is `name`.
///
/// # Errors
/// Fails with the message of the kernel, or the reason that [`explain`] finds, or else with the
/// errno of `fsconfig(2)`.
pub fn create(
    name: &str,
    lower: &Layer,
    upper: &Layer,
    work: &Path,
    attributes: Attributes,
) -> Result<OwnedFd> {
    let overlay = Filesystem::new(c"overlay").map_err(|error| match error {
        Errno::ENODEV => anyhow!("the kernel has no overlay filesystem"),
        error => error.into(),
    })?;
    configure(&overlay, name, lower.path, upper.path, work)
        .and_then(|()| overlay.mount(attributes))
        .map_err(|error| {
            let complaint = overlay.complaint();
            match complaint.trim_start_matches("overlay: ") {
                "" => explain(lower, upper, error),
                complaint => anyhow!("{complaint}: {}", error.desc()),
            }
        })
}

/// Finds the reason for which the kernel refuses an overlay. The kernel writes the reason to its
/// log, and returns EINVAL for several reasons. The checks of the plan have excluded the rest, such
/// as UPPER and WORK on two mounts.
fn explain(lower: &Layer, upper: &Layer, error: Errno) -> Error {
    match error {
        // `ovl_check_overlapping_layers` in fs/overlayfs/super.c. By path they do not overlap.
        Errno::ELOOP => anyhow!(
            "{} overlaps UPPER or WORK by another path, such as a bind mount",
            lower.name
        ),
        Errno::EINVAL if is_unfit(lower.path) => match filesystem(lower.path).as_str() {
            // `FILESYSTEM_MAX_STACK_DEPTH` is 2.
            "overlay" => anyhow!(
                "{} lies on an overlay of an overlay, and the kernel stacks no third one",
                lower.name
            ),
            kind => anyhow!(
                "{}: the kernel accepts no lower layer on {kind}",
                lower.name
            ),
        },
        Errno::EINVAL if is_read_only(upper.path) => {
            anyhow!("{}: its filesystem is mounted read-only", upper.name)
        }
        Errno::EINVAL => anyhow!(
            "{}: the kernel accepts no upper layer on {} (the lower layer and the place of WORK are not the reason)",
            upper.name,
            filesystem(upper.path)
        ),
        error => error.into(),
    }
}

/// Whether the kernel refuses `lower` as a lower layer of any overlay. This tries an overlay of
/// `lower` on itself, which needs no other directory: the kernel checks each layer (EINVAL) before
/// it finds that the two are one (ELOOP).
fn is_unfit(lower: &Path) -> bool {
    let create = || {
        let layer = File::open(lower).map_err(|_| Errno::ENOENT)?;
        let alias = format!("/proc/self/fd/{}", layer.as_raw_fd());
        let overlay = Filesystem::new(c"overlay")?;
        overlay.set(c"lowerdir", format!("{alias}:{alias}").as_str())?;
        overlay.create()
    };
    create() == Err(Errno::EINVAL)
}

fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|status| status.flags().contains(FsFlags::ST_RDONLY))
}

/// Returns the type of the filesystem of `path`.
fn filesystem(path: &Path) -> String {
    let kind = || {
        let id = mount_of(open_path(path).ok()?).ok()?.id;
        let table = std::fs::read("/proc/self/mountinfo").ok()?;
        let mut mounts = Mount::parse_table(&table).into_iter();
        mounts.find(|mount| mount.id == id)
    };
    kind().map_or("its filesystem".to_owned(), |mount| mount.kind)
}

fn configure(
    overlay: &Filesystem,
    name: &str,
    lower: &Path,
    upper: &Path,
    work: &Path,
) -> nix::Result<()> {
    overlay.set(c"source", name)?;
    let mut opened = Vec::new();
    for (key, path) in [
        (c"lowerdir", lower),
        (c"upperdir", upper),
        (c"workdir", work),
    ] {
        // fsconfig(2) takes values of up to 255 bytes, and overlayfs gives commas, colons and
        // backslashes a meaning that depends on its version. The path of a descriptor avoids both.
        let text = path.to_str().filter(|text| text.len() < 256);
        if let Some(text) = text.filter(|text| !text.contains(['\\', ',', ':'])) {
            overlay.set(key, text)?;
        } else {
            let layer = File::open(path).map_err(|_| Errno::ENOENT)?;
            let alias = format!("/proc/self/fd/{}", layer.as_raw_fd());
            overlay.set(key, alias.as_str())?;
            opened.push(layer);
        }
    }
    overlay.create()
}

/// Opens the directory or file at `path` with `O_PATH`, for calls that only need its place.
pub fn open_path(path: &Path) -> nix::Result<OwnedFd> {
    openat(
        AT_FDCWD,
        path,
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}
