//! Overlays that outlive their subhost. A process of the host that holds `/proc/PID/root` open keeps
//! the superblock, which goes on writing to UPPER when the locks of the subhost are gone. The
//! kernel mounts a second overlay on it with no more than a warning ("undefined behavior").

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

/// How long the kernel may take to end the overlay of a subhost that was just stopped.
const ENDING: Duration = Duration::from_secs(2);

/// Fails if UPPER or WORK still belongs to an overlay after [`ENDING`], and names the process that
/// keeps it alive, if `lower` is its lower layer.
pub fn ensure_ended(claims: &Claims, lower: &Path) -> Result<()> {
    let (Some(live), Some(upper)) = (claims.directory("LIVE"), claims.directory("UPPER")) else {
        return Ok(());
    };
    let written = [Some(upper), claims.directory("WORK")];
    let written: Vec<&Directory> = written.into_iter().flatten().collect();
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    while is_alive(&written, live)? {
        if start.elapsed() > ENDING {
            let holder = holder::find(upper, lower);
            let holder = holder.as_deref();
            bail!(
                "{} is still in use by an overlay: {}; end that process, then boot again",
                written
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" or "),
                holder.unwrap_or("a process that was not found keeps it open")
            );
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(250));
    }
    Ok(())
}

/// Whether one of `layers` is the UPPER or WORK of an overlay that is alive, or lies in one.
///
/// Asks the kernel, which marks these inodes (`I_OVL_INUSE`): with `index=on` it refuses an overlay
/// whose layers have that mark (`ovl_report_in_use` in fs/overlayfs/super.c; Linux 5.2). The one
/// that is tried has `layers` as its lower layers and writes to memory, so that nothing is changed
/// in them.
fn is_alive(layers: &[&Directory], live: &Directory) -> Result<bool> {
    let open = |directory: &Directory| File::open(&directory.real);
    if !FdStore::numbers().is_empty() {
        let layers: Vec<&File> = layers.iter().map(|layer| &layer.file).collect();
        return Ok(is_refused(&layers, &live.file));
    }
    // The place in memory needs a mount for a moment, which the host must not see.
    let child = spawn(libc::CLONE_NEWNS, None, || {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let private = mount(None::<&str>, "/", None::<&str>, flags, None::<&str>);
        // Opened again: a layer must be in the mount namespace of its overlay.
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

/// Tries the overlay, its place in memory attached to `live` meanwhile. If that fails in another
/// way, so will the mount of the root, which then reports the reason.
fn is_refused(layers: &[&File], live: &File) -> bool {
    let tried = (|| -> Result<()> {
        let memory = Filesystem::new(c"tmpfs")?;
        memory.create()?;
        let memory = memory.mount(0)?;
        mkdirat(&memory, "upper", Mode::S_IRWXU)?;
        mkdirat(&memory, "work", Mode::S_IRWXU)?;
        attach(&memory, live)?;
        let place = path_of_fd(&memory);
        let lower: Vec<String> = layers.iter().map(path_of_fd).collect();
        let tried = (|| {
            let overlay = Filesystem::new(c"overlay")?;
            overlay.set(c"lowerdir", lower.join(":").as_str())?;
            overlay.set(c"upperdir", format!("{place}/upper").as_str())?;
            overlay.set(c"workdir", format!("{place}/work").as_str())?;
            overlay.set(c"index", "on")?;
            overlay.create()
        })();
        umount2(place.as_str(), MntFlags::MNT_DETACH)?;
        Ok(tried?)
    })();
    tried.is_err_and(|error| error.downcast_ref() == Some(&Errno::EBUSY))
}

fn path_of_fd(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}
