//! A network namespace that existed before the boot. It stays after the end of the subhost, and can
//! have links that are not cables, so the facts list the cables.

use crate::links::Links;
use anyhow::{Context, Result};
use ob_document::state::StateDir;
use ob_document::{Document, netns};

/// A network namespace that existed before the boot.
pub struct Found {
    name: String,
    /// Whether the boot has a guard, which cleans up by the state file.
    guarded: bool,
}

impl Found {
    /// Returns the namespace `name` if it existed before the boot, and no earlier boot left it.
    ///
    /// # Errors
    /// The mark of the file in /run/netns cannot be read.
    pub fn of(name: &str) -> Result<Option<Self>> {
        let directory = StateDir::of(name);
        let state = directory.document().ok().flatten();
        // The guard looked before the boot. Without a guard, a namespace that was not created for a
        // subhost belongs to another program.
        let state = state.filter(|state| state.has("guard") && directory.is_locked());
        let is_found = match &state {
            Some(state) => state.has("netfound"),
            None => netns::is_foreign(name)?,
        };
        Ok(is_found.then(|| Found {
            name: name.to_owned(),
            guarded: state.is_some(),
        }))
    }

    /// Notes the `links` that do not exist yet. A link that exists now is not a cable.
    ///
    /// # Errors
    /// A link cannot be looked up, or the state file cannot be written.
    pub fn note_names(&self, links: &[String], host: &mut Links) -> Result<()> {
        let mut new = Vec::new();
        for link in links {
            if host.find(link)?.is_none() {
                new.push(link.clone());
            }
        }
        let mut noted = Document::new(&self.name)?;
        noted.set("cables", new);
        self.note(&noted)
    }

    /// Notes the `links` and their indexes, after their creation, in the document and in the state
    /// file.
    ///
    /// # Errors
    /// A link is gone or cannot be looked up, or the state file cannot be written.
    pub fn note_indexes(
        &self,
        links: &[String],
        host: &mut Links,
        document: &mut Document,
    ) -> Result<()> {
        let mut indexes = Vec::new();
        for link in links {
            let made = host.find(link)?;
            indexes.push(made.with_context(|| format!("{link} is gone"))?.index);
        }
        document.set("cables", links);
        document.set("ifindex", indexes);
        self.note(document)
    }

    /// Writes the links into the state file, for the guard.
    fn note(&self, document: &Document) -> Result<()> {
        if !self.guarded {
            return Ok(());
        }
        StateDir::of(&self.name).note(document, &["cables", "ifindex"])
    }
}
