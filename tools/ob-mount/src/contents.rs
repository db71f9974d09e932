//! The contents of the root: what POSTMOUNT or this stage mounts on it, then the shares.

use crate::api_fs::mount_api_fs;
use crate::hooks;
use crate::idmap::Idmap;
use crate::overlay::ensure_can_mount;
use crate::root::Root;
use crate::shares;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use ob_confine::userns::{IdRange, UsernsSetting};
use ob_document::{Document, Hook, log, one_line};
use ob_sys::identity::set_fs_ids;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The size of /run unless RAM_SIZE is set.
pub const RAM_SIZE: &str = "50M";

/// Mounts the contents of the root on `live`. Adds each mount point to `mounts`, also if a later
/// mount fails.
pub fn mount_contents(
    document: &Document,
    idmap: Option<&Idmap>,
    mounts: &mut Vec<PathBuf>,
    warn: impl Fn(&str),
) -> Result<()> {
    let live = document.path("LIVE")?;
    let root = Root::open(live)?;
    if idmap.is_some() {
        // Creates the log as a file of root on the host, before this process acts as root inside.
        drop(log::open(document.path("LOG")?)?);
    }
    let _ids = idmap.map(Idmap::set_fs_ids).transpose()?;
    match Hook::of(document, "POSTMOUNT") {
        Some(hook) => {
            let arguments = [live, document.path("UPPER")?];
            hooks::run(document, &hook, "POSTMOUNT", &arguments, &warn)?;
        }
        None => {
            let size = document.optional("RAM_SIZE").unwrap_or(RAM_SIZE);
            let ids = idmap.map(|idmap| idmap.ids);
            mounts.extend(mount_api_fs(&root, size, ids, &warn)?);
        }
    }
    if document.has("INIT") {
        // The shell scripts before these tools provided it, and an INIT may name it.
        if let Err(error) = provide_reaper(&root) {
            warn(&format!("/.reaper: {}", one_line(&error)));
        }
    }
    shares::mount(document, &root, idmap, mounts, &warn)?;
    warn_missing_masks(document, &root, warn)
}

/// Mounts the API file systems below `live` for a hook. Reads RAM_SIZE and USERNS from the
/// environment.
pub fn mount_api_fs_for_hook(live: &Path, warn: impl Fn(&str)) -> Result<()> {
    ensure_can_mount()?;
    let size = std::env::var("RAM_SIZE").unwrap_or_else(|_| RAM_SIZE.to_owned());
    let setting =
        std::env::var("USERNS").map_or(Ok(UsernsSetting::No), |text| UsernsSetting::parse(&text));
    let ids: Option<IdRange> = match setting.context("USERNS")? {
        UsernsSetting::Range(ids) => Some(ids),
        _ => None,
    };
    let root = Root::open(live)?;
    let guard = ids.map(|ids| set_fs_ids(ids.user(0), ids.group(0)));
    let _ids = guard.transpose().context("act as root inside")?;
    mount_api_fs(&root, &size, ids, warn)
        .with_context(|| format!("furnish {}", live.display()))
        .map(drop)
}

/// Warns of paths of MASK that do not exist. The intended file may have another name, since root
/// inside can rename the directories above it.
fn warn_missing_masks(document: &Document, root: &Root, warn: impl Fn(&str)) -> Result<()> {
    for path in document.list("MASK")? {
        // ob-unshare mounts /proc and /sys later.
        let is_of_kernel = ["/proc", "/sys"]
            .iter()
            .any(|of| Path::new(path).starts_with(of));
        let found = root.find(Path::new(path), OFlag::O_PATH);
        if !is_of_kernel && matches!(found, Err(Errno::ENOENT | Errno::ENOTDIR)) {
            warn(&format!(
                "MASK={path}: there is no such file, so nothing is covered; was it renamed?"
            ));
        }
    }
    Ok(())
}

/// Copies the reaper to /.reaper, unless that exists.
fn provide_reaper(root: &Root) -> Result<()> {
    let path = Path::new(".reaper");
    let nofollow = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    if root.find(path, nofollow).is_ok() {
        return Ok(());
    }
    let reaper = std::env::current_exe()?.with_file_name("ob-reaper");
    let reaper = std::fs::read(&reaper).with_context(|| reaper.display().to_string())?;
    root.create(path, 0o755)?.write_all(&reaper)?;
    Ok(())
}
