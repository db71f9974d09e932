//! The mounts of this stage, which the document notes for the undo.

use crate::unmount::mount_id;
use ob_document::Document;
use std::path::{Path, PathBuf};

/// Mount points with the numbers of their mounts, in order.
#[derive(Default)]
pub struct Mounts(Vec<(PathBuf, u64)>);

impl Mounts {
    /// Adds the mount at `path`, which must be the topmost mount there.
    pub fn push(&mut self, path: &Path) {
        self.0.push((path.to_owned(), mount_id(path)));
    }

    /// Returns the mount points.
    pub fn points(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(path, _)| path.display().to_string())
    }

    /// Sets the facts `mounts` and `mountids`.
    pub fn note(&self, document: &mut Document) {
        let ids: Vec<u64> = self.0.iter().map(|(_, id)| *id).collect();
        document.set("mounts", self.points().collect::<Vec<_>>());
        document.set("mountids", ids);
    }
}
