//! The running subhost, and the ways into it.

use crate::command::Command;
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
use ob_enter::{End, Inside};
use ob_sys::process::{Child, close_all_except, pidfd_open, pidfd_signal, spawn};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How many milliseconds the kernel may take to end pid 1 after the last of its processes.
const END: u16 = 250;

/// A subhost that runs.
pub struct Subhost {
    pid_1: OwnedFd,
    group: Option<File>,
    ids: Option<IdRange>,
    protection: Protection,
    filters: Option<Filters>,
}

/// Those that this process joins itself. That of time has no name among nix's flags.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);
const TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

impl Subhost {
    /// Finds it by its document at rest, and by nothing else; fails if what that tells cannot be proven.
    pub fn find(name: &str) -> Result<Self> {
        Document::new(name)?;
        let home = StateDir::of(name);
        let document = home.document()?;
        let Some((document, pid_1)) = document
            .as_ref()
            .and_then(|document| Some((document, open_pid1(document)?)))
        else {
            let has_begun = document.is_some_and(|document| document.has("pid"));
            if home.is_locked() && !has_begun {
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
            filters: protection.filters(&home)?,
            protection,
        })
    }

    /// Joins its namespaces, but those of pids, control groups and users, which are for the command alone. In its root nothing of the host is open
    /// then but what the caller has given us.
    pub fn join(&self) -> Result<()> {
        // Nobody inside may look into us, or our child before its exec.
        set_dumpable(false)?;
        match setns(&self.pid_1, NAMESPACES | TIME) {
            // A kernel built without time namespaces.
            Err(Errno::EINVAL) => setns(&self.pid_1, NAMESPACES),
            joined => joined,
        }
        .context("join its namespaces")?;
        chdir("/")?;
        let here = getcwd()?;
        ensure!(
            here == Path::new("/"),
            "its root is {}, which is not in it",
            here.display()
        );
        Ok(())
    }

    /// Sets the limits that the subhost's processes have. Not to be done by who has joined its users, and could not raise them.
    pub fn limit(&self) -> Result<()> {
        self.protection.set_rlimits()
    }

    /// Takes from this process what those of the subhost do not have. A change of user is still possible then.
    pub fn confine(&self) -> Result<()> {
        self.protection.apply(self.filters.as_ref())
    }

    /// What the configuration adds to the environment.
    pub fn environment(&self) -> &[(String, String)] {
        &self.protection.environment
    }

    /// Joins the namespaces of its control groups and its users, if it has such. For the child alone, which is in its control group:
    /// who has joined either may move nobody into that from outside.
    pub fn join_users(&self) -> nix::Result<()> {
        if self.ids.is_none() {
            // It has those of the host. We are in them, and only root of the host may join them.
            return Ok(());
        }
        setns(
            &self.pid_1,
            CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWUSER,
        )
    }

    /// Makes root of its user namespace the owner of what we have made for the command, who may have to open it again by /dev/stdout
    /// or /dev/tty.
    pub fn give(&self, inside: &Inside) -> Result<()> {
        let Some(ids) = self.ids else {
            return Ok(());
        };
        for made in inside.made()? {
            fchown(made, Some(ids.user(0)), None).context("give it its standard streams")?;
        }
        Ok(())
    }

    /// Starts the command in its pid namespace and its control group. Also returns where a failure is told.
    ///
    /// A process in between lets go of all that this one holds and the command must not have: who can trace the command can
    /// take from it all that it is born with.
    pub fn spawn(&self, command: &Command, inside: &Inside) -> Result<(Child, File)> {
        let (news, teller) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let run = || command.become_it(self, inside, &teller);
        let child = self.spawn_bare(inside, &teller, run);
        Ok((child.context("start a process in it")?, news.into()))
    }

    fn spawn_bare(&self, inside: &Inside, teller: &OwnedFd, run: impl Fn() -> u8) -> Result<Child> {
        let group = self.group.as_ref().map(AsFd::as_fd);
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
        let mut kept: Vec<BorrowedFd> = inside.standard.iter().map(AsFd::as_fd).collect();
        kept.extend(inside.terminal.as_ref().map(AsFd::as_fd));
        kept.extend([teller.as_fd(), writing.as_fd(), self.pid_1.as_fd()]);
        // Already in the group, for its child.
        let middle = spawn(0, group, || {
            let born = close_all_except(&kept)
                .and_then(|()| self.join_pids())
                .and_then(|()| spawn(libc::CLONE_PARENT, None, run));
            let answer = born.map_or_else(|error| -(error as i32), |child| child.pid.as_raw());
            let _ = nix::unistd::write(&writing, &answer.to_ne_bytes());
            0
        })?;
        drop(writing);
        let mut answer = [0; 4];
        File::from(reading).read_exact(&mut answer)?;
        waitid(Id::PIDFd(middle.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        let answer = i32::from_ne_bytes(answer);
        if answer <= 0 {
            bail!(Errno::from_raw(-answer));
        }
        let pid = Pid::from_raw(answer);
        let pidfd = pidfd_open(pid)?;
        // Only a child of ours can be looked at so: nobody has told us another's number.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::PIDFd(pidfd.as_fd()), flags)?;
        Ok(Child { pid, pidfd })
    }

    /// Whether a command that was killed was so because all of the subhost was.
    pub fn has_ended_with(&self, end: &End) -> bool {
        let End::Ended(WaitStatus::Signaled(_, Signal::SIGKILL, _)) = end else {
            return false;
        };
        let mut pid_1 = [PollFd::new(self.pid_1.as_fd(), PollFlags::POLLIN)];
        poll(&mut pid_1, PollTimeout::from(END)).is_ok_and(|ended| ended > 0)
    }

    fn join_pids(&self) -> nix::Result<()> {
        setns(&self.pid_1, CloneFlags::CLONE_NEWPID)
    }
}

/// Makes sure that pid 1 is in the user namespace with these `ids`, which the command will join.
fn check_users(pid: u64, pid_1: &OwnedFd, ids: IdRange) -> Result<()> {
    for map in ["uid_map", "gid_map"] {
        let found = std::fs::read_to_string(format!("/proc/{pid}/{map}"));
        let found = found.with_context(|| format!("read the {map} of pid 1"))?;
        ensure!(
            ids.is_map(&found),
            "its pid 1 is not in the user namespace of userns={ids}"
        );
    }
    // It was the file of pid 1 if that has not ended meanwhile.
    pidfd_signal(pid_1, None).context("not running")
}

/// Opens its control group; none if it has none, and needs none.
fn group(document: &Document) -> Result<Option<File>> {
    if !document.has("cgroup") {
        let limits = cgroup_limits::of(document)?;
        let limit = limits.first().map(|(limit, _)| limit.name);
        ensure!(
            limit.is_none(),
            "{}: no control group is noted for it",
            limit.unwrap_or_default()
        );
        return Ok(None);
    }
    let noted = document.path("cgroup")?;
    let context = || format!("open its control group {}", noted.display());
    let path = cgroup_limits::group(document).context("there is no group of its name");
    let group = path.and_then(|path| Ok(File::open(path)?));
    group.map(Some).with_context(context)
}

/// The root directory, for lookups that are not to leave it.
pub fn root() -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open("/", flags, Mode::empty())?)
}
