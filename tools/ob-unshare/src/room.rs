//! The room: a mount namespace for the stages, with one door.

use crate::TOOL;
use anyhow::{Context, Error, Result};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use ob_document::netns;
use ob_sys::fdstore::{FdStore, VARIABLE};
use ob_sys::mount::{Depth, attach, clone_peer};
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// How many names of namespaces are sooner copied than taken away.
const FEW: usize = 200;

/// Leaves the host's mount namespace for a room. All mounts in there are slaves of the host's, but the door, /run/netns: a
/// peer of the host's, so that a network namespace named inside is named on the host.
///
/// `depth` says whether the names that namespaces have already come along: a thousand subhosts have a thousand of them. In a
/// guarded room they do not, and [`netns::open_pinned`] finds one through the guard.
pub fn enter(depth: Depth) -> Result<()> {
    netns::prepare_directory()?;
    let directory = File::open(netns::DIRECTORY)?;
    // A copy of a shared mount is its peer. It has to be made before the unshare: after it, the mount would be a slave.
    let door = clone_peer(directory, c"", depth).context("copy /run/netns")?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .context("keep the mounts of the room from the host")?;
    // A thousand subhosts have named a thousand namespaces there. Taken away here, they need not be copied for pid 1 as well; but
    // the kernel waits for all processors then, which takes longer than to copy a few.
    if std::fs::read_dir(netns::DIRECTORY).map_or(0, Iterator::count) > FEW {
        let _ = umount2(netns::DIRECTORY, MntFlags::MNT_DETACH);
    }
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    open(netns::DIRECTORY, flags, Mode::empty())
        .and_then(|target| attach(door, target))
        .context("open the door of the room")
}

/// Creates an fd store that holds the mount namespace of the host, so that the supervisor can leave
/// the room again.
pub fn make_fd_store() -> Result<FdStore> {
    let store = FdStore::new().context("create an fd store")?;
    store
        .push(File::open("/proc/self/ns/mnt")?)
        .context("store the mount namespace of the host")?;
    Ok(store)
}

/// `ob-unshare --room CMD`: enters a room and becomes CMD, which is then the room's first process.
pub fn become_command(command: &[OsString]) -> Result<ExitCode> {
    let store = make_fd_store()?;
    enter(Depth::Recursive)?;
    let error = become_program(command, &store, Stdio::inherit(), Stdio::inherit());
    let status = match error.downcast_ref::<std::io::Error>().map(|e| e.kind()) {
        Some(ErrorKind::NotFound) => 127,
        _ => 126,
    };
    TOOL.complain(&error);
    Ok(ExitCode::from(status))
}

/// Executes a program in the room of `store`. Returns only if that fails, with the reason.
pub fn become_program(words: &[OsString], store: &FdStore, input: Stdio, output: Stdio) -> Error {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(input).stdout(output);
    let error = command.env(VARIABLE, store.address()).exec();
    Error::from(error).context(format!("run {}", words[0].display()))
}
