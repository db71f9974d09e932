//! The steps of pid 1, from its start in new namespaces to the program of the subhost.

use crate::confine::Confinement;
use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc::dev_t;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{AccessFlags, access, chdir, fchdir, getpid, pipe2, pivot_root, setsid};
use ob_confine::userns::IdRange;
use ob_sys::device;
use ob_sys::mount::{Depth, attach, clone_tree};
use ob_sys::process::{Descriptors, exec, join_new_session_keyring, pidfd_open};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// The parameters of pid 1.
pub struct Plan<'a> {
    /// A pidfd of the supervisor. Pid 1 exits with it.
    pub supervisor: OwnedFd,
    /// The path of its root, in the room.
    pub root: PathBuf,
    /// Its network namespace; `None`: as the caller.
    pub net: Option<File>,
    /// The ids of its user namespace; `None`: as on the host. With ids, pid 1 is started in
    /// the user namespace, in its root and in its network namespace.
    pub ids: Option<IdRange>,
    /// Whether a custom INIT gets the control group, in a user namespace.
    pub has_cgroup: bool,
    /// The device number of the terminal that /dev/console becomes.
    pub console: Option<dev_t>,
    /// The command and its arguments. The command is searched in PATH, inside.
    pub command: Vec<CString>,
    /// The environment, as `NAME=VALUE`.
    pub environment: Vec<CString>,
    /// The protection to apply.
    pub confinement: Confinement,
    /// Standard output and standard error: pipes.
    pub output: [BorrowedFd<'a>; 2],
    /// The reaper, and its descriptor in pid 1.
    pub reaper: Option<(BorrowedFd<'a>, i32)>,
}

/// Executes the command of the plan. Returns only if that fails, with the exit status of env(1) and
/// the reason.
pub fn become_pid_1(plan: &Plan) -> (u8, anyhow::Error) {
    match prepare(plan).and_then(|()| open_stdin()) {
        Err(error) => (125, error),
        Ok(stdin) => run(plan, &stdin),
    }
}

fn prepare(plan: &Plan) -> Result<()> {
    die_with(&plan.supervisor)?;
    setsid().context("begin a session")?;
    // Hides the session keyring of the caller, session-keyring(7). Fails only if the kernel has no
    // keyrings.
    let _ = join_new_session_keyring();
    if plan.ids.is_none() {
        enter_root_and_net(plan)?;
    }
    pivot().with_context(|| format!("make {} the root", plan.root.display()))?;
    mount_proc_and_sys(plan.ids.is_some())?;
    if plan.has_cgroup {
        mount_cgroup()?;
    }
    // After pivot_root(".", ".") the old root is mounted on the new one, at the working directory,
    // see pivot_root(2).
    umount2(".", MntFlags::MNT_DETACH).context("detach the old root")?;
    chdir("/")?;
    plan.confinement.cover(plan.ids.is_some(), plan.console)
}

/// Sets the resource limits, joins the network namespace, and changes to the root of the subhost.
///
/// With a user namespace this must happen before it is joined: afterwards root may neither join a
/// namespace of the host nor search a directory that only root of the host can search, such as
/// BASE.
pub fn enter_root_and_net(plan: &Plan) -> Result<()> {
    plan.confinement.set_rlimits()?;
    if let Some(net) = &plan.net {
        setns(net, CloneFlags::CLONE_NEWNET).context("join its network namespace")?;
    }
    chdir(&plan.root).with_context(|| format!("change to {}", plan.root.display()))
}

/// Sets the parent death signal, and fails if the supervisor has exited before.
///
/// The pidfd shows that. getppid(2) returns 0 in a new pid namespace, and this process holds both
/// ends of every pipe.
fn die_with(supervisor: impl AsFd) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("set the parent death signal")?;
    let mut end = [PollFd::new(supervisor.as_fd(), PollFlags::POLLIN)];
    let ended = poll(&mut end, PollTimeout::ZERO)? > 0;
    ensure!(!ended, "the supervisor has ended");
    Ok(())
}

/// Makes the working directory the root of this mount namespace. The old root is mounted on top of
/// it.
fn pivot() -> Result<()> {
    // In a chroot(2), the root of this process is not the root of its mount namespace. A process
    // that joins the namespace later gets the latter, setns(2), so that must be the new root. To
    // join the own namespace changes the root, and leaves a chroot.
    let here = open(".", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    setns(pidfd_open(getpid())?, CloneFlags::CLONE_NEWNS)?;
    fchdir(&here)?;
    // The copies of the mounts of the host are peers of these; without MS_PRIVATE the changes would
    // reach the host.
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    match pivot_root(".", ".") {
        // EINVAL: the directory is no mount point, or its mount belongs to another user namespace.
        // EBUSY: it is the root already. A copy of it, attached to itself, can be used.
        Err(Errno::EINVAL | Errno::EBUSY) => {
            let tree = clone_tree(&here, c"", Depth::Recursive)?;
            attach(&tree, &here)?;
            fchdir(&tree)?;
            pivot_root(".", ".")?;
        }
        pivoted => pivoted?,
    }
    Ok(())
}

/// Mounts procfs and sysfs, which show the namespaces of the process that mounts them. If the root
/// has no /sys, sysfs is left out.
///
/// In a user namespace (`mapped`) the kernel allows a new instance only while a full one is
/// visible, see mount_too_revealing(): at first in the old root. `ip netns exec` unmounts
/// /sys before it mounts sysfs, so a second mount, a bind, keeps one visible. The kernel refuses to
/// mount sysfs twice at the same place.
fn mount_proc_and_sys(mapped: bool) -> Result<()> {
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
        // EPERM: the network namespace belongs to another user namespace.
        Ok(()) | Err(Errno::ENOENT | Errno::EPERM) => Ok(()),
        Err(error) => Err(error).context("mount sysfs on /sys"),
    }
}

/// Mounts the tree of control groups, which begins at the group of the subhost: in a user
/// namespace, pid 1 has a new cgroup namespace.
fn mount_cgroup() -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let path = "/sys/fs/cgroup";
    match mount(Some("cgroup2"), path, Some("cgroup2"), flags, None::<&str>) {
        // ENOENT: the root has no /sys, or it is no sysfs.
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).context("mount cgroup2 on /sys/fs/cgroup"),
    }
}

/// Opens /dev/null of the subhost, if it is the null device, or a pipe without writer.
///
/// Not the node of the host: fchmod(2) would change its mode.
fn open_stdin() -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    if let Ok(null) = open("/dev/null", flags, Mode::empty()) {
        if fstat(&null).is_ok_and(|status| status.st_rdev == device::NULL) {
            return Ok(null);
        }
    }
    Ok(pipe2(OFlag::O_CLOEXEC)?.0)
}

/// Executes the command, which is searched in PATH, inside.
fn run(plan: &Plan, stdin: &OwnedFd) -> (u8, anyhow::Error) {
    let [stdout, stderr] = plan.output;
    let descriptors = Descriptors {
        standard: [stdin.as_fd(), stdout, stderr],
        extra: plan.reaper,
    };
    let command = plan.command[0].to_string_lossy().into_owned();
    let program = match find(&plan.command[0]) {
        Err(Errno::ENOENT) => return (127, anyhow!("there is no {command} in its root")),
        program => program,
    };
    if let Err(error) = plan.confinement.apply() {
        return (125, error);
    }
    // Not called twice: exec moves the descriptors to their numbers.
    let error = match program {
        Ok(program) => exec(&program, &plan.command, &plan.environment, &descriptors),
        Err(error) => error,
    };
    match error {
        // The program exists, so execve(2) has not found its interpreter.
        Errno::ENOENT => (
            127,
            anyhow!("run {command}: there is no interpreter for it"),
        ),
        error => (
            126,
            anyhow::Error::from(error).context(format!("run {command}")),
        ),
    }
}

/// Returns the path of the command. A command without a slash is searched in PATH, inside.
fn find(command: &CStr) -> nix::Result<CString> {
    if command.to_bytes().contains(&b'/') {
        access(command, AccessFlags::F_OK)?;
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
