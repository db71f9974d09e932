//! The log of a subhost: dated lines in a file that another user cannot replace.

use crate::{Document, Tool, one_line, printable};
use anyhow::{Context, Error, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Opens the log at `path` for appending; creates it with mode 0640 if it does not exist.
///
/// In a directory that another user can write (the default is /tmp) the log must be a regular file
/// with one link, owned by the caller. Another user created any other file there, so that file is
/// replaced: it is neither followed nor written. In other directories the administrator decides, so
/// `path` may be a symbolic link or a device. Opening never blocks: a FIFO without a reader is an
/// error.
pub fn open(path: &Path) -> Result<File> {
    open_file(path).with_context(|| format!("open the log {}", path.display()))
}

/// Like [`open`], but truncates the log: it has the messages of one boot.
pub fn begin(path: &Path) -> Result<File> {
    let log = open(path)?;
    if log.metadata()?.is_file() {
        log.set_len(0)
            .with_context(|| format!("empty the log {}", path.display()))?;
    }
    Ok(log)
}

const FLAGS: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);
const MODE: Mode = Mode::from_bits_truncate(0o640);

fn open_file(path: &Path) -> Result<File> {
    let parent = path.parent().context("the path has no directory")?;
    let file = path.file_name().context("the path has no file name")?;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let directory = openat(AT_FDCWD, parent, flags, Mode::empty())
        .map(File::from)
        .with_context(|| format!("open its directory {}", parent.display()))?;
    let status = fstat(&directory)?;
    let is_shared =
        status.st_mode & 0o022 != 0 || (status.st_uid != 0 && status.st_uid != geteuid().as_raw());
    if !is_shared {
        return Ok(openat(&directory, file, FLAGS | OFlag::O_CREAT, MODE)?.into());
    }
    for _ in 0..10 {
        match openat(&directory, file, FLAGS | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(log) if is_ours(&log)? => return Ok(log.into()),
            Ok(_) | Err(Errno::ELOOP | Errno::ENXIO | Errno::EACCES) => {
                remove_planted(&directory, file)?;
            }
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let new = FLAGS | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        match openat(&directory, file, new, MODE) {
            Ok(log) => return Ok(log.into()),
            Err(Errno::EEXIST) => {} // created by another process since the first openat(2)
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::EEXIST).context("another user creates a file there again and again")
}

/// Returns whether a file is regular, has one link and is owned by the caller.
///
/// A second link would give the log the name of another file, whose content it would overwrite.
fn is_ours(file: impl AsFd) -> Result<bool> {
    let status = fstat(file)?;
    Ok(
        SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG
            && status.st_uid == geteuid().as_raw()
            && status.st_nlink == 1,
    )
}

/// Removes a file that another user created at the path of the log.
fn remove_planted(directory: &File, file: &std::ffi::OsStr) -> Result<()> {
    let status = fstatat(directory, file, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    ensure!(
        status.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFDIR.bits(),
        "the path is a directory"
    );
    unlinkat(directory, file, UnlinkatFlags::NoRemoveDir)
        .context("remove the file that another user created there")
}

/// Writes the line `TIME TEXT` with one write(2), so that lines of several processes do not mix.
///
/// Ignores errors: a full disk must not prevent or end a boot.
pub fn line(log: &mut File, text: &str) {
    let _ = log.write_all(format!("{} {}\n", now(), printable(text)).as_bytes());
}

/// Appends the message `text` of `tool` to the LOG of `document`. Ignores errors, like [`line()`].
pub fn append(tool: &Tool, document: &Document, text: &str) {
    let log = document.optional("LOG");
    if let Some(mut log) = log.and_then(|path| open(Path::new(path)).ok()) {
        line(&mut log, &format!("{}: {text}", tool.name));
    }
}

/// Like [`append`], but only if TRACE in the environment is neither empty nor 0.
pub fn trace(tool: &Tool, document: &Document, text: &str) {
    if std::env::var_os("TRACE").is_some_and(|value| !value.is_empty() && value != "0") {
        append(tool, document, text);
    }
}

/// Appends the error of `tool` to the LOG of `document`, and returns the error.
pub fn failure<T>(tool: &Tool, document: &Document, error: Error) -> Result<T> {
    append(tool, document, &one_line(&error));
    Err(error)
}

/// Parses a size such as LOG_MAX: a positive number of bytes, or of KiB, MiB or GiB with the suffix
/// `K`, `M` or `G`.
pub fn bytes(size: &str) -> Result<u64> {
    let number = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &size[number.len()..] {
        "" => 1,
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        _ => 0,
    };
    let bytes = number
        .parse()
        .ok()
        .and_then(|count: u64| count.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .with_context(|| format!("{size} is not a size such as 10M"))
}

/// Returns the time in UTC in the format of ISO 8601, such as 2026-11-22T22:17:57Z.
#[must_use]
pub fn now() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let (day, time) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = date(day);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

/// Returns year, month and day for a number of days since 1970-01-01.
///
/// Counts years from March, so that the leap day is the last day of a year.
fn date(day: u64) -> (u64, u64, u64) {
    const FOUR_CENTURIES: u64 = 146_097;
    let shifted = day + 719_468; // since 0000-03-01
    let in_era = shifted % FOUR_CENTURIES;
    let year_of_era = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146_096) / 365;
    let day_of_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = year_of_era + shifted / FOUR_CENTURIES * 400 + u64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 }, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_match_the_calendar() {
        for (day, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11016, (2000, 2, 29)),
            (19782, (2024, 2, 29)),
            (20779, (2026, 11, 22)),
        ] {
            assert_eq!(date(day), expected, "day {day}");
        }
    }

    #[test]
    fn log_replaces_a_planted_file() {
        let directory = std::env::temp_dir().join(format!("ob-log-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let shared = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(&directory, shared).unwrap();
        let (log, victim) = (directory.join("log"), directory.join("victim"));
        std::fs::write(&victim, "kept").unwrap();
        let plants: [&dyn Fn(); 3] = [
            &|| std::os::unix::fs::symlink(&victim, &log).unwrap(),
            &|| std::fs::hard_link(&victim, &log).unwrap(),
            &|| nix::unistd::mkfifo(&log, Mode::S_IRWXU).unwrap(),
        ];
        for plant in plants {
            plant();
            line(&mut begin(&log).unwrap(), "hello");
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
            assert!(
                std::fs::read_to_string(&log)
                    .unwrap()
                    .ends_with("Z hello\n")
            );
            std::fs::remove_file(&log).unwrap();
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
