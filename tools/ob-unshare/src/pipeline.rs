//! The stages of a pipeline, started as a shell would: but a shell takes longer to start than all of them.

use crate::TOOL;
use crate::room::become_program;
use anyhow::{Context, Error, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::libc::CLONE_PARENT;
use nix::sys::stat::Mode;
use nix::unistd::pipe2;
use ob_document::Usage;
use ob_sys::keep::Keep;
use ob_sys::process::spawn;
use std::convert::Infallible;
use std::ffi::OsString;
use std::process::Stdio;

/// The word between two stages.
const BAR: &str = "|";

/// Commands of which each reads what the one before it prints.
pub struct Pipeline<'a> {
    stages: Vec<&'a [OsString]>,
}

impl<'a> Pipeline<'a> {
    /// The stages that `words` name, with a `|` between two of them. A [`Usage`] error if one is empty.
    pub fn of(words: &'a [OsString]) -> Result<Self> {
        let stages: Vec<_> = words.split(|word| word == BAR).collect();
        if stages.iter().any(|stage| stage.is_empty()) {
            bail!(Usage("a stage of the pipeline is empty".to_owned()));
        }
        Ok(Pipeline { stages })
    }

    /// Starts the stages for the subhost `name`, in the room that has `keep`. This process becomes the last; the others are its
    /// siblings, so that all have one parent. Returns what could not be started: then those before it find nobody to print to.
    pub fn run(&self, name: &str, keep: &Keep) -> Error {
        let started = (|| -> Result<Infallible> {
            let (last, others) = self.stages.split_last().context("no stage")?;
            if others.is_empty() {
                return Err(become_program(
                    last,
                    keep,
                    Stdio::inherit(),
                    Stdio::inherit(),
                ));
            }
            // As a shell has it for what it runs in the background: nobody is there to be asked.
            let null = open(
                "/dev/null",
                OFlag::O_RDONLY | OFlag::O_CLOEXEC,
                Mode::empty(),
            );
            let mut input = null.context("open /dev/null")?;
            for stage in others {
                let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
                spawn(CLONE_PARENT, None, || {
                    let error = become_program(stage, keep, input.into(), writing.into());
                    TOOL.complain(&error.context(name.to_owned()));
                    1
                })
                .with_context(|| format!("start {}", stage[0].display()))?;
                input = reading;
            }
            Err(become_program(last, keep, input.into(), Stdio::inherit()))
        })();
        match started {
            Err(error) => error,
        }
    }
}
