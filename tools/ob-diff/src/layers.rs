//! Compares LOWER with the root that an overlay of UPPER on it shows.

use crate::layer_dir::{LayerDir, Mark, kind};
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::FileStat;
use ob_document::tree::Walk;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

/// The kind of a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// LOWER has no file of that path.
    Added,
    /// LOWER has another file there, or the content or metadata may differ.
    Changed,
    /// The file of LOWER is gone, with all files in it.
    Deleted,
}

/// One difference.
#[derive(PartialEq, Eq, Debug)]
pub struct Change {
    /// Its kind.
    pub kind: Kind,
    /// The path inside.
    pub path: PathBuf,
    /// The former path, if the file or directory was renamed with its content.
    pub from: Option<PathBuf>,
    /// The type of the file: of the present one, or of the deleted one.
    pub file_type: &'static str,
}

/// The number of walks at the same time: UPPER, LOWER, and one for each nested renamed directory.
/// A walk holds a descriptor open.
const MAX_WALKS: usize = 64;

/// Compares `lower` and `upper`, and passes each change to `report`, in the order of the paths.
///
/// All paths are examined as they are at this moment; unchanged files are not read. Fails if a
/// directory cannot be opened, if one is moved meanwhile, or if `report` fails.
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
    let mut levels = vec![comparison.level(0, Origin::SamePath(Some(1)), Entered::default())?];
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

/// The state of a comparison.
struct Comparison<'a> {
    lower: &'a Path,
    /// The walks in UPPER, in LOWER, and in each directory of LOWER that was renamed.
    walks: Vec<Walk>,
    /// The path inside that is compared.
    path: PathBuf,
    report: &'a mut dyn FnMut(Change) -> Result<()>,
}

/// A directory that is being compared; walks are given by their index.
struct Level {
    /// The names in UPPER, sorted.
    own: Vec<OsString>,
    /// The names that are not compared yet.
    names: IntoIter<OsString>,
    upper: usize,
    origin: Origin,
    entered: Entered,
}

/// The walks that entered a directory for a level, which must leave it afterwards.
#[derive(Default)]
struct Entered {
    /// The walks that are in a directory of the level.
    walks: Vec<usize>,
    /// Whether the last walk began here.
    is_new: bool,
}

/// The directory of LOWER that overlayfs merges with a directory of UPPER.
#[derive(Clone, Copy)]
enum Origin {
    /// The directory of the same path, if there is one.
    SamePath(Option<usize>),
    /// Another directory, or none if UPPER hides it; then the directory of the same path.
    Redirected(Option<usize>, Option<usize>),
}

impl Origin {
    /// Returns the walk in the directory that is merged.
    fn merged(self) -> Option<usize> {
        match self {
            Origin::SamePath(walk) | Origin::Redirected(walk, _) => walk,
        }
    }

    /// Returns the walk in the directory of the same path, which the merged one is compared with.
    fn same_path(self) -> Option<usize> {
        match self {
            Origin::SamePath(walk) | Origin::Redirected(_, walk) => walk,
        }
    }

    fn is_redirected(self) -> bool {
        matches!(self, Origin::Redirected(..))
    }
}

impl Comparison<'_> {
    fn dir(&self, walk: usize) -> LayerDir<'_> {
        LayerDir(self.walks[walk].here())
    }

    /// Returns the status of `name` in the directory where `walk` is.
    fn status(&self, walk: Option<usize>, name: &OsStr) -> Option<FileStat> {
        self.dir(walk?).status(name)
    }

    /// Returns the level of the directory where the walks are.
    fn level(&self, upper: usize, origin: Origin, entered: Entered) -> Result<Level> {
        let own = self.names(upper)?;
        let mut names = own.clone();
        if origin.is_redirected() {
            // The merged directory may add files here, and files of the same path may be hidden.
            for walk in [origin.merged(), origin.same_path()].into_iter().flatten() {
                names.extend(self.names(walk)?);
            }
            names.sort();
            names.dedup();
        }
        Ok(Level {
            own,
            names: names.into_iter(),
            upper,
            origin,
            entered,
        })
    }

    /// Returns the names in the directory where `walk` is, sorted.
    fn names(&self, walk: usize) -> Result<Vec<OsString>> {
        let names = self.walks[walk].names()?.into_iter();
        let mut names: Vec<OsString> = names
            .map(|name| OsString::from_vec(name.into_bytes()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Enters the directory `name` with the walk, if there is a walk.
    ///
    /// Returns the walk, or `None` if `name` is missing or not a directory.
    fn enter(
        &mut self,
        walk: Option<usize>,
        name: &OsStr,
        entered: &mut Entered,
    ) -> Result<Option<usize>> {
        let Some(walk) = walk else {
            return Ok(None);
        };
        if !is_entered(&mut self.walks[walk], name, &self.path)? {
            return Ok(None);
        }
        entered.walks.push(walk);
        Ok(Some(walk))
    }

    /// Leaves the directories of a level, or of an entry that was no level.
    fn leave(&mut self, entered: &Entered) -> Result<()> {
        if entered.is_new {
            self.walks.pop();
        }
        for walk in &entered.walks {
            self.walks[*walk].leave().with_context(|| {
                let path = self.path.display();
                format!("{path} was moved during the comparison; try again")
            })?;
        }
        self.path.pop();
        Ok(())
    }

    fn report(&mut self, kind: Kind, status: &FileStat, from: Option<PathBuf>) -> Result<()> {
        (self.report)(Change {
            kind,
            path: self.path.clone(),
            from,
            file_type: file_type(status),
        })
    }

    /// Compares one entry of a level.
    ///
    /// Returns the level of a directory, whose entries must be compared next. For any other entry
    /// it returns `None`, and the walks stay where they are.
    fn entry(&mut self, level: &Level, name: &OsStr) -> Result<Option<Level>> {
        let Level { upper, origin, .. } = *level;
        let dir = self.dir(upper);
        let is_own = || level.own.binary_search_by(|own| own.as_os_str().cmp(name));
        let in_upper = dir.status(name).filter(|_| is_own().is_ok());
        let before = self.status(origin.same_path(), name);
        let merged = origin.merged().filter(|_| in_upper.is_none());
        let now = match in_upper {
            Some(status) if dir.is_whiteout(name, &status) => None,
            Some(status) => Some(status),
            None => self.status(merged, name),
        };
        let Some(now) = now else {
            if let Some(before) = before {
                self.report(Kind::Deleted, &before, None)?;
            }
            return Ok(None);
        };
        if kind(&now) != libc::S_IFDIR {
            let redirect = in_upper.and_then(|status| dir.mark(name, &status, Mark::Redirect));
            let from = redirect.map(|to| target(&self.path, to));
            self.report(kind_of(before.as_ref()), &now, from)?;
            return Ok(None);
        }
        match merged {
            Some(merged) => self.moved_directory(merged, origin, name, before.as_ref(), &now),
            None => self.directory(upper, origin, name, before.as_ref(), &now),
        }
    }

    /// Compares the directory `name` of LOWER, which a renamed parent shows at another path.
    fn moved_directory(
        &mut self,
        merged: usize,
        origin: Origin,
        name: &OsStr,
        before: Option<&FileStat>,
        now: &FileStat,
    ) -> Result<Option<Level>> {
        let mut entered = Entered::default();
        let Some(merged) = self.enter(Some(merged), name, &mut entered)? else {
            return Ok(None);
        };
        let same_path = self.enter(origin.same_path(), name, &mut entered)?;
        self.report(kind_of(before), now, None)?;
        let origin = Origin::Redirected(None, same_path);
        self.level(merged, origin, entered).map(Some)
    }

    /// Compares the directory `name` of UPPER.
    fn directory(
        &mut self,
        upper: usize,
        origin: Origin,
        name: &OsStr,
        before: Option<&FileStat>,
        now: &FileStat,
    ) -> Result<Option<Level>> {
        let mut entered = Entered::default();
        // The directory may have been removed or replaced after fstatat(2).
        if self.enter(Some(upper), name, &mut entered)?.is_none() {
            return Ok(None);
        }
        let same_path = self.enter(origin.same_path(), name, &mut entered)?;
        let dir = self.dir(upper);
        let redirect = dir.own_mark(Mark::Redirect);
        let redirect = redirect.map(|to| target(&self.path, to));
        let is_opaque = dir
            .own_mark(Mark::Opaque)
            .is_some_and(|value| value == b"y");
        match before {
            Some(before) if !is_opaque && redirect.is_none() && is_like(before, now) => {}
            before => self.report(kind_of(before), now, redirect.clone())?,
        }
        let origin = match redirect {
            _ if is_opaque => Origin::Redirected(None, same_path),
            Some(from) => {
                let renamed = self.open_path(&from, &mut entered)?;
                Origin::Redirected(renamed, same_path)
            }
            None if !origin.is_redirected() => Origin::SamePath(same_path),
            None => {
                let merged = self.enter(origin.merged(), name, &mut entered)?;
                Origin::Redirected(merged, same_path)
            }
        };
        self.level(upper, origin, entered).map(Some)
    }

    /// Begins a walk at the renamed directory `from` of LOWER; `None` if it is not there.
    fn open_path(&mut self, from: &Path, entered: &mut Entered) -> Result<Option<usize>> {
        let path = self.path.display();
        ensure!(
            self.walks.len() < MAX_WALKS,
            "{path}: too many nested renamed directories to compare (at most {})",
            MAX_WALKS - 2
        );
        let mut walk = Walk::open(self.lower)?;
        for name in from.iter().filter(|name| *name != "/") {
            if !is_entered(&mut walk, name, &self.path)? {
                return Ok(None);
            }
        }
        self.walks.push(walk);
        entered.is_new = true;
        Ok(Some(self.walks.len() - 1))
    }
}

/// Enters the directory `name`; returns `false` if it is missing or not a directory.
fn is_entered(walk: &mut Walk, name: &OsStr, path: &Path) -> Result<bool> {
    match walk.enter(name) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
    }
}

/// Returns the kind of a change of a file that exists now and was `before` in LOWER.
fn kind_of(before: Option<&FileStat>) -> Kind {
    match before {
        Some(_) => Kind::Changed,
        None => Kind::Added,
    }
}

/// Returns the path in LOWER that a redirect names: absolute, or relative to the parent of `path`.
fn target(path: &Path, to: Vec<u8>) -> PathBuf {
    let parent = path.parent().unwrap_or(Path::new("/"));
    parent.join(OsString::from_vec(to))
}

/// Returns whether overlayfs copied a directory up only because a file in it was changed.
fn is_like(before: &FileStat, now: &FileStat) -> bool {
    let facts = |status: &FileStat| {
        let time = (status.st_mtime, status.st_mtime_nsec);
        (status.st_mode, status.st_uid, status.st_gid, time)
    };
    facts(before) == facts(now)
}

fn file_type(status: &FileStat) -> &'static str {
    match kind(status) {
        libc::S_IFREG => "file",
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "link",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        _ => "device",
    }
}
