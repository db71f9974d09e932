//! The root: an overlay, a bind mount, or an existing tree.

use crate::claims::{Claims, Directory, Use};
use crate::idmap::Idmap;
use crate::overlay::{self, Layer, open_path};
use anyhow::{Context, Result, ensure};
use ob_document::Document;
use ob_sys::mount::{Depth, attach, clone_tree, mount_of};
use std::path::{Path, PathBuf};

/// The sources of the root, by the three ways of `subhost.conf(5)`.
pub enum Layers {
    /// UPPER differs from LOWER: an overlay.
    Overlay {
        lower: PathBuf,
        upper: PathBuf,
        work: PathBuf,
    },
    /// UPPER is LOWER, and LIVE another directory: a bind mount of UPPER.
    Bind { source: PathBuf },
    /// UPPER, LOWER and LIVE are one directory: no mount.
    Existing,
}

impl Layers {
    /// Chooses the layers by the plan, and returns them with the directories to lock.
    ///
    /// # Errors
    /// Fails if the kernel would refuse to mount the directories, or if the mount would do harm.
    pub fn plan(document: &Document) -> Result<(Self, Claims)> {
        let directory = |variable| Directory::of(document, variable);
        let (lower, upper, live) = (directory("LOWER")?, directory("UPPER")?, directory("LIVE")?);
        if upper.path == lower.path && upper.path == live.path {
            return Ok((Layers::Existing, Claims(vec![(live, Use::Exclusive)])));
        }
        ensure!(
            !live.is_mount_point()?,
            "{live} has a mount already; umount -R {}",
            live.path.display()
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
        ensure_fit(&lower, &upper, &work, &live)?;
        let layers = Layers::Overlay {
            lower: lower.path.clone(),
            upper: upper.path.clone(),
            work: work.path.clone(),
        };
        // LOWER needs no second lock if it is LIVE, and none if it is the root directory, since the
        // host writes there at any time.
        let lower = Some(lower).filter(|lower| !lower.is(&live) && !lower.is_host_root());
        let claims = [live, upper, work].map(|directory| (directory, Use::Alone));
        let claims = claims
            .into_iter()
            .chain(lower.map(|lower| (lower, Use::Shared)));
        Ok((layers, Claims(claims.collect())))
    }

    /// Whether [`Layers::mount`] makes a mount without an id mapping.
    pub fn needs_mount(&self) -> bool {
        !matches!(self, Layers::Existing)
    }

    /// Describes the root for the log.
    pub fn describe(&self, live: &Path) -> String {
        match self {
            Layers::Overlay { lower, upper, .. } => {
                format!("an overlay of {} on {}", upper.display(), lower.display())
            }
            Layers::Bind { source } => source.display().to_string(),
            Layers::Existing => format!("the existing {}", live.display()),
        }
    }

    /// Returns the tree that keeps the writes of the subhost.
    pub fn writable_tree(&self, document: &Document) -> Result<PathBuf> {
        match self {
            Layers::Overlay { upper, .. } => Ok(upper.clone()),
            Layers::Bind { source } => Ok(source.clone()),
            Layers::Existing => Ok(document.path("LIVE")?.to_owned()),
        }
    }

    /// Mounts the root on `live`, idmapped if there is an `idmap`. Returns whether there was
    /// anything to mount.
    pub fn mount(&self, name: &str, live: &Path, idmap: Option<&Idmap>) -> Result<bool> {
        let (tree, what) = match (self, idmap) {
            (Layers::Existing, None) => return Ok(false),
            (Layers::Existing, Some(idmap)) => {
                let what = format!("LIVE={}", live.display());
                (
                    idmap.clone_layer(live, Depth::Recursive, &what)?,
                    "map LIVE",
                )
            }
            (Layers::Bind { source }, None) => (
                clone_tree(open_path(source)?, c"", Depth::One)?,
                "bind UPPER",
            ),
            (Layers::Bind { source }, Some(idmap)) => {
                let what = format!("UPPER={}", source.display());
                (idmap.clone_layer(source, Depth::One, &what)?, "bind UPPER")
            }
            (Layers::Overlay { lower, upper, work }, idmap) => {
                let names = [("LOWER", lower), ("UPPER", upper)];
                let names = names.map(|(name, path)| format!("{name}={}", path.display()));
                let [lower, upper] = [(&names[0], lower), (&names[1], upper)]
                    .map(|(name, path)| Layer { name, path });
                let tree = match idmap {
                    None => overlay::create(name, &lower, &upper, work, 0),
                    Some(idmap) => idmap.create_overlay(name, &lower, &upper, work),
                };
                let tree = tree.with_context(|| format!("mount overlay on {}", live.display()))?;
                (tree, "mount overlay")
            }
        };
        open_path(live)
            .and_then(|target| attach(tree, target))
            .with_context(|| format!("{what} on {}", live.display()))?;
        Ok(true)
    }
}

/// Fails if these cannot be the layers of an overlay on `live`.
fn ensure_fit(
    lower: &Directory,
    upper: &Directory,
    work: &Directory,
    live: &Directory,
) -> Result<()> {
    work.stands_beside(upper)?;
    ensure!(
        work.identity.0 == upper.identity.0,
        "{work} is not on the filesystem of {upper}"
    );
    // Linux 5.8; overlayfs compares the mounts, `ovl_get_workdir` in fs/overlayfs/super.c.
    ensure!(
        mount_of(&work.file).ok().map(|mount| mount.id)
            == mount_of(&upper.file).ok().map(|mount| mount.id),
        "{work} is not on the mount of {upper}; put them side by side"
    );
    // The mount on LIVE would hide a directory in it.
    upper.stands_beside(live)?;
    work.stands_beside(live)?;
    for written in [upper, work] {
        // The kernel fails with ELOOP, "too many levels of symbolic links".
        ensure!(
            !lower.is_in(written),
            "{lower} is {written}, or lies in it: every write would change the layer below"
        );
    }
    Ok(())
}
