//! The document at rest, `/run/overlay-boot/NAME/subhost`, and the proof that it tells the truth.
//!
//! A subhost runs while somebody holds its `lock` and its pid 1 can be proven. Nothing is found by the name of a process.

use crate::process::parent;
pub use crate::process::{identify, lives, open_pid1};
use crate::{Document, tree};
use anyhow::{Context, Result, ensure};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::{geteuid, linkat};
use ob_sys::process::pidfd_signal;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where all subhosts rest, a directory of root alone.
pub const DIRECTORY: &str = "/run/overlay-boot";

/// The directory of one subhost, there from its boot to its end.
pub struct StateDir(PathBuf);

/// An exclusive lock (`flock(2)`) on a file or directory, held until the last descriptor of it is closed.
pub type Lock = File;

impl StateDir {
    /// That of the subhost `name`, which is a name as [`Document::name`] has it.
    #[must_use]
    pub fn of(name: &str) -> Self {
        StateDir::below(Path::new(DIRECTORY), name)
    }

    /// The same where all subhosts rest below another `directory`.
    #[must_use]
    pub fn below(directory: &Path, name: &str) -> Self {
        StateDir(directory.join(name))
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Makes the directory, mode 0700, and takes the lock in it; none if another process holds it.
    pub fn lock(&self) -> Result<Option<Lock>> {
        self.try_lock().inspect_err(|_| {
            // If it is empty, it is we who have made it.
            let _ = std::fs::remove_dir(&self.0);
        })
    }

    fn try_lock(&self) -> Result<Option<Lock>> {
        let path = self.file("lock");
        let context = || format!("lock {}", path.display());
        let mut refused = 0;
        loop {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.0);
            match made {
                // It was there, and is not any more.
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists
                        && std::fs::symlink_metadata(&self.0).map_or(true, |it| it.is_dir()) =>
                {
                    continue;
                }
                made => made.with_context(context)?,
            }
            self.is_ours_alone()?;
            let file = match OpenOptions::new().write(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => match self.make_lock(&path) {
                    Ok(lock) => return Ok(Some(lock)),
                    // Made by another, or its directory removed under us.
                    Err(error) if is_passing(&error) => continue,
                    // What ext4 says of a directory that was removed, and others of one that is not to be changed.
                    Err(error) if error.kind() == ErrorKind::PermissionDenied && refused < 100 => {
                        refused += 1;
                        continue;
                    }
                    failed => failed.with_context(context)?,
                },
                file => file.with_context(context)?,
            };
            match file.try_lock() {
                // A lock on a file that its last holder has removed meanwhile protects nothing.
                Ok(()) if !is_same(&file, &path) => {}
                Ok(()) => return Ok(Some(file)),
                // Who only looks whether it is held shares it for a moment, and is no holder.
                Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error).with_context(context),
            }
        }
    }

    /// Fails if others may put a directory in the place of this one.
    fn is_ours_alone(&self) -> Result<()> {
        let directory = self.0.parent().context("it has no directory")?;
        let status = std::fs::symlink_metadata(directory)?;
        let ours = status.uid() == 0 || status.uid() == geteuid().as_raw();
        ensure!(
            status.is_dir() && ours && status.mode() & 0o022 == 0,
            "{} is not a directory of root alone; remove it",
            directory.display()
        );
        Ok(())
    }

    /// Makes the lock's file with the lock on it, in one step: so one that nobody holds was left behind.
    fn make_lock(&self, path: &Path) -> std::io::Result<Lock> {
        let unnamed = OpenOptions::new()
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(&self.0);
        let file = match unnamed {
            // A filesystem without nameless files, which /run hardly is.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let mut named = OpenOptions::new();
                let file = named.write(true).create_new(true).mode(0o600).open(path)?;
                file.lock()?;
                return Ok(file);
            }
            file => file?,
        };
        file.lock()?;
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, path, follow)?;
        Ok(file)
    }

    /// Returns the error message for a boot that does not get the lock.
    ///
    /// It names the running subhost by pid 1 and configuration, as far as the state file has them.
    #[must_use]
    pub fn in_use_message(&self) -> String {
        let document = self.document().ok().flatten();
        let fact = |key| {
            let document = document.as_ref()?;
            Some(document.variables().find(|(name, _)| *name == key)?.1)
        };
        let conf = fact("CONFIG").map_or_else(String::new, |conf| format!(" of {conf}"));
        match fact("pid") {
            Some(pid) => format!("it runs already, as pid {pid}{conf}"),
            None => format!("it is starting or ending already, by another command{conf}"),
        }
    }

    /// Whether somebody holds the lock, that is, whether the subhost starts, runs or ends.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        File::open(self.file("lock")).is_ok_and(|file| file.try_lock_shared().is_err())
    }

    /// Whether `descriptor` is open on the lock's file.
    #[must_use]
    pub fn is_lock(&self, descriptor: impl AsFd) -> bool {
        descriptor
            .as_fd()
            .try_clone_to_owned()
            .is_ok_and(|descriptor| is_same(&File::from(descriptor), &self.file("lock")))
    }

    /// The document at rest; none if there is none. Fails if it is damaged.
    pub fn document(&self) -> Result<Option<Document>> {
        let path = self.file("subhost");
        match std::fs::read_to_string(&path) {
            Ok(line) => Document::parse(&line)
                .map(Some)
                .with_context(|| format!("read {}", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Lays the document to rest, in one step: who looks sees the old one or the new one, and never half of it.
    pub fn write(&self, document: &Document) -> Result<()> {
        let (new, path) = (self.file("subhost.new"), self.file("subhost"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .with_context(|| format!("write {}", new.display()))?;
        file.write_all(document.line().as_bytes())
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// Writes the facts `keys` of `document` into the state file before the last stage writes all of
    /// it: so that a process that cleans up after a killed stage finds them. A damaged file is replaced.
    pub fn note(&self, document: &Document, keys: &[&str]) -> Result<()> {
        let state = self.document().ok().flatten();
        let mut state = state.map_or_else(|| Document::new(document.name()), Ok)?;
        state.take_over(document, keys);
        self.write(&state)
    }

    /// Whether the process `pid` has the lock's file open. Only root can open it, so this is a guard
    /// or a supervisor of this subhost.
    #[must_use]
    pub fn is_held_by(&self, pid: i32) -> bool {
        let Ok(lock) = std::fs::metadata(self.file("lock")) else {
            return false;
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let mut open = descriptors.into_iter().flatten().flatten();
        open.any(|descriptor| {
            let file = std::fs::metadata(descriptor.path());
            file.is_ok_and(|file| (file.dev(), file.ino()) == (lock.dev(), lock.ino()))
        })
    }

    /// Removes the directory. Only for the holder of the lock, and the last thing it does with it.
    pub fn remove(&self) -> Result<()> {
        self.remove_all()
            .with_context(|| format!("remove {}", self.0.display()))
    }

    fn remove_all(&self) -> std::io::Result<()> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                tree::remove(&entry.path(), true)?;
            } else if entry.file_name() != "lock" {
                std::fs::remove_file(entry.path())?;
            }
        }
        // The lock last: as soon as it is gone, another may make its own here, and what lies here then is the other's.
        match std::fs::remove_file(self.file("lock")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match std::fs::remove_dir(&self.0) {
            Err(error) if !is_passing(&error) && error.kind() != ErrorKind::DirectoryNotEmpty => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// Locks a directory such as UPPER for one subhost, or with `shared` for any number that share it.
/// Returns whether that was possible; [`owner`] finds the subhost that has it.
pub fn claim(directory: &File, shared: bool) -> std::io::Result<bool> {
    let locked = if shared {
        directory.try_lock_shared()
    } else {
        directory.try_lock()
    };
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The names of the subhosts that are not dead and whose documents say `variable=directory`, by whatever
/// path. This reads all state files.
pub fn owners(variable: &str, directory: &Path) -> impl Iterator<Item = String> {
    let wanted = std::fs::metadata(directory).ok();
    let identity = |file: std::fs::Metadata| (file.dev(), file.ino());
    let wanted = wanted.map(identity);
    names().into_iter().filter(move |name| {
        let home = StateDir::of(name);
        let document = home.document().ok().flatten();
        let document = document.filter(|_| home.is_locked());
        let found =
            document.and_then(|document| std::fs::metadata(document.path(variable).ok()?).ok());
        wanted.is_some() && found.map(identity) == wanted
    })
}

/// Takes the exclusive lock on `file` within `patience`. Returns whether that was possible.
pub fn lock_within(file: &File, patience: Duration) -> std::io::Result<bool> {
    let deadline = Instant::now() + patience;
    while !claim(file, false)? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

/// The name of the subhost with a layer whose path `is_it` accepts, and that layer as
/// `VARIABLE=PATH`. For a message: this reads all documents at rest.
#[must_use]
pub fn owner(is_it: impl Fn(&Path) -> bool) -> Option<(String, String)> {
    names().into_iter().find_map(|name| {
        let home = StateDir::of(&name);
        let document = home
            .document()
            .ok()
            .flatten()
            .filter(|_| home.is_locked())?;
        let layers = ["UPPER", "WORK", "LIVE", "LOWER"].into_iter();
        let mut layers = layers.filter_map(|layer| Some((layer, document.path(layer).ok()?)));
        let (layer, path) = layers.find(|(_, path)| is_it(path))?;
        Some((name, format!("{layer}={}", path.display())))
    })
}

/// The device and the inode of a file; none if there is no such file.
#[must_use]
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let status = std::fs::metadata(path).ok()?;
    Some((status.dev(), status.ino()))
}

/// The names of all subhosts that have a directory, sorted.
#[must_use]
pub fn names() -> Vec<String> {
    let entries = std::fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| Document::new(name).is_ok())
        .collect();
    names.sort();
    names
}

/// Like [`prove`], but also proves that pid 1 is that of the subhost NAME, whatever facts the document
/// has: its parent, the supervisor, has the lock of that name open.
#[must_use]
pub fn open_own_pid1(document: &Document) -> Option<OwnedFd> {
    let pid_1 = open_pid1(document)?;
    let parent = parent(document.number("pid").ok()?)?;
    let is_own = StateDir::of(document.name()).is_held_by(parent);
    // It was the parent of the process behind the descriptor if that still lives.
    (is_own && pidfd_signal(&pid_1, None).is_ok()).then_some(pid_1)
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound)
}

fn is_same(file: &File, path: &Path) -> bool {
    let opened = file.metadata().map(|status| (status.dev(), status.ino()));
    opened.is_ok_and(|opened| identity(path) == Some(opened))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_survives_removal_of_its_directory() {
        let directory = std::env::temp_dir().join(format!("ob-state-{}", std::process::id()));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let home = StateDir::below(&directory, "mta");
                    for _ in 0..3000 {
                        if let Some(lock) = home.lock().unwrap() {
                            home.remove().unwrap();
                            drop(lock);
                        }
                    }
                });
            }
        });
        // Where a file stands in its place, it never will be.
        let home = StateDir::below(&directory, "mtb");
        std::fs::write(directory.join("mtb"), "").unwrap();
        assert!(home.lock().is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
