//! The shares of a plan.

use crate::idmap::Idmap;
use crate::root::{Root, path_of};
use crate::share::Share;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use ob_document::{Document, hidden_by};
use ob_sys::mount::attach;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A share of the plan with its mount point.
struct Planned {
    /// The line of the configuration.
    text: String,
    share: Share,
    source: OwnedFd,
    /// The mount point in the root; None if DEST lies in that of another share.
    target: Option<OwnedFd>,
    /// The path of the mount point on the host, without symbolic links.
    path: PathBuf,
}

/// Parses SHARE and SHARE_RO. Returns each share with its line in the configuration; a share comes
/// before the shares that it may contain.
pub fn parse(document: &Document) -> Result<Vec<(String, Share)>> {
    let mut shares = Vec::new();
    for (variable, read_only) in [("SHARE", false), ("SHARE_RO", true)] {
        for text in document.list(variable)? {
            let share = Share::parse_planned(text, read_only)?;
            shares.push((format!("{variable}={text}"), share));
        }
    }
    shares.sort_by_key(|(_, share): &(_, Share)| share.plain_inside().components().count());
    Ok(shares)
}

/// Mounts the shares of the plan below `root`. Adds each mount point to `mounts`, also if a later
/// mount fails.
///
/// Makes the mount points in the root before the first mount: then their paths without symbolic
/// links are known, and a share is mounted after the share that it lies in.
pub fn mount(
    document: &Document,
    root: &Root,
    idmap: Option<&Idmap>,
    mounts: &mut Vec<PathBuf>,
    warn: impl Fn(&str),
) -> Result<()> {
    let mut shares = plan(document, root, &warn)?;
    shares.sort_by_key(|share| share.path.components().count());
    for (number, planned) in shares.iter().enumerate() {
        let Planned { share, source, .. } = planned;
        let mut earlier = shares[..number].iter().rev();
        let below = earlier.find(|below| planned.path.starts_with(&below.path));
        let again = below.map(|below| planned.find_in(below, root, &warn));
        let again = again.transpose()?;
        let target = again.as_ref().or(planned.target.as_ref());
        let target = target.context("the mount point is unknown")?;
        let tree = share.clone_source(source, idmap)?;
        attach(tree, target).with_context(|| share.context())?;
        mounts.push(planned.path.clone());
    }
    Ok(())
}

/// Opens the shares and makes their mount points. Leaves out LOWER, which the subhost has as its
/// root, and missing files of the host.
fn plan(document: &Document, root: &Root, warn: impl Fn(&str)) -> Result<Vec<Planned>> {
    let lower = document.path("LOWER").ok();
    let hiding = ["/proc", "/sys"].map(|path| (path, root.find(Path::new(path), OFlag::O_PATH)));
    let mut shares = Vec::new();
    for (text, share) in parse(document)? {
        let Some(source) = share.open_source()? else {
            warn(&format!(
                "{text}: there is no such file on the host; not shared"
            ));
            continue;
        };
        if lower.is_some_and(|lower| path_of(&source) == lower) {
            continue;
        }
        let inside = share.plain_inside();
        let outer = shares.iter().rev().find_map(|outer: &Planned| {
            let rest = inside.strip_prefix(outer.share.plain_inside());
            Some(outer.path.join(rest.ok()?))
        });
        let target = match outer {
            Some(_) => None,
            None => Some(share.target(root, share.inside(), &source)?),
        };
        let path = outer
            .or_else(|| target.as_ref().map(path_of))
            .unwrap_or_default();
        for (hiding, directory) in &hiding {
            let directory = directory.as_ref().map(path_of);
            if directory.is_ok_and(|directory| path.starts_with(directory)) {
                return Err(hidden_by(hiding)).context(text);
            }
        }
        shares.push(Planned {
            text,
            share,
            source,
            target,
            path,
        });
    }
    Ok(shares)
}

impl Planned {
    /// Opens the mount point in the share `below`, which hides the mount point in the root. If
    /// it is missing, makes it in the directory of the host, and warns.
    fn find_in(&self, below: &Planned, root: &Root, warn: impl Fn(&str)) -> Result<OwnedFd> {
        let path = self.path.strip_prefix(path_of(root))?;
        let rest = self.path.strip_prefix(&below.path)?;
        let on_host = below.share.host().join(rest);
        let is_missing = matches!(root.find(path, OFlag::O_PATH), Err(Errno::ENOENT));
        let target = self.share.target(root, path, &self.source);
        let target = target.with_context(|| {
            let (text, on_host) = (&self.text, on_host.display());
            format!("{text} lies in {}; create {on_host}", below.text)
        })?;
        if self.path == below.path {
            warn(&format!("{} hides {}", self.text, below.text));
        } else if is_missing {
            let on_host = on_host.display();
            warn(&format!(
                "{}: made {on_host} on the host, in {}",
                self.text, below.text
            ));
        }
        Ok(target)
    }
}
