//! Finds subhosts by the files in their state directories.

use crate::clock::{ticks, uptime_of_host};
use crate::detail::Meter;
use crate::operand::Operand;
use crate::subhost::{Signs, State, Subhost, is_being_stopped};
use anyhow::{Context, Result, anyhow, ensure};
use ob_document::Document;
use ob_document::state::{StateDir, open_pid1};
use ob_sys::lock::is_free;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Finds subhosts, and measures them if asked to.
pub struct Finder {
    /// The parent of the state directories.
    directory: PathBuf,
    /// The time since the host has booted.
    now: Duration,
    /// Measures running subhosts, for `-l`.
    meter: Option<Meter>,
}

impl Finder {
    /// Returns a finder of the subhosts below `directory`; with `long` they are also measured.
    pub fn new(directory: &Path, long: bool) -> Result<Self> {
        Ok(Finder {
            directory: directory.to_owned(),
            now: uptime_of_host()?,
            meter: long.then(Meter::new).transpose()?,
        })
    }

    /// Returns all subhosts, sorted by name.
    pub fn all(&self) -> Result<Vec<Subhost>> {
        let names = self.names()?;
        let found = names.iter().map(|name| self.look(name));
        found.filter_map(Result::transpose).collect()
    }

    /// Returns the names of all subhosts, sorted.
    fn names(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("read {}", self.directory.display()))?,
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| Document::new(name).is_ok());
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the subhost that `operand` names: by its name, or by the path of its configuration.
    ///
    /// No configuration is opened. Fails if there is no such subhost, if the subhost of that name
    /// was started from another configuration, or if `operand` names several subhosts.
    pub fn named(&self, operand: &OsStr) -> Result<Subhost> {
        let path = Path::new(operand);
        let word = operand.to_str().filter(|name| !name.contains('/'));
        let possible = word.map_or(Ok(()), |name| Document::new(name).map(drop));
        let by_name = match (word, &possible) {
            (Some(name), Ok(())) => self.look(name)?,
            _ => None,
        };
        if let Some(subhost) = by_name {
            return Ok(subhost);
        }
        // In the directory of a configuration, its file name alone is an operand, too.
        let operand = Operand::new(path, word.is_some());
        // The default of NAME; the configuration may set another name.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".conf").unwrap_or(&name);
        let namesake = match Document::new(name) {
            Ok(_) => self.look(name)?,
            Err(_) => None,
        };
        // A boot that was killed early has left a document without CONFIG.
        let is_unknown = |found: &Subhost| found.state == State::Dead && found.conf().is_none();
        let namesake = match namesake {
            Some(found) if is_unknown(&found) || operand.is_of(&found.document) => {
                return Ok(found);
            }
            namesake => namesake,
        };
        if let Some(subhost) = self.started_from(&operand, path)? {
            return Ok(subhost);
        }
        possible?;
        Err(not_found(name, path, namesake.as_ref()))
    }

    /// Returns the subhost that was started from the configuration `operand`, at `path`.
    ///
    /// Fails if there are several: NAME of a configuration may be the output of a command.
    fn started_from(&self, operand: &Operand, path: &Path) -> Result<Option<Subhost>> {
        let mut names = self.names()?;
        names.retain(|name| {
            let document = StateDir::below(&self.directory, name).document();
            matches!(document, Ok(Some(document)) if operand.is_of(&document))
        });
        ensure!(
            names.len() < 2,
            "{}: started as {}; give one of these names",
            path.display(),
            names.join(" and ")
        );
        names.first().map_or(Ok(None), |name| self.look(name))
    }

    /// Returns the subhost `name`, or `None` if it has no state directory.
    fn look(&self, name: &str) -> Result<Option<Subhost>> {
        let state_dir = StateDir::below(&self.directory, name);
        let lock = open_if_present(&state_dir.file("lock"));
        let lock = lock.with_context(|| format!("{name}: open its lock"))?;
        // If the lock is free, is_free takes a shared lock until the end of this function, so that
        // no boot changes the files meanwhile.
        let held = lock.as_ref().is_some_and(|lock| !is_free(lock));
        let (document, damage) = match state_dir.document() {
            Ok(document) => (document, None),
            Err(error) => (Some(Document::new(name)?), Some(error)),
        };
        if !held {
            match &lock {
                // The file was removed before it was locked; another process may have a new one.
                Some(lock) if !state_dir.is_lock(lock) => return self.look(name),
                None if !state_dir.file("").exists() => return Ok(None),
                None if !is_torn(&state_dir) => return self.look(name),
                _ => {}
            }
        }
        let unknown = held && document.is_none();
        let document = document.map_or_else(|| Document::new(name), Ok)?;
        let subhost = self.examine(&state_dir, document, held)?;
        Ok(Some(Subhost {
            damage,
            unknown,
            ..subhost
        }))
    }

    /// Returns the subhost of `document`, whose lock is `held` by another process or not.
    fn examine(&self, state_dir: &StateDir, mut document: Document, held: bool) -> Result<Subhost> {
        let pid_1 = open_pid1(&document).with_context(|| document.name().to_owned())?;
        let state = State::of(&Signs {
            held,
            stopped: is_being_stopped(state_dir),
            begun: document.has("pid"),
            alive: pid_1.is_some(),
        });
        let start = document.number("start").ok().filter(|_| pid_1.is_some());
        if pid_1.is_none() {
            for fact in ["pid", "pidns", "start"] {
                document.remove(fact);
            }
        }
        let detail = match (&self.meter, &pid_1) {
            (Some(meter), Some(pid_1)) => {
                let measured = meter.measure(&document, pid_1);
                Some(measured.with_context(|| document.name().to_owned())?)
            }
            _ => None,
        };
        Ok(Subhost {
            uptime: start.map(|start| self.now.saturating_sub(ticks(start))),
            document,
            state,
            detail,
            damage: None,
            unknown: false,
        })
    }

    /// Waits up to a second for the document of a subhost that is starting.
    ///
    /// `ob-unshare --undo` needs the document to stop it. Returns `None` if the subhost is gone.
    pub fn wait_for_document(&self, subhost: Subhost) -> Result<Option<Subhost>> {
        let mut subhost = subhost;
        for _ in 0..500 {
            if !subhost.unknown {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
            match self.look(subhost.document.name())? {
                Some(found) => subhost = found,
                None => return Ok(None),
            }
        }
        Ok(Some(subhost))
    }
}

/// Returns the reason why `path` names no subhost, of which `namesake` has the same name.
fn not_found(name: &str, path: &Path, namesake: Option<&Subhost>) -> anyhow::Error {
    let path = path.display();
    match namesake {
        Some(subhost) => {
            let conf = subhost.conf().unwrap_or("no file");
            let state = subhost.state.word();
            anyhow!("{name}: {state}, but from {conf}, not {path}")
        }
        None if name.is_empty() => anyhow!("{path}: not running"),
        None => anyhow!("{name}: not running"),
    }
}

fn open_if_present(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// Returns whether there is a state directory without a lock, and stays so for 20 ms.
///
/// A process was killed then between creating or removing the two.
fn is_torn(state_dir: &StateDir) -> bool {
    std::thread::sleep(Duration::from_millis(20));
    state_dir.file("").exists() && !state_dir.file("lock").exists()
}

#[cfg(test)]
mod tests;
