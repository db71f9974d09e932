//! What is different between LOWER and the root that UPPER makes of it.

use crate::place::{Mark, Place, kind};
use anyhow::Result;
use nix::libc;
use nix::sys::stat::FileStat;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What has become of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// LOWER has none of that name.
    Added,
    /// It is another one, or its content or what is known of it may be different.
    Changed,
    /// It is there no more, with all that was in it.
    Deleted,
}

/// One difference.
#[derive(PartialEq, Eq, Debug)]
pub struct Change {
    /// Its kind.
    pub kind: Kind,
    /// The path inside.
    pub path: PathBuf,
    /// What it was called, if it has been renamed with what is in it.
    pub from: Option<PathBuf>,
    /// Of which sort it is now, or was if it is deleted.
    pub sort: &'static str,
}

/// Compares the layers. All paths are looked at as they are at this moment; what is unchanged is not read.
pub fn compare(lower: &Path, upper: &Path) -> Result<Vec<Change>> {
    let layers = Layers {
        lower: lower.to_owned(),
    };
    let mut changes = Vec::new();
    let here = Place::open(lower)?;
    layers.directory(
        Path::new("/"),
        &Place::open(upper)?,
        Below::Same(Some(here)),
        &mut changes,
    )?;
    Ok(changes)
}

struct Layers {
    lower: PathBuf,
}

/// What is below a directory of UPPER.
enum Below {
    /// The directory of LOWER of the same path, if there is one.
    Same(Option<Place>),
    /// Another directory of LOWER, or none because it is hidden; and then that of the same path.
    Other(Option<Place>, Option<Place>),
}

impl Below {
    /// Where what UPPER does not have comes from.
    fn origin(&self) -> Option<&Place> {
        match self {
            Below::Same(place) | Below::Other(place, _) => place.as_ref(),
        }
    }

    /// What it is compared with.
    fn there(&self) -> Option<&Place> {
        match self {
            Below::Same(place) | Below::Other(_, place) => place.as_ref(),
        }
    }

    fn is_same(&self) -> bool {
        matches!(self, Below::Same(_))
    }
}

impl Layers {
    fn directory(
        &self,
        path: &Path,
        upper: &Place,
        below: Below,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let own = upper.names()?;
        let mut names = own.clone();
        if !below.is_same() {
            // What was elsewhere is here now, and what was here may be nowhere.
            for place in [below.origin(), below.there()].into_iter().flatten() {
                names.extend(place.names()?);
            }
            names.sort();
            names.dedup();
        }
        for name in names {
            let in_upper = upper.status(&name).filter(|_| own.contains(&name));
            self.entry(&path.join(&name), &name, in_upper, upper, &below, changes)?;
        }
        Ok(())
    }

    fn entry(
        &self,
        path: &Path,
        name: &OsStr,
        in_upper: Option<FileStat>,
        upper: &Place,
        below: &Below,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let before = below.there().and_then(|place| place.status(name));
        let mut tell = |kind, status: &FileStat, from| {
            changes.push(Change {
                kind,
                path: path.to_owned(),
                from,
                sort: sort(status),
            });
        };
        let kind_of = |before: &Option<FileStat>| match before {
            Some(_) => Kind::Changed,
            None => Kind::Added,
        };
        let hidden = in_upper.is_some_and(|status| upper.is_whiteout(name, &status));
        let origin = below.origin().filter(|_| in_upper.is_none());
        let now = match in_upper {
            _ if hidden => None,
            Some(status) => Some(status),
            None => origin.and_then(|place| place.status(name)),
        };
        let Some(now) = now else {
            if let Some(before) = before {
                tell(Kind::Deleted, &before, None);
            }
            return Ok(());
        };
        let there = below.there().and_then(|place| place.enter(name));
        if kind(&now) != libc::S_IFDIR {
            let redirect = in_upper.and_then(|status| upper.mark(name, &status, Mark::Redirect));
            tell(kind_of(&before), &now, redirect.map(|to| target(path, to)));
            return Ok(());
        }
        if let Some(origin) = origin {
            // All of it comes from LOWER, from another place there.
            let Some(origin) = origin.enter(name) else {
                return Ok(());
            };
            tell(kind_of(&before), &now, None);
            return self.directory(path, &origin, Below::Other(None, there), changes);
        }
        // Gone between two looks, or made anew as something else.
        let Some(inner) = upper.enter(name) else {
            return Ok(());
        };
        let redirect = inner.own_mark(Mark::Redirect).map(|to| target(path, to));
        let is_opaque = inner
            .own_mark(Mark::Opaque)
            .is_some_and(|value| value == b"y");
        match &before {
            Some(before) if !is_opaque && redirect.is_none() && is_like(before, &now) => {}
            before => tell(kind_of(before), &now, redirect.clone()),
        }
        let below = match redirect {
            _ if is_opaque => Below::Other(None, there),
            Some(from) => Below::Other(Place::open(&self.lower)?.descend(&from), there),
            None if below.is_same() => Below::Same(there),
            None => Below::Other(below.origin().and_then(|place| place.enter(name)), there),
        };
        self.directory(path, &inner, below, changes)
    }
}

/// What a redirect says: a path in LOWER, or a name beside `path`.
fn target(path: &Path, to: Vec<u8>) -> PathBuf {
    let parent = path.parent().unwrap_or(Path::new("/"));
    parent.join(OsString::from_vec(to))
}

/// Whether a directory has only been copied to UPPER because something in it was.
fn is_like(before: &FileStat, now: &FileStat) -> bool {
    let facts = |status: &FileStat| {
        let time = (status.st_mtime, status.st_mtime_nsec);
        (status.st_mode, status.st_uid, status.st_gid, time)
    };
    facts(before) == facts(now)
}

fn sort(status: &FileStat) -> &'static str {
    match kind(status) {
        libc::S_IFREG => "file",
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "link",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        _ => "device",
    }
}
