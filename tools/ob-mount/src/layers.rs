//! The root itself: an overlay, a bind mount, or what is mounted there already.

use crate::mapped::{Mapped, look};
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use ob_document::{Document, state};
use ob_sys::fdstore::FdStore;
use ob_sys::mount::{Attributes, Depth, Filesystem, attach, clone_tree};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How the root comes about.
pub enum Layers {
    /// UPPER differs from LOWER: an overlay.
    Overlay {
        lower: PathBuf,
        upper: PathBuf,
        work: PathBuf,
    },
    /// UPPER is LOWER, LIVE another place: UPPER is bound there.
    Bind { source: PathBuf },
    /// All three are the same: it is mounted, or needs no mount.
    There,
}

impl Layers {
    /// Tells from the plan which it is, and refuses what the kernel would refuse, in words.
    pub fn plan(document: &Document) -> Result<Self> {
        let lower = directory(document, "LOWER")?;
        let upper = directory(document, "UPPER")?;
        let live = directory(document, "LIVE")?;
        if upper == lower && upper == live {
            return Ok(Layers::There);
        }
        ensure!(
            !is_mount_point(&live)?,
            "LIVE={} has a mount already; umount it, or set LOWER and UPPER to the same path",
            live.display()
        );
        if upper == lower {
            return Ok(Layers::Bind { source: upper });
        }
        let work = directory(document, "WORK")?;
        let (here, there) = (upper.canonicalize()?, work.canonicalize()?);
        ensure!(
            !there.starts_with(&here) && !here.starts_with(&there),
            "WORK={} and UPPER={} lie one in the other; they must stand side by side",
            work.display(),
            upper.display()
        );
        ensure!(
            here.metadata()?.dev() == there.metadata()?.dev(),
            "WORK={} is not on the filesystem of UPPER={}",
            work.display(),
            upper.display()
        );
        Ok(Layers::Overlay { lower, upper, work })
    }

    /// Whether it is we who mount it.
    pub fn are_mounted_here(&self) -> bool {
        !matches!(self, Layers::There)
    }

    /// Makes sure that no other subhost has LIVE, and no other writes to UPPER, which the kernel calls undefined.
    ///
    /// Pushes the locks to the fd store of the room, so that they are held as long as the subhost
    /// runs. Outside a room they are released when this process exits.
    pub fn claim(&self, document: &Document) -> Result<()> {
        let claims = self.claims(document)?;
        if let Some(store) = FdStore::from_environment().context("open the fd store of the room")? {
            for claim in &claims {
                store.push(claim).context("store a lock in the room")?;
            }
        }
        Ok(())
    }

    /// The locks, for as long as they are held; fails if another has one.
    pub fn claims(&self, document: &Document) -> Result<Vec<state::Lock>> {
        let mut claims = vec![claim(document, "LIVE", false)?];
        match self {
            Layers::Overlay { .. } => claims.push(claim(document, "UPPER", false)?),
            // Any number may share a tree that is bound; none may have it as the UPPER of an overlay meanwhile.
            Layers::Bind { .. } => claims.push(claim(document, "UPPER", true)?),
            Layers::There => {}
        }
        Ok(claims)
    }

    /// What the root is, in words.
    pub fn in_words(&self, live: &Path) -> String {
        match self {
            Layers::Overlay { lower, upper, .. } => {
                format!("an overlay of {} on {}", upper.display(), lower.display())
            }
            Layers::Bind { source } => source.display().to_string(),
            Layers::There => format!("what is at {} already", live.display()),
        }
    }

    /// The tree that what is written inside goes to.
    pub fn written_to(&self, document: &Document) -> Result<PathBuf> {
        match self {
            Layers::Overlay { upper, .. } => Ok(upper.clone()),
            Layers::Bind { source } => Ok(source.clone()),
            Layers::There => Ok(document.path("LIVE")?.to_owned()),
        }
    }

    /// Mounts it on `live`, with its owners as inside where the subhost has a user namespace; tells whether there was anything to
    /// mount.
    pub fn mount(&self, name: &str, live: &Path, mapped: Option<&Mapped>) -> Result<bool> {
        let (tree, what) = match (self, mapped) {
            (Layers::There, None) => return Ok(false),
            (Layers::There, Some(mapped)) => {
                let what = format!("LIVE={}", live.display());
                (mapped.layer(live, Depth::Recursive, &what)?, "map LIVE")
            }
            (Layers::Bind { source }, None) => {
                (clone_tree(look(source)?, c"", Depth::One)?, "bind UPPER")
            }
            (Layers::Bind { source }, Some(mapped)) => {
                let what = format!("UPPER={}", source.display());
                (mapped.layer(source, Depth::One, &what)?, "bind UPPER")
            }
            (Layers::Overlay { lower, upper, work }, mapped) => {
                let tree = match mapped {
                    None => overlay(name, lower, upper, work, 0),
                    Some(mapped) => mapped.overlay(name, lower, upper, work),
                };
                let tree = tree.with_context(|| format!("mount overlay on {}", live.display()))?;
                (tree, "mount overlay")
            }
        };
        look(live)
            .and_then(|target| attach(tree, target))
            .with_context(|| format!("{what} on {}", live.display()))?;
        Ok(true)
    }
}

/// Makes an overlay, not yet attached anywhere.
pub fn overlay(
    name: &str,
    lower: &Path,
    upper: &Path,
    work: &Path,
    attributes: Attributes,
) -> Result<OwnedFd> {
    let overlay = Filesystem::new(c"overlay").context("the kernel has no overlay filesystem")?;
    let layers = [
        (c"lowerdir", lower),
        (c"upperdir", upper),
        (c"workdir", work),
    ];
    let mut opened = Vec::new();
    let made = (|| {
        overlay.set(c"source", name)?;
        for (key, path) in layers {
            // Older kernels read commas, colons and backslashes as their own, and take no more than 255 bytes; the
            // descriptor's name has none of them.
            let text = path.to_str().filter(|text| text.len() < 256);
            if let Some(text) = text.filter(|text| !text.contains(['\\', ',', ':'])) {
                overlay.set(key, text)?;
            } else {
                let layer = File::open(path).map_err(|_| Errno::ENOENT)?;
                let alias = format!("/proc/self/fd/{}", layer.as_raw_fd());
                overlay.set(key, alias.as_str())?;
                opened.push(layer);
            }
        }
        overlay.create()?;
        overlay.mount(attributes)
    })();
    made.map_err(|error: Errno| {
        let complaint = overlay.complaint();
        let complaint = complaint.trim_start_matches("overlay: ");
        match (complaint, error) {
            // What the log of the kernel says, by the one reason that is left after our checks.
            ("", Errno::EINVAL) => anyhow!(
                "the kernel refuses UPPER={} (is its filesystem read-only, or one that cannot be an upper layer?)",
                upper.display()
            ),
            ("", error) => error.into(),
            (complaint, error) => anyhow!("{complaint}: {}", error.desc()),
        }
    })
}

fn directory(document: &Document, key: &str) -> Result<PathBuf> {
    let path = document.path(key)?;
    match path.metadata() {
        Ok(status) if status.is_dir() => Ok(path.to_owned()),
        Ok(_) => bail!("{key}={} is not a directory", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "{key}={path} does not exist; mkdir {path}",
                path = path.display()
            )
        }
        Err(error) => Err(error).with_context(|| format!("{key}={}", path.display())),
    }
}

fn claim(document: &Document, key: &str, shared: bool) -> Result<state::Lock> {
    let path = document.path(key)?;
    if let Some(lock) = state::claim(path, shared)? {
        return Ok(lock);
    }
    let owner = state::owners(key, path).next();
    let owner = owner.map_or_else(
        || "another subhost that is starting or ending".to_owned(),
        |owner| format!("the subhost {owner}"),
    );
    bail!("{key}={} is in use by {owner}", path.display())
}

/// Whether something is mounted on `path`: whether the way from its parent to it crosses into another mount.
fn is_mount_point(path: &Path) -> Result<bool> {
    let path = path.canonicalize()?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(true);
    };
    let parent = File::open(parent)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(&parent, name, how) {
        Ok(_) => Ok(false),
        Err(Errno::EXDEV) => Ok(true),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}
