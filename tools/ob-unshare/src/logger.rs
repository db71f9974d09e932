//! Writes the output of the subhost to its log, line by line, with the date. The subhost never
//! waits for the disk: a line that cannot be written is dropped and counted.

use ob_document::{Document, log, printable};
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The longest line that is kept together.
const LONGEST: usize = 4096;

/// The prefix for a line of the subhost that begins like a line of a tool, or like a count of lost
/// lines.
const MARK: &str = "| ";

/// Returns whether a line begins like a line of this logger: with the name of a tool, or a count of
/// lost lines.
fn is_like_ours(line: &[u8]) -> bool {
    let digits = |line: &[u8]| line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let lost = line.strip_prefix(b"(");
    let lost = lost.and_then(|line| line[digits(line)..].strip_prefix(b" lines lost)"));
    line.starts_with(b"ob-") || lost.is_some()
}

/// The log of a running subhost.
pub struct Logger {
    path: PathBuf,
    file: File,
    /// The bytes in the file, and the size at which the file is renamed.
    size: u64,
    largest: u64,
    /// The start of a line without its end.
    line: Vec<u8>,
    lost: u64,
}

impl Logger {
    /// Opens the log of the document.
    pub fn open(document: &Document) -> anyhow::Result<Self> {
        let path = document.path("LOG")?.to_owned();
        let file = log::open(&path)?;
        Ok(Logger {
            size: file.metadata()?.len(),
            largest: log::bytes(document.optional("LOG_MAX").unwrap_or("10M"))?,
            path,
            file,
            line: Vec::new(),
            lost: 0,
        })
    }

    /// Adds output of the subhost, and writes the lines that are complete.
    pub fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LONGEST {
                self.flush();
            }
        }
    }

    /// Writes a line of the supervisor.
    pub fn say(&mut self, text: &str) {
        self.flush();
        self.write(format!("ob-unshare: {}", printable(text)).as_bytes());
    }

    /// Writes the incomplete line of the subhost.
    pub fn flush(&mut self) {
        if self.line.is_empty() {
            return;
        }
        let mut line = std::mem::take(&mut self.line);
        if line.ends_with(b"\n") {
            line.pop();
        }
        if is_like_ours(&line) {
            line.splice(0..0, MARK.bytes());
        }
        self.write(&line);
    }

    fn write(&mut self, line: &[u8]) {
        let mut entry = format!("{} ", log::now()).into_bytes();
        if self.lost > 0 {
            entry.extend_from_slice(format!("({} lines lost) ", self.lost).as_bytes());
        }
        entry.extend_from_slice(line);
        entry.push(b'\n');
        if self.size + entry.len() as u64 > self.largest {
            self.set_aside();
        }
        // One write(2), so that a full disk does not cut a line.
        match self.file.write(&entry) {
            Ok(written) if written == entry.len() => {
                self.lost = 0;
                self.size += written as u64;
            }
            _ => self.lost += 1,
        }
    }

    /// Begins a new file and keeps the old one as LOG.1: a log takes no more than twice LOG_MAX.
    /// One that is no longer at its path was moved by another, as by logrotate(8), and stays as it
    /// is.
    fn set_aside(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        let Some(ours) = self.file.metadata().ok().filter(Metadata::is_file) else {
            self.size = 0;
            return;
        };
        let there = std::fs::metadata(&self.path);
        let is_there = there.is_ok_and(|it| (it.dev(), it.ino()) == (ours.dev(), ours.ino()));
        if !is_there || std::fs::rename(&self.path, &old).is_ok() {
            if let Ok(file) = log::open(&self.path) {
                self.file = file;
            }
        } else {
            let _ = self.file.set_len(0);
        }
        self.size = self.file.metadata().map_or(0, |it| it.len());
    }
}

#[cfg(test)]
mod tests {
    use super::is_like_ours;

    #[test]
    fn lines_that_begin_as_ours_do_are_known() {
        for line in [
            "ob-unshare: pid 1 has ended",
            "ob-",
            "(3 lines lost) x",
            "( lines lost)",
        ] {
            assert!(is_like_ours(line.as_bytes()), "{line}");
        }
        for line in [
            "",
            "job-1",
            " ob-unshare:",
            "| ob-unshare:",
            "(3 lines)",
            "3 lines lost)",
        ] {
            assert!(!is_like_ours(line.as_bytes()), "{line}");
        }
    }
}
