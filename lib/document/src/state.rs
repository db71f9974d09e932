//! The state directory of a subhost, `/run/overlay-boot/NAME`, with its lock and its state file.
//!
//! A subhost runs while a process holds `lock` and the pid 1 in the state file, `subhost`, is
//! proven to be that of the subhost, see [`open_pid1`]. No process is found by name: a user can
//! choose that.

use crate::process::is_gone;
pub use crate::process::{identify, lives, open_pid1, parent};
use crate::{Document, tree};
use anyhow::{Context, Result, ensure};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::{geteuid, linkat};
use ob_sys::lock;
use ob_sys::process::pidfd_signal;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The parent of the state directories. Only root may write it.
pub const DIRECTORY: &str = "/run/overlay-boot";

/// How long another process may hold a shared lock, which it needs for a moment.
const SHARED_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The state directory of one subhost, which exists from the boot to the end of the cleanup.
pub struct StateDir(PathBuf);

/// An exclusive lock on a file or directory, flock(2), held until its last descriptor is closed.
pub type Lock = File;

impl StateDir {
    /// Returns the state directory of the subhost `name`, a valid name as of [`Document::name`].
    #[must_use]
    pub fn of(name: &str) -> Self {
        StateDir::below(Path::new(DIRECTORY), name)
    }

    /// Like [`StateDir::of`], below another `directory`.
    #[must_use]
    pub fn below(directory: &Path, name: &str) -> Self {
        StateDir(directory.join(name))
    }

    /// Returns the path of a file in the directory.
    #[must_use]
    pub fn file(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Creates the directory, mode 0700, and locks it; `None` if another process holds the lock.
    pub fn lock(&self) -> Result<Option<Lock>> {
        self.try_lock().inspect_err(|_| {
            // The directory has a file from the first lock on. So if it is empty, it is new.
            let _ = std::fs::remove_dir(&self.0);
        })
    }

    fn try_lock(&self) -> Result<Option<Lock>> {
        let path = self.file("lock");
        let context = || format!("lock {}", path.display());
        let mut refused = 0;
        let deadline = Instant::now() + SHARED_LOCK_TIMEOUT;
        loop {
            let created = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.0);
            match created {
                // Another process has removed the directory since mkdir(2).
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists
                        && std::fs::symlink_metadata(&self.0).map_or(true, |it| it.is_dir()) =>
                {
                    continue;
                }
                created => created.with_context(context)?,
            }
            self.check_parent()?;
            let file = match OpenOptions::new().write(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => match create_locked(&path) {
                    Ok(lock) => return Ok(Some(lock)),
                    // Another process has created the file or removed the directory.
                    Err(error) if is_race(&error) => continue,
                    // ext4 fails with EACCES in a removed directory. Other filesystems do so in an
                    // immutable directory, so the number of attempts is bounded.
                    Err(error) if error.kind() == ErrorKind::PermissionDenied && refused < 100 => {
                        refused += 1;
                        continue;
                    }
                    failed => failed.with_context(context)?,
                },
                file => file.with_context(context)?,
            };
            if lock::try_lock(&file).with_context(context)? {
                // The last holder may have removed the file since open(2). Then another process can
                // create and lock a new one.
                if is_same(&file, &path) {
                    return Ok(Some(file));
                }
            } else if !lock::try_lock_shared(&file).with_context(context)? {
                return Ok(None);
            }
            // Else a shared lock, which `is_locked` takes for a moment, was in the way.
            pause_until(deadline).with_context(context)?;
        }
    }

    /// Fails if another user can replace this directory.
    fn check_parent(&self) -> Result<()> {
        let directory = self.0.parent().context("the path has no directory")?;
        let status = std::fs::symlink_metadata(directory)?;
        let ours = status.uid() == 0 || status.uid() == geteuid().as_raw();
        ensure!(
            status.is_dir() && ours && status.mode() & 0o022 == 0,
            "{} is not a directory of root alone; remove it",
            directory.display()
        );
        Ok(())
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

    /// Returns whether a process holds the lock: whether the subhost starts, runs or ends.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        File::open(self.file("lock")).is_ok_and(|file| !lock::is_free(&file))
    }

    /// Returns whether `descriptor` is open on the lock file.
    #[must_use]
    pub fn is_lock(&self, descriptor: impl AsFd) -> bool {
        descriptor
            .as_fd()
            .try_clone_to_owned()
            .is_ok_and(|descriptor| is_same(&File::from(descriptor), &self.file("lock")))
    }

    /// Reads the state file; `None` if it does not exist. Fails if it is not a document.
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

    /// Replaces the state file by rename(2), so that a process that reads it gets either the old or
    /// the new document.
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

    /// Writes the facts `keys` of `document` to the state file, before the last stage writes all
    /// facts.
    ///
    /// A process that cleans up after a killed stage needs them. A damaged state file is replaced.
    pub fn note(&self, document: &Document, keys: &[&str]) -> Result<()> {
        let state = self.document().ok().flatten();
        let mut state = state.map_or_else(|| Document::new(document.name()), Ok)?;
        state.take_over(document, keys);
        self.write(&state)
    }

    /// Returns whether the process `pid` has the lock file open.
    ///
    /// Only root can open the file, so the process is a guard or a supervisor of this subhost.
    ///
    /// # Errors
    /// The open files of the process cannot be read.
    pub fn is_held_by(&self, pid: i32) -> std::io::Result<bool> {
        let examine = || {
            let lock = std::fs::metadata(self.file("lock"))?;
            let mut open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
            Ok(open.any(|descriptor| {
                let file = std::fs::metadata(descriptor.path());
                file.is_ok_and(|file| (file.dev(), file.ino()) == (lock.dev(), lock.ino()))
            }))
        };
        match examine() {
            Err(error) if is_gone(&error) => Ok(false),
            examined => examined,
        }
    }

    /// Removes the directory. The caller must hold the lock, which is gone afterwards.
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
        // The lock file last: without it, another process can lock the directory and create files.
        match std::fs::remove_file(self.file("lock")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut removed = std::fs::remove_dir(&self.0);
        if removed.is_err() && !self.file("lock").exists() {
            // overlay-stop writes this file without the lock, so perhaps after the loop above.
            let stopping = std::fs::remove_file(self.file("stopping"));
            removed = stopping.and_then(|()| std::fs::remove_dir(&self.0));
        }
        match removed {
            Err(error) if !is_race(&error) && error.kind() != ErrorKind::DirectoryNotEmpty => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// Sleeps for a moment. Fails after `deadline`.
fn pause_until(deadline: Instant) -> Result<()> {
    ensure!(
        Instant::now() < deadline,
        "another process keeps a shared lock on it, see lslocks(8)"
    );
    std::thread::sleep(Duration::from_millis(1));
    Ok(())
}

/// Creates the file `path` and locks it. It never exists unlocked, unless its last holder was
/// killed.
fn create_locked(path: &Path) -> std::io::Result<Lock> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let unnamed = OpenOptions::new()
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory);
    let file = match unnamed {
        // A filesystem without O_TMPFILE. /run is a tmpfs, which has it.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let mut named = OpenOptions::new();
            let file = named.write(true).create_new(true).mode(0o600).open(path)?;
            lock::lock(&file)?;
            return Ok(file);
        }
        file => file?,
    };
    lock::lock(&file)?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, path, follow)?;
    Ok(file)
}

/// Locks a directory such as UPPER, exclusively or `shared`.
///
/// Returns false if another lock prevents it; then [`owner`] finds the subhost that holds the lock.
pub fn claim(directory: &File, shared: bool) -> std::io::Result<bool> {
    if shared {
        lock::try_lock_shared(directory)
    } else {
        lock::try_lock(directory)
    }
}

/// Returns the names of the locked subhosts whose `variable` is `directory`, by any path.
///
/// Reads all state files.
pub fn owners(variable: &str, directory: &Path) -> impl Iterator<Item = String> {
    let wanted = identity(directory);
    names().into_iter().filter(move |name| {
        let found =
            locked_document(name).and_then(|document| identity(document.path(variable).ok()?));
        wanted.is_some() && found == wanted
    })
}

/// Waits up to `timeout` for an exclusive lock on `file`. Returns whether the file is locked.
pub fn lock_within(file: &File, timeout: Duration) -> std::io::Result<bool> {
    let deadline = Instant::now() + timeout;
    while !claim(file, false)? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

/// Returns the name of a locked subhost with a layer whose path `is_wanted` accepts, and the layer
/// as `VARIABLE=PATH`.
///
/// Reads all state files, so call this only for a message.
#[must_use]
pub fn owner(is_wanted: impl Fn(&Path) -> bool) -> Option<(String, String)> {
    names().into_iter().find_map(|name| {
        let document = locked_document(&name)?;
        let layers = ["UPPER", "WORK", "LIVE", "LOWER"].into_iter();
        let mut layers = layers.filter_map(|layer| Some((layer, document.path(layer).ok()?)));
        let (layer, path) = layers.find(|(_, path)| is_wanted(path))?;
        Some((name, format!("{layer}={}", path.display())))
    })
}

/// Returns the document of the subhost `name` if that is locked.
fn locked_document(name: &str) -> Option<Document> {
    let directory = StateDir::of(name);
    let document = directory.document().ok().flatten();
    document.filter(|_| directory.is_locked())
}

/// Returns the device and the inode of a file; `None` if it does not exist.
#[must_use]
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let status = std::fs::metadata(path).ok()?;
    Some((status.dev(), status.ino()))
}

/// Returns the sorted names of all subhosts that have a state directory.
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

/// Like [`open_pid1`], but does not trust the facts of the document: returns `None` unless the
/// parent of pid 1, the supervisor, has the lock file of the subhost NAME open.
///
/// # Errors
/// Pid 1 or its parent cannot be examined.
pub fn open_own_pid1(document: &Document) -> Result<Option<OwnedFd>> {
    let Some(pid_1) = open_pid1(document)? else {
        return Ok(None);
    };
    let is_own = match parent(document.number("pid")?)? {
        None => false,
        Some(parent) => StateDir::of(document.name())
            .is_held_by(parent)
            .with_context(|| format!("examine the parent of pid 1, {parent}"))?,
    };
    // If the process behind the pidfd is still alive, its pid was not reused, so `parent` is its
    // parent.
    Ok((is_own && pidfd_signal(&pid_1, None).is_ok()).then_some(pid_1))
}

/// Returns whether another process that creates or removes the same files can cause the error.
fn is_race(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound)
}

/// Returns whether `path` is still that of the open `file`.
fn is_same(file: &File, path: &Path) -> bool {
    let opened = file.metadata().map(|status| (status.dev(), status.ino()));
    opened.is_ok_and(|opened| identity(path) == Some(opened))
}

#[cfg(test)]
mod tests;
