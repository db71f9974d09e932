//! Overlays, and the detached mounts that become their layers.

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use ob_sys::mount::{Attributes, Filesystem};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Creates an overlay as a detached mount with these attributes. Its source is `name`.
///
/// # Errors
/// Fails with the message of the kernel, or else with the errno of `fsconfig(2)`.
pub fn create(
    name: &str,
    lower: &Path,
    upper: &Path,
    work: &Path,
    attributes: Attributes,
) -> Result<OwnedFd> {
    let overlay = Filesystem::new(c"overlay").context("the kernel has no overlay filesystem")?;
    configure(&overlay, name, lower, upper, work)
        .and_then(|()| overlay.mount(attributes))
        .map_err(|error| {
            let complaint = overlay.complaint();
            match (complaint.trim_start_matches("overlay: "), error) {
                // The kernel log has the reason. After the checks of the plan, this reason is left.
                ("", Errno::EINVAL) => anyhow!(
                    "the kernel refuses UPPER={} (is its filesystem read-only, or unfit for an upper layer?)",
                    upper.display()
                ),
                ("", error) => error.into(),
                (complaint, error) => anyhow!("{complaint}: {}", error.desc()),
            }
        })
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
