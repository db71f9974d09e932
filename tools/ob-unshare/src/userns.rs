//! Starts pid 1 in a user namespace: an intermediate child joins it, and creates pid 1 as its
//! sibling.

use crate::inside::{self, Plan};
use crate::spawn::{spawn_in_namespaces, why};
use anyhow::{Context, Result, anyhow};
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{Pid, chroot, fchdir, fchown, pipe2};
use ob_confine::userns::{IdRange, is_own};
use ob_document::one_line;
use ob_shutdown::children;
use ob_sys::namespace::owner;
use ob_sys::process::{Child, pidfd_open, spawn};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Starts pid 1, which calls `run`, as root of the user namespace with these `ids`, in new
/// namespaces that belong to it.
///
/// Pid 1 is a child of this process, clone(2) CLONE_PARENT, so that it gets the parent death
/// signal.
pub fn start(
    ids: IdRange,
    plan: &Plan,
    group: Option<&File>,
    run: impl Fn() -> u8,
) -> Result<Child> {
    let namespace = namespace(ids, plan.net.as_ref())?;
    for output in plan.output {
        // Services open /dev/stdout, for which the kernel checks the mode of the pipe.
        fchown(output, Some(ids.user(0)), Some(ids.group(0))).context("chown the output pipe")?;
    }
    let (result_rx, result_tx) = pipe2(OFlag::O_CLOEXEC)?;
    // In the control group from the start: root of the user namespace cannot move a process there.
    let child = spawn(0, group.map(AsFd::as_fd), || {
        let pid = fork_in_userns(ids, plan, namespace, run);
        send_result(&result_tx, &pid)
    });
    let child = child.map_err(|error| {
        let why = why(error, 0, group);
        anyhow!("start a child to join its user namespace: {why}")
    })?;
    drop(result_tx);
    let mut text = String::new();
    File::from(result_rx).read_to_string(&mut text)?;
    waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    let pid = text.parse().map_err(|_| {
        // Pid 1 may run, and the intermediate child was killed before it could report that.
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
        }
        match text.as_str() {
            "" => anyhow!("the intermediate child that starts pid 1 was killed"),
            why => anyhow!("{why}"),
        }
    })?;
    let pid = Pid::from_raw(pid);
    Ok(Child {
        pid,
        // Only this process can wait for pid 1, so its number is not reused before.
        pidfd: pidfd_open(pid)?,
    })
}

/// Opens the user namespace that owns the network namespace. Creates one if that is the user
/// namespace of the host.
fn namespace(ids: IdRange, net: Option<&File>) -> Result<OwnedFd> {
    if let Some(net) = net {
        let owner = owner(net).context("find the user namespace of its network namespace")?;
        if !is_own(&owner)? {
            return Ok(owner);
        }
    }
    Ok(ids.hold(0)?.open("user")?.into())
}

/// In the intermediate child: enters root and network as root of the host, joins the user
/// namespace, creates pid 1.
fn fork_in_userns(
    ids: IdRange,
    plan: &Plan,
    namespace: OwnedFd,
    run: impl Fn() -> u8,
) -> Result<Pid> {
    inside::enter_root_and_net(plan)?;
    if plan.confinement.masks_files() {
        cover(plan).context("MASK")?;
    }
    ids.join(namespace)?;
    let more = libc::CLONE_NEWCGROUP | libc::CLONE_PARENT;
    Ok(spawn_in_namespaces(more, None, run)?.pid)
}

/// Masks files of the root, in a mount namespace that belongs to the user namespace of the host. In
/// a copy that belongs to another user namespace these mounts are locked, mount_namespaces(7): root
/// there cannot unmount them.
fn cover(plan: &Plan) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    let look = |path| open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let (root, host) = (look(".")?, look("/")?);
    // Paths of MASK are resolved inside the root.
    chroot(".")?;
    let covered = plan.confinement.cover_files();
    fchdir(host)?;
    chroot(".")?;
    fchdir(root)?;
    covered
}

/// Writes the pid of pid 1, or the error, to `result_tx`. Returns the exit status.
fn send_result(result_tx: impl AsFd, pid: &Result<Pid>) -> u8 {
    let text = match pid {
        Ok(pid) => pid.to_string(),
        Err(error) => one_line(error),
    };
    if let Ok(result_tx) = result_tx.as_fd().try_clone_to_owned() {
        let _ = File::from(result_tx).write_all(text.as_bytes());
    }
    u8::from(pid.is_err())
}
