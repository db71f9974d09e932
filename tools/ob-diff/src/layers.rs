//! What is different between LOWER and the root that UPPER makes of it.

use crate::place::{Mark, Place, kind};
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::FileStat;
use ob_document::tree::Walk;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

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

/// How many directories that were renamed may be below one another.
const RENAMED: usize = 64;

/// Compares the layers, and gives each change to `report`, in the order of the paths. All paths are
/// looked at as they are at this moment; unchanged files are not read.
pub fn compare(
    lower: &Path,
    upper: &Path,
    report: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    let walks = [upper, lower].map(|path| {
        let walk = Walk::open(path);
        walk.with_context(|| format!("open {}", path.display()))
    });
    let mut comparison = Comparison {
        lower,
        walks: walks.into_iter().collect::<Result<_>>()?,
        path: PathBuf::from("/"),
        report,
    };
    let mut levels = vec![comparison.level(0, Below::Same(Some(1)), Entered::default())?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            comparison.leave(&level.entered)?;
            levels.pop();
            continue;
        };
        comparison.path.push(&name);
        match comparison.entry(level, &name)? {
            Some(inner) => levels.push(inner),
            None => drop(comparison.path.pop()),
        }
    }
    Ok(())
}

/// The comparison as far as it has come.
struct Comparison<'a> {
    lower: &'a Path,
    /// The ways down UPPER, down LOWER, and down directories of LOWER that were renamed.
    walks: Vec<Walk>,
    /// The path inside that is compared.
    path: PathBuf,
    report: &'a mut dyn FnMut(Change) -> Result<()>,
}

/// One directory on the way, by the numbers of walks.
struct Level {
    /// The names in UPPER, sorted.
    own: Vec<OsString>,
    /// The names that are not compared yet.
    names: IntoIter<OsString>,
    upper: usize,
    below: Below,
    entered: Entered,
}

/// The walks that a level moved, to go back when it is done.
#[derive(Default)]
struct Entered {
    /// The walks that are in a directory of the level.
    walks: Vec<usize>,
    /// Whether the last walk began here.
    is_new: bool,
}

/// What is below a directory of UPPER.
#[derive(Clone, Copy)]
enum Below {
    /// The directory of LOWER of the same path, if there is one.
    Same(Option<usize>),
    /// Another directory of LOWER, or none because it is hidden; and then that of the same path.
    Other(Option<usize>, Option<usize>),
}

impl Below {
    /// Where what UPPER does not have comes from.
    fn origin(self) -> Option<usize> {
        match self {
            Below::Same(walk) | Below::Other(walk, _) => walk,
        }
    }

    /// What it is compared with.
    fn there(self) -> Option<usize> {
        match self {
            Below::Same(walk) | Below::Other(_, walk) => walk,
        }
    }

    fn is_same(self) -> bool {
        matches!(self, Below::Same(_))
    }
}

impl Comparison<'_> {
    fn place(&self, walk: usize) -> Place<'_> {
        Place(self.walks[walk].here())
    }

    /// The directory where the walks are.
    fn level(&self, upper: usize, below: Below, entered: Entered) -> Result<Level> {
        let own = self.names(upper)?;
        let mut names = own.clone();
        if !below.is_same() {
            // What was elsewhere is here now, and what was here may be nowhere.
            for walk in [below.origin(), below.there()].into_iter().flatten() {
                names.extend(self.names(walk)?);
            }
            names.sort();
            names.dedup();
        }
        Ok(Level {
            own,
            names: names.into_iter(),
            upper,
            below,
            entered,
        })
    }

    /// The names in the directory where `walk` is, sorted.
    fn names(&self, walk: usize) -> Result<Vec<OsString>> {
        let names = self.walks[walk].names()?.into_iter();
        let mut names: Vec<OsString> = names
            .map(|name| OsString::from_vec(name.into_bytes()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Enters `name` with the walk, if there is one. None if that is no directory, or not there.
    fn enter(
        &mut self,
        walk: Option<usize>,
        name: &OsStr,
        entered: &mut Entered,
    ) -> Result<Option<usize>> {
        let Some(walk) = walk else {
            return Ok(None);
        };
        match self.walks[walk].enter(name) {
            Ok(()) => {
                entered.walks.push(walk);
                Ok(Some(walk))
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open {}", self.path.display())),
        }
    }

    /// Goes back to where the walks were before a level, or an entry that is none.
    fn leave(&mut self, entered: &Entered) -> Result<()> {
        if entered.is_new {
            self.walks.pop();
        }
        for walk in &entered.walks {
            self.walks[*walk].leave().with_context(|| {
                let path = self.path.display();
                format!("{path} was moved while it was compared; try again")
            })?;
        }
        self.path.pop();
        Ok(())
    }

    fn tell(&mut self, kind: Kind, status: &FileStat, from: Option<PathBuf>) -> Result<()> {
        (self.report)(Change {
            kind,
            path: self.path.clone(),
            from,
            sort: sort(status),
        })
    }

    /// Compares one entry of a level. Returns the level below, if it is a directory that is in
    /// there; else the walks are where they were.
    fn entry(&mut self, level: &Level, name: &OsStr) -> Result<Option<Level>> {
        let Level { upper, below, .. } = *level;
        let place = self.place(upper);
        let in_upper = place.status(name).filter(|_| {
            level
                .own
                .binary_search_by(|own| own.as_os_str().cmp(name))
                .is_ok()
        });
        let status = |walk: Option<usize>| self.place(walk?).status(name);
        let before = status(below.there());
        let kind_of = |before: &Option<FileStat>| match before {
            Some(_) => Kind::Changed,
            None => Kind::Added,
        };
        let hidden = in_upper.is_some_and(|status| place.is_whiteout(name, &status));
        let origin = below.origin().filter(|_| in_upper.is_none());
        let now = match in_upper {
            _ if hidden => None,
            Some(status) => Some(status),
            None => status(origin),
        };
        let Some(now) = now else {
            if let Some(before) = before {
                self.tell(Kind::Deleted, &before, None)?;
            }
            return Ok(None);
        };
        if kind(&now) != libc::S_IFDIR {
            let redirect = in_upper.and_then(|status| place.mark(name, &status, Mark::Redirect));
            let from = redirect.map(|to| target(&self.path, to));
            self.tell(kind_of(&before), &now, from)?;
            return Ok(None);
        }
        let mut entered = Entered::default();
        if origin.is_some() {
            // All of it comes from LOWER, from another place there.
            let Some(origin) = self.enter(origin, name, &mut entered)? else {
                return Ok(None);
            };
            let there = self.enter(below.there(), name, &mut entered)?;
            self.tell(kind_of(&before), &now, None)?;
            let below = Below::Other(None, there);
            return self.level(origin, below, entered).map(Some);
        }
        // Gone between two looks, or made anew as something else.
        if self.enter(Some(upper), name, &mut entered)?.is_none() {
            return Ok(None);
        }
        let there = self.enter(below.there(), name, &mut entered)?;
        let inner = self.place(upper);
        let redirect = inner.own_mark(Mark::Redirect);
        let redirect = redirect.map(|to| target(&self.path, to));
        let is_opaque = inner
            .own_mark(Mark::Opaque)
            .is_some_and(|value| value == b"y");
        match &before {
            Some(before) if !is_opaque && redirect.is_none() && is_like(before, &now) => {}
            before => self.tell(kind_of(before), &now, redirect.clone())?,
        }
        let below = match redirect {
            _ if is_opaque => Below::Other(None, there),
            Some(from) => Below::Other(self.begin_at(&from, &mut entered)?, there),
            None if below.is_same() => Below::Same(there),
            None => {
                let origin = self.enter(below.origin(), name, &mut entered)?;
                Below::Other(origin, there)
            }
        };
        self.level(upper, below, entered).map(Some)
    }

    /// Begins a walk at the directory of LOWER that was renamed; none if it is not there.
    fn begin_at(&mut self, from: &Path, entered: &mut Entered) -> Result<Option<usize>> {
        let path = self.path.display();
        ensure!(
            self.walks.len() < RENAMED,
            "{path} lies below {RENAMED} directories that were renamed; it is not compared"
        );
        let mut walk = Walk::open(self.lower)?;
        for name in from.iter().filter(|name| *name != "/") {
            match walk.enter(name) {
                Ok(()) => {}
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
                Err(error) => return Err(error).with_context(|| format!("open {path}")),
            }
        }
        self.walks.push(walk);
        entered.is_new = true;
        Ok(Some(self.walks.len() - 1))
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
