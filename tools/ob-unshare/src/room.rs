//! The room: a mount namespace for the stages, with one door.

use crate::TOOL;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use ob_sys::keep::{Keep, VARIABLE};
use ob_sys::mount::{Depth, attach, clone_tree};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

const NETNS: &str = "/run/netns";

/// Leaves the host's mount namespace for a room. All mounts in there are slaves of the host's, but the door, /run/netns: a
/// peer of the host's, so that a network namespace named inside is named on the host.
pub fn enter() -> Result<()> {
    make_shared(Path::new(NETNS)).with_context(|| format!("make {NETNS}"))?;
    let directory = File::open(NETNS).with_context(|| format!("open {NETNS}"))?;
    // A copy of a shared mount is its peer. It has to be made before the unshare: after it, the mount would be a slave.
    let door = clone_tree(directory, c"", Depth::One).context("copy /run/netns")?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .context("keep the mounts of the room from the host")?;
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    open(NETNS, flags, Mode::empty())
        .and_then(|target| attach(door, target))
        .context("open the door of the room")
}

/// Makes `directory` a shared mount, as `ip netns add` does, once: under a lock, since each of several at the same time would
/// lay another mount on it, which the others then double (Debian bug 949235).
fn make_shared(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let lock = File::open(directory)?;
    lock.lock()?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, directory, None::<&str>, flags, None::<&str>)
    };
    match share() {
        // It is no mount yet.
        Err(Errno::EINVAL) => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(
                Some(directory),
                directory,
                None::<&str>,
                flags,
                None::<&str>,
            )?;
            Ok(share()?)
        }
        shared => Ok(shared?),
    }
}

/// A keep that holds the host's mount namespace, so that the supervisor can leave the room again.
pub fn keep() -> Result<Keep> {
    let keep = Keep::new().context("make a keep")?;
    keep.put(File::open("/proc/self/ns/mnt")?)
        .context("keep the host's mount namespace")?;
    Ok(keep)
}

/// `ob-unshare --room CMD`: enters a room and becomes CMD, which is then the room's first process.
pub fn become_command(command: &[OsString]) -> Result<ExitCode> {
    let keep = keep()?;
    enter()?;
    let error = Command::new(&command[0])
        .args(&command[1..])
        .env(VARIABLE, keep.address())
        .exec();
    let status = if error.kind() == std::io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    TOOL.complain(&anyhow::Error::from(error).context(format!("run {}", command[0].display())));
    Ok(ExitCode::from(status))
}
