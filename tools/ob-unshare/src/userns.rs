//! Pid 1 in a user namespace: born of a child that has gone there, and could not come back.

use crate::inside::{self, Plan};
use crate::spawn::spawn_in_namespaces;
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

/// Starts pid 1, which does `run`, as root of the user namespace with these `ids`, in new namespaces that belong to it.
///
/// It is a child of this process all the same, whose death it is to follow.
pub fn start(
    ids: IdRange,
    plan: &Plan,
    group: Option<&File>,
    run: impl Fn() -> u8,
) -> Result<Child> {
    let namespace = namespace(ids, plan.net.as_ref())?;
    for output in plan.output {
        // Services open /dev/stdout, which asks for rights on the pipe.
        fchown(output, Some(ids.user(0)), Some(ids.group(0))).context("give it its output")?;
    }
    let (report, teller) = pipe2(OFlag::O_CLOEXEC)?;
    // Already in its control group, into which root of the user namespace could put nobody.
    let midwife = spawn(0, group.map(AsFd::as_fd), || {
        let born = bear(ids, plan, namespace, run);
        tell(&teller, born)
    });
    let midwife = midwife.context("start a child to join its user namespace")?;
    drop(teller);
    let mut text = String::new();
    File::from(report).read_to_string(&mut text)?;
    waitid(Id::PIDFd(midwife.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    let pid = text.parse().map_err(|_| {
        // It may have been born, and nobody could tell us.
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
        }
        match text.as_str() {
            "" => anyhow!("the child that was to start pid 1 was killed"),
            why => anyhow!("{why}"),
        }
    })?;
    let pid = Pid::from_raw(pid);
    Ok(Child {
        pid,
        // Only we can reap it, so the number is still its.
        pidfd: pidfd_open(pid)?,
    })
}

/// The user namespace that the network namespace belongs to; a new one if that is the host's, or there is none.
fn namespace(ids: IdRange, net: Option<&File>) -> Result<OwnedFd> {
    if let Some(net) = net {
        let owner = owner(net).context("find the user namespace of its network namespace")?;
        if !is_own(&owner)? {
            return Ok(owner);
        }
    }
    Ok(ids.hold(0)?.open("user")?.into())
}

/// In the child: goes to the root and into the network while it still may, then to where it may no more.
fn bear(ids: IdRange, plan: &Plan, namespace: OwnedFd, run: impl Fn() -> u8) -> Result<Pid> {
    inside::approach(plan)?;
    if plan.confinement.masks_files() {
        cover(plan).context("MASK")?;
    }
    ids.join(namespace)?;
    let more = libc::CLONE_NEWCGROUP | libc::CLONE_PARENT;
    Ok(spawn_in_namespaces(more, None, run)?.pid)
}

/// Covers files of the root in a mount namespace that belongs to the host still: mounts that come from there into one of another
/// user namespace cannot be taken away in it.
fn cover(plan: &Plan) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    let look = |path| open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let (root, host) = (look(".")?, look("/")?);
    // Paths mean what they mean inside.
    chroot(".")?;
    let covered = plan.confinement.cover_files();
    fchdir(host)?;
    chroot(".")?;
    fchdir(root)?;
    covered
}

fn tell(teller: impl AsFd, born: Result<Pid>) -> u8 {
    let text = match &born {
        Ok(pid) => pid.to_string(),
        Err(error) => one_line(error),
    };
    if let Ok(teller) = teller.as_fd().try_clone_to_owned() {
        let _ = File::from(teller).write_all(text.as_bytes());
    }
    u8::from(born.is_err())
}
