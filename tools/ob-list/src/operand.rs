//! The operands of the command line that are paths.

use ob_document::{Document, confid};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

/// The configuration that an operand of the command line names.
pub struct Operand<'a> {
    /// The absolute path.
    path: Option<PathBuf>,
    /// The identity of the file; see [`confid`].
    confid: Option<String>,
    /// The operand if it has no slash; then only a configuration of the same file name matches.
    word: Option<&'a OsStr>,
}

impl<'a> Operand<'a> {
    /// Describes the configuration at `path`; `is_word` if that has no slash.
    ///
    /// Examines the status of the file and does not open it.
    pub fn new(path: &'a Path, is_word: bool) -> Self {
        let status = if is_word {
            // The working directory may belong to another user, whose symbolic link could name the
            // configuration of any subhost.
            path.symlink_metadata()
        } else {
            path.metadata()
        };
        let status = status.ok().filter(Metadata::is_file);
        Operand {
            path: std::path::absolute(path).ok(),
            confid: status.as_ref().map(confid),
            word: is_word.then_some(path.as_os_str()),
        }
    }

    /// Returns whether the subhost of `document` was started from this configuration.
    ///
    /// The file may have been moved since, or replaced by an editor.
    pub fn is_of(&self, document: &Document) -> bool {
        let Some(conf) = document.optional("CONFIG").map(Path::new) else {
            return false;
        };
        if self.word.is_some_and(|word| conf.file_name() != Some(word)) {
            return false;
        }
        let is_noted = |found: &String| document.optional("confid") == Some(found);
        let is_there = |found: &String| {
            conf.metadata()
                .is_ok_and(|status| confid(&status) == *found)
        };
        self.path.as_deref() == Some(conf)
            || self
                .confid
                .as_ref()
                .is_some_and(|found| is_noted(found) || is_there(found))
    }
}
