//! Network namespaces with a name: pinned on a file in /run/netns, as `ip netns` has them.

use anyhow::{Context, Result, bail};
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
use ob_sys::namespace::owner;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The network namespace that this process is in.
const OWN: &str = "/proc/self/ns/net";

/// A network namespace, held open.
pub struct Namespace {
    descriptor: OwnedFd,
    /// Whether it is new, and not one that had the name before.
    pub is_new: bool,
}

impl Namespace {
    /// The one that this process is in.
    pub fn own() -> Result<Self> {
        let descriptor = open(OWN, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| format!("open {OWN}"))?;
        Ok(Namespace {
            descriptor,
            is_new: false,
        })
    }

    /// Takes this process into the namespace called `name`. If there is none it is made, and so named on the host as
    /// `ip netns add` would; with `ids` it belongs to a new user namespace of these.
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
                    return Err(error).with_context(|| format!("make {}", path.display()));
                }
            }
            if let Some(namespace) = Namespace::open(name)? {
                // One that root has made by hand is for root to change, where root inside is nobody else.
                let is_mapped = ids.is_some_and(|ids| ids != IdRange::IDENTITY);
                if is_mapped && is_own(owner(&namespace.descriptor)?)? {
                    bail!(
                        "USERNS: {} is there already and belongs to the host; ip netns del {name}",
                        path.display()
                    );
                }
                namespace.join()?;
                return Ok(namespace);
            }
            // To unlink the file would take the name back in all mount namespaces.
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
        bail!("{}: somebody else makes this namespace", path.display())
    }

    fn make(path: &Path, ids: Option<IdRange>) -> Result<Self> {
        // Who makes a network namespace decides which user namespace it belongs to, for good.
        let holder = ids.map(|ids| ids.hold(libc::CLONE_NEWNET)).transpose()?;
        let new = match &holder {
            Some(holder) => holder.path("ns/net"),
            None => {
                unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
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

    /// Opens the one called `name`; none if there is none, be it that the file there is no namespace. Fails if something
    /// stands there that is neither.
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

    /// Takes this process into it.
    pub fn join(&self) -> Result<()> {
        setns(&self.descriptor, CloneFlags::CLONE_NEWNET).context("enter the network namespace")
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Takes the name back; nothing there is no error. The namespace ends when its last process and descriptor have, and takes its
/// links with it.
pub fn unpin(name: &str) -> Result<()> {
    let path = path(name);
    let context = || format!("take away {}", path.display());
    loop {
        match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {} // there may be one below it
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

/// Whether the first process, whose mount namespace is the host's, sees a namespace at `path`.
fn is_pinned_on_host(path: &Path) -> bool {
    let seen = Path::new("/proc/1/root").join(path.strip_prefix("/").unwrap_or(path));
    statfs(&seen).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}
