//! Overlays that outlive their subhost. A process on the host with `/proc/PID/root` open keeps the
//! superblock in use after the locks of the subhost are released. For a second overlay on the same
//! UPPER the kernel only logs a warning ("undefined behavior").

use crate::claims::{Claims, Directory};
use crate::holder;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use ob_sys::fdstore::FdStore;
use ob_sys::mount::{Filesystem, attach};
use ob_sys::process::spawn;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take to release the overlay of a subhost that has just stopped.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Fails if UPPER or WORK still belongs to an overlay after [`RELEASE_TIMEOUT`]. The error names
/// the process that keeps the overlay alive, if `lower` is its lower layer.
pub fn ensure_ended(claims: &Claims, lower: &Path) -> Result<()> {
    let (Some(live), Some(upper)) = (claims.directory("LIVE"), claims.directory("UPPER")) else {
        return Ok(());
    };
    let written = [Some(upper), claims.directory("WORK")];
    let written: Vec<&Directory> = written.into_iter().flatten().collect();
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    while is_alive(&written, live)? {
        if start.elapsed() > RELEASE_TIMEOUT {
            let holder = holder::find(upper, lower);
            let holder = holder.as_deref();
            bail!(
                "{} is still in use by an overlay: {}, then boot again",
                written
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" or "),
                holder.unwrap_or("a process that was not found keeps it open; end that process")
            );
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(250));
    }
    Ok(())
}

/// Whether one of `layers` is the UPPER or WORK of an existing overlay, or lies in one.
///
/// The kernel marks these inodes with `I_OVL_INUSE`, and with `index=on` it refuses an overlay
/// whose layers have that mark (`ovl_report_in_use` in fs/overlayfs/super.c; Linux 5.2). So this
/// tries to create an overlay with `layers` as its lower layers, and an upper layer in memory,
/// which changes nothing in them.
fn is_alive(layers: &[&Directory], live: &Directory) -> Result<bool> {
    let open = |directory: &Directory| File::open(&directory.real);
    if !FdStore::numbers().is_empty() {
        let layers: Vec<&File> = layers.iter().map(|layer| &layer.file).collect();
        return Ok(is_refused(&layers, &live.file));
    }
    // The tmpfs is attached for a moment. Processes of the host must not see it.
    let child = spawn(libc::CLONE_NEWNS, None, || {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let private = mount(None::<&str>, "/", None::<&str>, flags, None::<&str>);
        // overlayfs only takes layers in the mount namespace of the mounter, so open them again.
        let layers: std::io::Result<Vec<File>> = layers.iter().map(|layer| open(layer)).collect();
        match (private, layers, open(live)) {
            (Ok(()), Ok(layers), Ok(live)) => {
                u8::from(is_refused(&layers.iter().collect::<Vec<_>>(), &live))
            }
            _ => 0,
        }
    })
    .context("make a mount namespace")?;
    let ended = waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    Ok(matches!(ended, WaitStatus::Exited(_, 1)))
}

/// Whether the kernel refuses an overlay on `layers` with EBUSY. After any other error the mount of
/// the root fails as well, and reports the reason.
fn is_refused(layers: &[&File], live: &File) -> bool {
    try_overlay(layers, live).is_err_and(|error| error == Errno::EBUSY)
}

/// Creates an overlay on `layers`, with its upper layer in a tmpfs that is attached to `live`
/// meanwhile.
fn try_overlay(layers: &[&File], live: &File) -> nix::Result<()> {
    let memory = Filesystem::new(c"tmpfs")?;
    memory.create()?;
    let memory = memory.mount(0)?;
    mkdirat(&memory, "upper", Mode::S_IRWXU)?;
    mkdirat(&memory, "work", Mode::S_IRWXU)?;
    attach(&memory, live)?;
    let path = path_of_fd(&memory);
    let lower: Vec<String> = layers.iter().map(path_of_fd).collect();
    let created = create_overlay(&lower.join(":"), &path);
    umount2(path.as_str(), MntFlags::MNT_DETACH)?;
    created
}

fn create_overlay(lower: &str, memory: &str) -> nix::Result<()> {
    let overlay = Filesystem::new(c"overlay")?;
    overlay.set(c"lowerdir", lower)?;
    overlay.set(c"upperdir", format!("{memory}/upper").as_str())?;
    overlay.set(c"workdir", format!("{memory}/work").as_str())?;
    overlay.set(c"index", "on")?;
    overlay.create()
}

fn path_of_fd(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}
