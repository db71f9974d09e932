//! Network namespaces with a name: each is bind-mounted on a file in /run/netns, as by ip-netns(8).

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use nix::unistd::unlink;
use ob_confine::userns::{IdRange, is_own};
use ob_document::netns::{MADE, is_namespace, open_pinned, path, prepare_directory};
use ob_sys::namespace::{owner, refusal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The network namespace of this process.
const OWN: &str = "/proc/self/ns/net";

/// A descriptor of a network namespace.
pub struct Namespace {
    descriptor: OwnedFd,
    /// Whether this process created it.
    pub is_new: bool,
}

impl Namespace {
    /// Opens the namespace of this process.
    ///
    /// # Errors
    /// The file in /proc cannot be opened.
    pub fn own() -> Result<Self> {
        let descriptor = open(OWN, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| format!("open {OWN}"))?;
        Ok(Namespace {
            descriptor,
            is_new: false,
        })
    }

    /// Moves this process into the namespace `name`. Creates it if it does not exist, and mounts it
    /// in /run/netns as `ip netns add` does; with `ids`, a new user namespace with this mapping
    /// owns it.
    ///
    /// # Errors
    /// The kernel refuses a step, the path is in use for something else, or the namespace exists
    /// and belongs to the host but the subhost has a user namespace.
    pub fn enter(name: &str, ids: Option<IdRange>) -> Result<Self> {
        prepare_directory()?;
        let path = path(name);
        for _ in 0..2 {
            let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            match open(&path, new, MADE) {
                Ok(_) => {
                    return Namespace::make(&path, ids).inspect_err(|_| {
                        let _ = unpin(name);
                    });
                }
                Err(Errno::EEXIST) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("create {}", path.display()));
                }
            }
            if let Some(namespace) = Namespace::open(name)? {
                // A namespace that the administrator created belongs to the user namespace of the
                // host: root of another user namespace has no capability over it.
                let is_mapped = ids.is_some_and(|ids| ids != IdRange::IDENTITY);
                if is_mapped && is_own(owner(&namespace.descriptor)?)? {
                    bail!(
                        "USERNS: {} exists already and belongs to the host; ip netns del {name}",
                        path.display()
                    );
                }
                namespace.join()?;
                return Ok(namespace);
            }
            // Unlinking the file would unmount the namespace in all mount namespaces (unlink(2) of
            // a mount point, since Linux 3.18).
            if is_pinned_on_host(&path) {
                bail!(
                    "{} is a namespace on the host, and not seen in this mount namespace",
                    path.display()
                );
            }
            match unlink(&path) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("replace the stale file {}", path.display()));
                }
            }
        }
        bail!(
            "{}: another process creates this namespace at the same time; try again",
            path.display()
        )
    }

    fn make(path: &Path, ids: Option<IdRange>) -> Result<Self> {
        // The user namespace of the process that creates a network namespace owns it, permanently
        // (user_namespaces(7)).
        let holder = ids.map(|ids| ids.hold(libc::CLONE_NEWNET)).transpose()?;
        let new = match &holder {
            Some(holder) => holder.path("ns/net"),
            None => {
                unshare(CloneFlags::CLONE_NEWNET).map_err(|error| {
                    let why = refusal(error, libc::CLONE_NEWNET);
                    anyhow!("create a network namespace: {why}")
                })?;
                OWN.to_owned()
            }
        };
        let new = Some(new.as_str());
        mount(new, path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("name the network namespace {}", path.display()))?;
        if let Some(holder) = holder {
            setns(holder.open("net")?, CloneFlags::CLONE_NEWNET)
                .context("enter the network namespace")?;
        }
        let own = Namespace::own()?;
        Ok(Namespace {
            is_new: true,
            ..own
        })
    }

    /// Opens the namespace `name`. Returns none if the file does not exist, or is a regular file.
    ///
    /// # Errors
    /// The file is of another type, or cannot be opened.
    pub fn open(name: &str) -> Result<Option<Self>> {
        let path = path(name);
        let context = || format!("open {}", path.display());
        let descriptor = match open_pinned(&path) {
            Ok(descriptor) => descriptor,
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error).with_context(context),
        };
        if is_namespace(&descriptor) {
            return Ok(Some(Namespace {
                descriptor,
                is_new: false,
            }));
        }
        let mode = fstat(&descriptor).with_context(context)?.st_mode;
        if mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            bail!("{} is neither a namespace nor a plain file", path.display());
        }
        Ok(None)
    }

    /// Moves this process into the namespace.
    ///
    /// # Errors
    /// The errno of setns(2).
    pub fn join(&self) -> Result<()> {
        setns(&self.descriptor, CloneFlags::CLONE_NEWNET).context("enter the network namespace")
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Removes the name of a namespace; a name that does not exist is no error. The kernel removes the
/// namespace with its links after its last process and descriptor.
///
/// # Errors
/// The errno of umount2(2) or unlink(2).
pub fn unpin(name: &str) -> Result<()> {
    let path = path(name);
    let context = || format!("remove {}", path.display());
    loop {
        match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {} // another mount can be below
            Err(Errno::EINVAL) => break,
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error).with_context(context),
        }
    }
    match unlink(&path) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).with_context(context),
    }
}

/// Whether `path` is a namespace in the mount namespace of process 1, which is that of the host.
fn is_pinned_on_host(path: &Path) -> bool {
    let seen = Path::new("/proc/1/root").join(path.strip_prefix("/").unwrap_or(path));
    statfs(&seen).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}
