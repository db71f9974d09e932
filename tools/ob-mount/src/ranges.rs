//! Allocation of the ids on the host for a subhost with a user namespace. A file keeps each range,
//! so that the subhost gets the same ids at its next boot.

use crate::ledger::{Ledger, Request};
use crate::octal::escape;
use crate::subids::SubIds;
use anyhow::{Context, Result, ensure};
use ob_confine::userns::{IdRange, UsernsSetting};
use ob_document::{Document, state};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// The directory of the file. Not /var/lib/overlay-boot, which is a link to the commands, for old
/// hooks.
const DIRECTORY: &str = "/var/lib/subhosts";

/// The file in [`DIRECTORY`]: a line `FIRST:SIZE NAME PATH` for each subhost. PATH is the path of
/// its configuration, or else its UPPER, with control characters in octal.
const FILE: &str = "userns";

/// How long another boot may lock the file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Allocates the range of ids that the plan of `document` sets, or any range if it is `auto`, and
/// records it in the file. No other subhost has these ids, and no user in /etc/subuid or
/// /etc/subgid.
pub fn allocate(
    document: &Document,
    setting: UsernsSetting,
    warnings: &mut Vec<String>,
) -> Result<IdRange> {
    allocate_in_file(document, setting, warnings).with_context(|| match setting {
        UsernsSetting::Range(ids) => format!("USERNS={ids}"),
        _ => "USERNS=auto".to_owned(),
    })
}

fn allocate_in_file(
    document: &Document,
    setting: UsernsSetting,
    warnings: &mut Vec<String>,
) -> Result<IdRange> {
    let path = Path::new(DIRECTORY).join(FILE);
    let context = || format!("keep the ranges in {}", path.display());
    let _lock = lock_directory(context)?;
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        text => text.with_context(context)?,
    };
    let text = String::from_utf8_lossy(&text);
    let mut ledger = Ledger::parse(&text);
    for line in ledger.damaged_lines() {
        warnings.push(format!(
            "{}: the line '{}' is damaged; correct or remove it. The ids at its start stay reserved",
            path.display(),
            escape(line)
        ));
    }
    let subids = [SubIds::read("/etc/subuid")?, SubIds::read("/etc/subgid")?];
    let plan = document
        .path("CONFIG")
        .or_else(|_| document.path("UPPER"))?;
    let owner = format!("{} {}", document.name(), plan.display());
    let request = Request {
        owner: &owner,
        setting,
        subids: &subids,
        file: &path,
        running: &running,
    };
    let ids = ledger.allocate(&request)?;
    let new = ledger.text();
    if new != text {
        replace(&path, &new).with_context(context)?;
    }
    Ok(ids)
}

/// Opens and locks the directory. A lock on the file would be lost when the file is replaced.
fn lock_directory(context: impl Fn() -> String) -> Result<File> {
    let mut builder = DirBuilder::new();
    match builder.recursive(true).mode(0o700).create(DIRECTORY) {
        // If it is no directory, the read of the file fails.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        created => created.with_context(&context)?,
    }
    let directory = File::open(DIRECTORY).with_context(&context)?;
    ensure!(
        state::lock_within(&directory, LOCK_TIMEOUT).with_context(&context)?,
        "another boot keeps {DIRECTORY} locked, and does not end"
    );
    Ok(directory)
}

/// Replaces the file at `path` by rename(2), so that a crash or a full disk leaves the old file.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    write_and_rename(&new, path, text)
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&new);
        })
        .with_context(|| format!("write {}", new.display()))
}

fn write_and_rename(new: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

/// Returns the ids of all running subhosts except the subhost `name`.
fn running(name: &str) -> Vec<IdRange> {
    let others = state::names().into_iter().filter(|other| other != name);
    let documents =
        others.filter_map(|other| state::StateDir::of(&other).document().ok().flatten());
    documents
        .filter_map(|document| IdRange::of(&document).ok().flatten())
        .collect()
}
