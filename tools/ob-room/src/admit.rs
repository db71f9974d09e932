//! Admits a subhost to the room of a guard: takes its lock, starts its log, and writes the first
//! state file.

use crate::{cleanup, configured};
use anyhow::{Context, Result};
use ob_document::state::{Lock, StateDir, identify};
use ob_document::{Document, Tool, log, netns};
use ob_shutdown::guards;
use ob_sys::fdstore::FdStore;
use std::path::PathBuf;

/// What the guard holds of its subhost while the subhost starts and runs.
pub struct Subhost {
    /// The state directory.
    pub state_dir: StateDir,
    /// The value of NAME.
    pub name: String,
    /// The path of the log, if the document has LOG. Another program may move the file.
    pub log: Option<PathBuf>,
    _lock: Lock,
}

impl Subhost {
    /// Takes the lock of the subhost, also for the stages that use `store`, and starts the log.
    ///
    /// If a killed guard has left something of that subhost, that is cleaned up first, with the
    /// cleanup `command`.
    pub fn lock(
        tool: &Tool,
        document: &Document,
        command: Option<&str>,
        store: &FdStore,
    ) -> Result<Self> {
        let name = document.name();
        let state_dir = StateDir::of(name);
        let lock = loop {
            let lock = state_dir.lock()?;
            let lock = lock.with_context(|| state_dir.in_use_message())?;
            let is_stopped = guards::is_being_stopped(&state_dir);
            let cleaned = cleanup::clean_up_after(&state_dir, name, command);
            // The cleanup removes the directory with the locked file, so the lock must be taken
            // again.
            if !cleaned.context("clean up after a predecessor")? {
                break lock;
            }
            // If another process stops the subhost, that process would have cleaned up: nothing to
            // report.
            if !is_stopped {
                tool.warn(&format!(
                    "{name}: cleaned up what a killed predecessor had left"
                ));
            }
        };
        let log = start_log(document).and_then(|log| {
            store.push(&lock).context("store the lock")?;
            Ok(log)
        });
        let log = log.inspect_err(|_| {
            let _ = state_dir.remove();
        })?;
        Ok(Subhost {
            state_dir,
            name: name.to_owned(),
            log,
            _lock: lock,
        })
    }

    /// Writes a state file that names this process as the guard: from now on the subhost is
    /// starting.
    pub fn write_state(&self, document: &Document) -> Result<Document> {
        let mut state = Document::new(&self.name)?;
        if document.has(configured::VARIABLE) {
            // The undo of a foreign stage may need any part of the plan.
            let plan: Vec<String> = document.environment().map(|(key, _)| key.into()).collect();
            state = document.clone();
            state.retain(&plan);
        }
        for variable in ["CONFIG", "LOG", "confid"] {
            if let Some(value) = document.optional(variable) {
                state.set(variable, value);
            }
        }
        let pid = std::process::id();
        state.set("guard", pid);
        state.set("guardstart", identify(i32::try_from(pid)?)?.1);
        // The second stage has not started, so a namespace that exists now was not created by this
        // boot.
        if netns::is_foreign(&self.name)? {
            state.set("netfound", true);
        }
        self.state_dir.write(&state)?;
        Ok(state)
    }
}

fn start_log(document: &Document) -> Result<Option<PathBuf>> {
    if !document.has("LOG") {
        return Ok(None);
    }
    let path = document.path("LOG")?;
    log::begin(path)?;
    Ok(Some(path.to_owned()))
}
