//! The running subhost, and how a process enters it.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, chdir, fchown, getcwd, pipe2};
use ob_confine::cgroup_limits;
use ob_confine::protect::Protection;
use ob_confine::seccomp::Filters;
use ob_confine::userns::IdRange;
use ob_document::Document;
use ob_document::state::{StateDir, open_pid1};
use ob_enter::{ChildStdio, End};
use ob_sys::process::{Child, close_all_except, pidfd_open, pidfd_signal, spawn};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The milliseconds that the kernel has to end pid 1 after it has killed the last other process.
const PID1_EXIT_TIMEOUT: u16 = 250;

/// A running subhost.
pub struct Subhost {
    pid_1: OwnedFd,
    group: Option<File>,
    ids: Option<IdRange>,
    protection: Protection,
    filters: Option<Filters>,
}

/// The namespaces that this process joins itself.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);
/// The flag of time namespaces, which nix does not name.
const TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

impl Subhost {
    /// Finds the subhost `name` by its document in the state directory.
    ///
    /// Fails if it does not run, or if a fact of the document does not match pid 1.
    pub fn find(name: &str) -> Result<Self> {
        Document::new(name)?;
        let state_dir = StateDir::of(name);
        let document = state_dir.document()?;
        let pid_1 = document.as_ref().map(open_pid1).transpose()?.flatten();
        let (Some(document), Some(pid_1)) = (&document, pid_1) else {
            let has_begun = document.is_some_and(|document| document.has("pid"));
            if state_dir.is_locked() && !has_begun {
                bail!("is starting");
            }
            bail!("not running");
        };
        let ids = IdRange::required(document)?;
        if let Some(ids) = ids {
            check_users(document.number("pid")?, &pid_1, ids)?;
        }
        let protection = Protection::of(document, ids.is_some())?;
        Ok(Subhost {
            group: group(document)?,
            pid_1,
            ids,
            filters: protection.filters(&state_dir)?,
            protection,
        })
    }

    /// Joins its namespaces. The child joins its namespaces of pids, control groups and users.
    ///
    /// This process is in its root then. Fails if `setns(2)` does, or if the root of pid 1 is
    /// outside its mount namespace.
    pub fn join(&self) -> Result<()> {
        // Processes inside must not trace this process, or its child before the exec: ptrace(2)
        // requires a dumpable process.
        set_dumpable(false)?;
        match setns(&self.pid_1, NAMESPACES | TIME) {
            // The kernel was built without time namespaces.
            Err(Errno::EINVAL) => setns(&self.pid_1, NAMESPACES),
            joined => joined,
        }
        .context("join its namespaces")?;
        chdir("/")?;
        let here = getcwd()?;
        ensure!(
            here == Path::new("/"),
            "its root, {}, is outside its mount namespace",
            here.display()
        );
        Ok(())
    }

    /// Sets the resource limits of the configuration.
    ///
    /// Must be called before this process joins the user namespace, in which it cannot raise them
    /// (`CAP_SYS_RESOURCE`).
    pub fn set_rlimits(&self) -> Result<()> {
        self.protection.set_rlimits()
    }

    /// Drops the capabilities and system calls that processes of the subhost do not have.
    ///
    /// A change of the user is still possible then.
    pub fn confine(&self) -> Result<()> {
        self.protection.apply(self.filters.as_ref())
    }

    /// Returns the variables that the configuration adds to the environment.
    pub fn environment(&self) -> &[(String, String)] {
        &self.protection.environment
    }

    /// Joins its cgroup namespace and its user namespace, if it has them.
    ///
    /// Only for the child, which is in the control group already: a process in these namespaces may
    /// not move another process there from outside.
    pub fn join_users(&self) -> nix::Result<()> {
        if self.ids.is_none() {
            // It has the namespaces of the host, which this process is in.
            return Ok(());
        }
        setns(
            &self.pid_1,
            CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWUSER,
        )
    }

    /// Changes the owner of the pipes and the terminal to root of its user namespace.
    ///
    /// The command may reopen them, through /dev/stdout or /dev/tty.
    pub fn chown_stdio(&self, stdio: &ChildStdio) -> Result<()> {
        let Some(ids) = self.ids else {
            return Ok(());
        };
        for fd in stdio.created()? {
            fchown(fd, Some(ids.user(0)), None).context("chown its standard descriptors")?;
        }
        Ok(())
    }

    /// Starts a child in its pid namespace and its control group, which calls `run`.
    ///
    /// `run` gets the writing end of a pipe for the reason why the command cannot be executed. Also
    /// returns the reading end. Fails if the child cannot be started.
    pub fn spawn(&self, stdio: &ChildStdio, run: impl Fn(&OwnedFd) -> u8) -> Result<(Child, File)> {
        let (failure_rx, failure_tx) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let child = self.spawn_bare(stdio, &failure_tx, || run(&failure_tx));
        Ok((child.context("start a process in it")?, failure_rx.into()))
    }

    /// Starts a child that has only the descriptors of the command, `failure_tx`, and pid 1.
    ///
    /// An intermediate process closes all other descriptors first: a process inside that traces the
    /// child could take them.
    fn spawn_bare(
        &self,
        stdio: &ChildStdio,
        failure_tx: &OwnedFd,
        run: impl Fn() -> u8,
    ) -> Result<Child> {
        let group = self.group.as_ref().map(AsFd::as_fd);
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
        let mut kept: Vec<BorrowedFd> = stdio.standard.iter().map(AsFd::as_fd).collect();
        kept.extend(stdio.terminal.as_ref().map(AsFd::as_fd));
        kept.extend([failure_tx.as_fd(), writing.as_fd(), self.pid_1.as_fd()]);
        // The child inherits the control group.
        let intermediate = spawn(0, group, || {
            let child = close_all_except(&kept)
                .and_then(|()| self.join_pids())
                .and_then(|()| spawn(libc::CLONE_PARENT, None, run));
            let answer = child.map_or_else(|error| -(error as i32), |child| child.pid.as_raw());
            let _ = nix::unistd::write(&writing, &answer.to_ne_bytes());
            0
        })?;
        drop(writing);
        let mut answer = [0; 4];
        File::from(reading).read_exact(&mut answer)?;
        waitid(Id::PIDFd(intermediate.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        let answer = i32::from_ne_bytes(answer);
        if answer <= 0 {
            bail!(Errno::from_raw(-answer));
        }
        let pid = Pid::from_raw(answer);
        let pidfd = pidfd_open(pid)?;
        // ECHILD: the number is that of another process, not of a child of this process.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::PIDFd(pidfd.as_fd()), flags)?;
        Ok(Child { pid, pidfd })
    }

    /// Returns whether the command was killed because the subhost has ended.
    pub fn has_ended_with(&self, end: &End) -> bool {
        let End::Ended(WaitStatus::Signaled(_, Signal::SIGKILL, _)) = end else {
            return false;
        };
        let mut pid_1 = [PollFd::new(self.pid_1.as_fd(), PollFlags::POLLIN)];
        poll(&mut pid_1, PollTimeout::from(PID1_EXIT_TIMEOUT)).is_ok_and(|ended| ended > 0)
    }

    fn join_pids(&self) -> nix::Result<()> {
        setns(&self.pid_1, CloneFlags::CLONE_NEWPID)
    }
}

/// Fails unless pid 1 is in the user namespace with these `ids`, which the command will join.
fn check_users(pid: u64, pid_1: &OwnedFd, ids: IdRange) -> Result<()> {
    for map in ["uid_map", "gid_map"] {
        let found = std::fs::read_to_string(format!("/proc/{pid}/{map}"));
        let found = found.with_context(|| format!("read the {map} of pid 1"))?;
        ensure!(
            ids.is_map(&found),
            "its pid 1 is not in the user namespace of userns={ids}"
        );
    }
    // The number may have been reused while the file was read, but not if pid 1 is still alive.
    pidfd_signal(pid_1, None).context("not running")
}

/// Opens the control group of the document.
///
/// Returns `None` if the document has no control group. Fails then if there are limits.
fn group(document: &Document) -> Result<Option<File>> {
    if !document.has("cgroup") {
        let limits = cgroup_limits::of(document)?;
        let limit = limits.first().map(|(limit, _)| limit.name);
        ensure!(
            limit.is_none(),
            "{}: the document has no control group; restart the subhost",
            limit.unwrap_or_default()
        );
        return Ok(None);
    }
    let noted = document.path("cgroup")?;
    let context = || format!("open its control group {}", noted.display());
    let path = cgroup_limits::group(document).context("there is no group of its name");
    let group = path.and_then(|path| Ok(File::open(group_for_processes(path, document)?)?));
    group.map(Some).with_context(context)
}

/// Returns the group below `path` that pid 1 is in, if `path` enables controllers for groups below
/// it, as systemd(1) does; `path` otherwise. A group that enables controllers may not have
/// processes, see "no internal processes" in cgroups(7).
fn group_for_processes(path: PathBuf, document: &Document) -> Result<PathBuf> {
    let enabled = std::fs::read_to_string(path.join("cgroup.subtree_control"))?;
    if enabled.trim().is_empty() {
        return Ok(path);
    }
    let table = std::fs::read_to_string(format!("/proc/{}/cgroup", document.number("pid")?))?;
    let found = table.lines().find_map(|line| line.strip_prefix("0::/"));
    // The line begins at a directory above `path`: at the mount point of the tree.
    let below = found.and_then(|found| {
        let tree = path.ancestors().map(|above| above.join(found));
        tree.filter(|below| below.starts_with(&path)).last()
    });
    below.context("pid 1 is in no group below it")
}

/// Opens the root directory, for lookups that must not leave it.
pub fn root() -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open("/", flags, Mode::empty())?)
}
