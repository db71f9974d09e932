//! The stages that a configuration names in PIPELINE, in place of the stages of the command line.

use crate::pipeline::Pipeline;
use anyhow::{Context, Result, bail, ensure};
use ob_document::{Document, FREE};
use ob_shutdown::stop_timeout;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The variable with the stages, as a list of words.
pub const VARIABLE: &str = "PIPELINE";

/// How long a stage may take to undo its changes, besides STOP_TIMEOUT.
const UNDO_GRACE: Duration = Duration::from_secs(30);

/// The stages of one subhost.
pub struct Configured {
    words: Vec<OsString>,
    environment: Vec<(String, String)>,
    directory: PathBuf,
}

impl Configured {
    /// Returns the stages of PIPELINE; `None` if the configuration does not set it.
    pub fn of(document: &Document) -> Result<Option<Self>> {
        let words = document.list(VARIABLE)?;
        if words.is_empty() {
            return Ok(None);
        }
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        Pipeline::of(&words).context(VARIABLE)?;
        let environment = document.environment();
        let environment = environment.filter(|(name, _)| name.starts_with(FREE));
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        let conf = document.optional("CONFIG").map(Path::new);
        let directory = conf.and_then(Path::parent).unwrap_or(Path::new("/"));
        Ok(Some(Configured {
            words,
            environment: environment.collect(),
            directory: directory.to_owned(),
        }))
    }

    /// Returns the pipeline, and changes to the directory of the configuration, in which it runs.
    pub fn prepare(&self) -> Result<Pipeline<'_>> {
        let directory = &self.directory;
        std::env::set_current_dir(directory)
            .with_context(|| format!("change to {}", directory.display()))?;
        Ok(Pipeline::of(&self.words)?.with_environment(&self.environment))
    }

    /// Gives the document to each stage with the first argument `--undo`, the last stage first.
    ///
    /// Calls the other stages if one fails. Returns the first failure.
    pub fn undo(&self, document: &Document) -> Result<()> {
        let mut outcome = Ok(());
        for stage in self.words.rsplit(|word| word == "|") {
            let undone = self.undo_stage(stage, document);
            let undone = undone.with_context(|| {
                let name = stage[0].to_string_lossy();
                format!("undo the stage {name}")
            });
            outcome = outcome.and(undone);
        }
        outcome
    }

    fn undo_stage(&self, stage: &[OsString], document: &Document) -> Result<()> {
        ob_sys::process::set_cloexec_from(3)?;
        let directory = Some(&self.directory).filter(|directory| directory.is_dir());
        let mut child = Command::new(&stage[0])
            .arg("--undo")
            .args(&stage[1..])
            .current_dir(directory.map_or(Path::new("/"), PathBuf::as_path))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("OB_COMMAND")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        // A document fits into a pipe, or the stage reads it. A stage that reads nothing closes it.
        let stdin = child.stdin.take();
        let _ = stdin.map(|mut stdin| stdin.write_all(document.line().as_bytes()));
        let status = wait(&mut child, stop_timeout(document) + UNDO_GRACE)?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

/// Waits until `child` has exited; kills it after `timeout`.
fn wait(child: &mut Child, timeout: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {} s", timeout.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
