//! The way of pid 1 from its birth in new namespaces to the subhost's own shell. Nothing of the host goes with it.

use crate::confine::Confinement;
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat, major, minor};
use nix::unistd::{AccessFlags, access, chdir, fchdir, pipe2, pivot_root, setsid};
use ob_confine::userns::IdRange;
use ob_sys::mount::{Depth, attach, clone_tree};
use ob_sys::process::{Descriptors, exec, join_new_session_keyring};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// What pid 1 needs to know.
pub struct Plan<'a> {
    /// The descriptor of its supervisor's process, whose death it is to follow.
    pub supervisor: OwnedFd,
    /// Its root, as the room sees it.
    pub root: PathBuf,
    /// Its network namespace; none for the host's.
    pub net: Option<File>,
    /// The ids of its user namespace; none for the host's. Then it is born in it, and in both of the above.
    pub ids: Option<IdRange>,
    /// The command and its words; the first is looked up on the path inside.
    pub command: Vec<CString>,
    /// `VAR=value`, all of it.
    pub environment: Vec<CString>,
    /// What it is not to have.
    pub confinement: Confinement,
    /// Where output and errors go: pipes that were made for it.
    pub output: [BorrowedFd<'a>; 2],
    /// The reaper, and the number it is to have.
    pub reaper: Option<(BorrowedFd<'a>, i32)>,
}

/// Becomes the command of the plan. Returns only if that fails: with the status of env(1), and why.
pub fn become_pid_1(plan: &Plan) -> (u8, anyhow::Error) {
    match prepare(plan).and_then(|()| stdin()) {
        Err(error) => (125, error),
        Ok(stdin) => run(plan, &stdin),
    }
}

fn prepare(plan: &Plan) -> Result<()> {
    die_with(&plan.supervisor)?;
    setsid().context("begin a session")?;
    // The keys of whoever boots are no affair of the subhost. A kernel without keyrings has none to hide.
    let _ = join_new_session_keyring();
    if plan.ids.is_none() {
        approach(plan)?;
    }
    pivot().with_context(|| format!("make {} the root", plan.root.display()))?;
    show_namespaces(plan.ids.is_some())?;
    // The old root lies on the new one, where our working directory still is: no directory is needed to put it.
    umount2(".", MntFlags::MNT_DETACH).context("detach the old root")?;
    chdir("/")?;
    plan.confinement.cover(plan.ids.is_some())
}

/// Sets its limits, goes into its network namespace and to its root, the latter in whichever mount namespace we are. Root of a user
/// namespace may pass neither a door of the host's nor a directory of root alone, such as BASE.
pub fn approach(plan: &Plan) -> Result<()> {
    plan.confinement.limit()?;
    if let Some(net) = &plan.net {
        setns(net, CloneFlags::CLONE_NEWNET).context("join its network namespace")?;
    }
    chdir(&plan.root).with_context(|| format!("go to {}", plan.root.display()))
}

/// Has the kernel kill us with our supervisor, and makes sure that it was not gone before we said so.
///
/// Its descriptor tells, and neither its number, which is none in this pid namespace, nor a pipe, of which we have both ends.
fn die_with(supervisor: impl AsFd) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("set the parent death signal")?;
    let mut end = [PollFd::new(supervisor.as_fd(), PollFlags::POLLIN)];
    let ended = poll(&mut end, PollTimeout::ZERO)? > 0;
    ensure!(!ended, "the supervisor has ended");
    Ok(())
}

/// Makes the working directory the root of this mount namespace; the old one is on top of it, out of sight.
fn pivot() -> Result<()> {
    // Our copies of the host's mounts are peers of theirs: what we do next must not reach them.
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    match pivot_root(".", ".") {
        // It is no mount, or the root already, or belongs to another user namespace: a copy of it on itself is one of ours.
        Err(Errno::EINVAL | Errno::EBUSY) => {
            let here = open(".", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            let tree = clone_tree(&here, c"", Depth::Recursive)?;
            attach(&tree, &here)?;
            fchdir(&tree)?;
            pivot_root(".", ".")?;
        }
        pivoted => pivoted?,
    }
    Ok(())
}

/// Mounts what shows the namespaces that we are in: it can only be mounted from within them. A root without /sys does without.
///
/// In a user namespace (`mapped`) the kernel allows it only as long as there is another to be seen; at first that of the old root.
/// `ip netns exec` takes /sys away and then mounts its own: so it lies there twice, the second a copy, since the kernel mounts nothing on itself.
fn show_namespaces(mapped: bool) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
        .context("mount proc on /proc")?;
    match mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>) {
        Ok(()) if mapped => mount(
            Some("/sys"),
            "/sys",
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .context("bind /sys on /sys"),
        // Not ours to mount where the network namespace belongs to another user namespace.
        Ok(()) | Err(Errno::ENOENT | Errno::EPERM) => Ok(()),
        Err(error) => Err(error).context("mount sysfs on /sys"),
    }
}

/// The subhost's /dev/null, if it is that, else a pipe at its end. Never the host's node, whose mode could be changed through it.
fn stdin() -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    if let Ok(null) = open("/dev/null", flags, Mode::empty())
        && fstat(&null).is_ok_and(|status| (major(status.st_rdev), minor(status.st_rdev)) == (1, 3))
    {
        return Ok(null);
    }
    Ok(pipe2(OFlag::O_CLOEXEC)?.0)
}

/// Execs the command, looked up on the path inside.
fn run(plan: &Plan, stdin: &OwnedFd) -> (u8, anyhow::Error) {
    let [stdout, stderr] = plan.output;
    let descriptors = Descriptors {
        standard: [stdin.as_fd(), stdout, stderr],
        extra: plan.reaper,
    };
    let program = find(&plan.command[0]);
    if let Err(error) = plan.confinement.put_on() {
        return (125, error);
    }
    // Only once: exec puts the descriptors in their places, and has none left for a second try.
    let error = match program {
        Ok(program) => exec(&program, &plan.command, &plan.environment, &descriptors),
        Err(error) => error,
    };
    let missing = error == Errno::ENOENT;
    let command = plan.command[0].to_string_lossy().into_owned();
    let error = if missing {
        anyhow::anyhow!("there is no {command} in its root")
    } else {
        anyhow::Error::from(error).context(format!("run {command}"))
    };
    (if missing { 127 } else { 126 }, error)
}

/// Where the command is: what has a slash is a path, all else is looked up on the path inside.
fn find(command: &CStr) -> nix::Result<CString> {
    if command.to_bytes().contains(&b'/') {
        return Ok(command.to_owned());
    }
    let mut directories = ob_document::inside::PATH.split(':');
    directories
        .find_map(|directory| {
            let path = [directory.as_bytes(), b"/", command.to_bytes()].concat();
            let path = CString::new(path).ok()?;
            access(path.as_c_str(), AccessFlags::X_OK).ok()?;
            Some(path)
        })
        .ok_or(Errno::ENOENT)
}
