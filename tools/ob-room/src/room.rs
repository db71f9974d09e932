//! The room: a private mount namespace that shares /run/netns with the host.

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use ob_document::{Tool, netns};
use ob_sys::fdstore::{FdStore, VARIABLE};
use ob_sys::mount::{Depth, attach, clone_peer};
use ob_sys::namespace::refusal;
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// Up to how many pinned namespaces a copy of the mounts takes less time than to unmount them.
const FEW: usize = 200;

/// Moves this process to a new mount namespace. Its mounts are slaves of the mounts of the host,
/// mount_namespaces(7), but /run/netns is a peer: a network namespace that is named in the room is
/// named on the host.
///
/// `depth` is whether existing names are copied too: a thousand subhosts have a thousand mounts
/// there. A guarded room does not copy them; [`netns::open_pinned`] opens a namespace through the
/// guard.
pub fn enter(depth: Depth) -> Result<()> {
    netns::prepare_directory()?;
    let directory = File::open(netns::DIRECTORY)?;
    // A copy of a shared mount is its peer only if it is created before the mount becomes a slave.
    let limited = |what: &str, error| anyhow!("{what}: {}", refusal(error, libc::CLONE_NEWNS));
    let shared = clone_peer(directory, c"", depth);
    let shared = shared.map_err(|error| limited("copy /run/netns", error))?;
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|error| limited("unshare the mount namespace", error))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    match mount(None::<&str>, "/", None::<&str>, flags, None::<&str>) {
        Err(Errno::EINVAL) => {
            bail!("/ is not a mount point, as in a chroot: mount --bind DIR DIR before chroot DIR")
        }
        made => made.context("make the mounts of the room slaves of the mounts of the host")?,
    }
    // Names that are unmounted here need not be copied for pid 1. But umount2(2) waits for an RCU
    // grace period, which takes longer than to copy a few.
    if std::fs::read_dir(netns::DIRECTORY).map_or(0, Iterator::count) > FEW {
        let _ = umount2(netns::DIRECTORY, MntFlags::MNT_DETACH);
    }
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    open(netns::DIRECTORY, flags, Mode::empty())
        .and_then(|target| attach(shared, target))
        .context("mount /run/netns in the room")
}

/// Creates an fd store that holds the mount namespace of the host and its root directory, to which
/// the supervisor returns.
pub fn make_fd_store() -> Result<FdStore> {
    let store = FdStore::new().context("create an fd store")?;
    store
        .push(File::open("/proc/self/ns/mnt")?)
        .context("store the mount namespace of the host")?;
    store
        .push(open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
        .context("store the root directory of the host")?;
    Ok(store)
}

/// Enters a room and executes `command`, which is then the first process of the room.
///
/// Returns only if that fails, with the exit status of env(1).
pub fn become_command(tool: &Tool, command: &[OsString]) -> Result<ExitCode> {
    let store = make_fd_store()?;
    enter(Depth::Recursive)?;
    let error = become_program(command, &store, &[], Stdio::inherit(), Stdio::inherit());
    let status = match error.downcast_ref::<std::io::Error>().map(|e| e.kind()) {
        Some(ErrorKind::NotFound) => 127,
        _ => 126,
    };
    tool.complain(&error);
    Ok(ExitCode::from(status))
}

/// Executes a program in the room of `store`. Returns only if that fails, with the reason.
pub fn become_program(
    words: &[OsString],
    store: &FdStore,
    environment: &[(String, String)],
    input: Stdio,
    output: Stdio,
) -> Error {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(input).stdout(output);
    // It names the command that became this tool, see ob_document::Tool, and must not name a stage.
    command.env_remove("OB_COMMAND");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let error = command.env(VARIABLE, store.address()).exec();
    Error::from(error).context(format!("run {}", words[0].to_string_lossy()))
}
