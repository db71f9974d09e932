//! The root itself: an overlay, a bind mount, or what is mounted there already.

use crate::claims::{Claims, Directory, Use};
use crate::mapped::{Mapped, look};
use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use ob_document::Document;
use ob_sys::mount::{Attributes, Depth, Filesystem, attach, clone_tree};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
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
    /// Finds from the plan which it is, and how it uses which directories. Refuses what the kernel
    /// would refuse, in words.
    pub fn plan(document: &Document) -> Result<(Self, Claims)> {
        let directory = |variable| Directory::of(document, variable);
        let (lower, upper, live) = (directory("LOWER")?, directory("UPPER")?, directory("LIVE")?);
        if upper.path == lower.path && upper.path == live.path {
            return Ok((Layers::There, Claims(vec![(live, Use::Exclusive)])));
        }
        ensure!(
            !live.is_mount_point()?,
            "{live} has a mount already; umount it, or set LOWER and UPPER to the same path"
        );
        if upper.path == lower.path {
            ensure!(
                !upper.is(&live),
                "{upper} and {live} are one directory; write both in the same way"
            );
            let source = upper.path.clone();
            let claims = vec![(live, Use::Alone), (upper, Use::Shared)];
            return Ok((Layers::Bind { source }, Claims(claims)));
        }
        let work = directory("WORK")?;
        work.stands_beside(&upper)?;
        ensure!(
            work.identity.0 == upper.identity.0,
            "{work} is not on the filesystem of {upper}"
        );
        // Inside, the mount on LIVE would hide them.
        upper.stands_beside(&live)?;
        work.stands_beside(&live)?;
        for written in [&upper, &work] {
            // The kernel says "too many levels of symbolic links".
            ensure!(
                !lower.is_in(written),
                "{lower} is {written}, or lies in it: what is written would change the layer below"
            );
        }
        let layers = Layers::Overlay {
            lower: lower.path.clone(),
            upper: upper.path.clone(),
            work: work.path.clone(),
        };
        // One that is LIVE has a lock. The root directory needs none, since the host writes there anyway.
        let lower = Some(lower).filter(|lower| !lower.is(&live) && !lower.is_host_root());
        let claims = [live, upper, work].map(|directory| (directory, Use::Alone));
        let claims = claims
            .into_iter()
            .chain(lower.map(|lower| (lower, Use::Shared)));
        Ok((layers, Claims(claims.collect())))
    }

    /// Whether it is we who mount it.
    pub fn are_mounted_here(&self) -> bool {
        !matches!(self, Layers::There)
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
