//! A network namespace that existed before the boot. It stays after the end of the subhost, and may have links that are no
//! cables, so the cables are noted.

use crate::links::Links;
use anyhow::{Context, Result};
use ob_document::state::StateDir;
use ob_document::{Document, netns};

/// A network namespace that existed before the boot.
pub struct Found {
    name: String,
    /// Whether the boot has a guard, which will clean up by the state file.
    guarded: bool,
}

impl Found {
    /// Returns the namespace `name` if it existed before the boot, and is not one that an earlier boot
    /// has left.
    pub fn of(name: &str) -> Result<Option<Self>> {
        let home = StateDir::of(name);
        let state = home.document().ok().flatten();
        // The guard has looked before the boot. Without a guard, a namespace that was not made for a
        // subhost belongs to another program.
        let state = state.filter(|state| state.has("guard") && home.is_locked());
        let is_found = match &state {
            Some(state) => state.has("netfound"),
            None => netns::is_foreign(name)?,
        };
        Ok(is_found.then(|| Found {
            name: name.to_owned(),
            guarded: state.is_some(),
        }))
    }

    /// Notes which of the `links` do not exist yet: those that exist are no cables.
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

    /// Notes the indexes of the `links`, which have been made, also in the document.
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

    /// Notes the links in the state file, for a guard that cleans up.
    fn note(&self, document: &Document) -> Result<()> {
        if !self.guarded {
            return Ok(());
        }
        StateDir::of(&self.name).note(document, &["cables", "ifindex"])
    }
}
