//! Starts the stages of a pipeline, like a shell. A shell would take longer to start than all of
//! them.

use crate::room::become_program;
use anyhow::{Context, Error, Result};
use nix::fcntl::{OFlag, open};
use nix::libc::CLONE_PARENT;
use nix::sys::stat::Mode;
use nix::unistd::pipe2;
use ob_document::{Tool, Usage};
use ob_sys::fdstore::FdStore;
use ob_sys::process::spawn;
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::process::Stdio;

/// The argument that separates two stages.
const BAR: &str = "|";

/// Commands, each of which reads the output of the previous one.
pub struct Pipeline<'a> {
    before: Vec<&'a [OsString]>,
    last: &'a [OsString],
    /// Variables to add to the environment of each stage.
    environment: Vec<(String, String)>,
}

/// The descriptors in place of the pipe between the first and the second stage: the guard reads the
/// document from one, and writes it to the other when the subhost is locked.
pub struct Cut {
    /// Standard output of the first stage.
    pub printed: OwnedFd,
    /// Standard input of the second stage.
    pub admitted: OwnedFd,
}

impl<'a> Pipeline<'a> {
    /// Parses the stages in `words`, separated by `|`. A [`Usage`] error if one is empty.
    pub fn of(words: &'a [OsString]) -> Result<Self> {
        let stages: Vec<_> = words.split(|word| word == BAR).collect();
        match stages.as_slice() {
            [before @ .., last] if !stages.iter().any(|stage| stage.is_empty()) => Ok(Pipeline {
                before: before.to_vec(),
                last,
                environment: Vec::new(),
            }),
            _ => Err(Usage("a stage of the pipeline is empty".to_owned()).into()),
        }
    }

    /// Like [`Pipeline::of`], for a first stage that prints the document for the next stages. A
    /// [`Usage`] error if there are fewer than two stages.
    pub fn of_boot(words: &'a [OsString]) -> Result<Self> {
        let pipeline = Pipeline::of(words)?;
        if pipeline.before.is_empty() {
            let text = "expects two stages or more, separated by '|'";
            return Err(Usage(text.to_owned()).into());
        }
        Ok(pipeline)
    }

    /// Adds `variables` to the environment of each stage.
    pub fn with_environment(self, variables: &[(String, String)]) -> Self {
        let environment = variables.to_vec();
        Pipeline {
            environment,
            ..self
        }
    }

    /// Starts the stages in the room of `store`. This process executes the last one. The other
    /// stages are its siblings: all have the same parent. Returns only if a stage cannot start; the
    /// stages before it then get SIGPIPE.
    pub fn run(&self, tool: &Tool, store: &FdStore, cut: Cut) -> Error {
        let start = || {
            // A shell gives /dev/null to a command in the background too.
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
            let null = open("/dev/null", flags, Mode::empty()).context("open /dev/null")?;
            self.start_stage(tool, self.before[0], store, null, cut.printed)?;
            self.become_last(tool, &self.before[1..], store, cut.admitted)
        };
        match start() {
            Err(error) => error,
        }
    }

    /// Like [`Pipeline::run`], but the first stage reads the document from `input`.
    pub fn continue_from(&self, tool: &Tool, store: &FdStore, input: OwnedFd) -> Error {
        match self.become_last(tool, &self.before, store, input) {
            Err(error) => error,
        }
    }

    fn become_last(
        &self,
        tool: &Tool,
        before: &[&[OsString]],
        store: &FdStore,
        mut input: OwnedFd,
    ) -> Result<Infallible> {
        for stage in before {
            let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
            self.start_stage(tool, stage, store, input, writing)?;
            input = reading;
        }
        Err(self.become_stage(self.last, store, input.into(), Stdio::inherit()))
    }

    /// Starts a sibling of this process that executes a stage.
    fn start_stage(
        &self,
        tool: &Tool,
        words: &[OsString],
        store: &FdStore,
        input: OwnedFd,
        output: OwnedFd,
    ) -> Result<()> {
        spawn(CLONE_PARENT, None, || {
            tool.complain(&self.become_stage(words, store, input.into(), output.into()));
            1
        })
        .map(drop)
        .with_context(|| format!("start {}", words[0].to_string_lossy()))
    }

    fn become_stage(
        &self,
        words: &[OsString],
        store: &FdStore,
        input: Stdio,
        output: Stdio,
    ) -> Error {
        become_program(words, store, &self.environment, input, output)
    }
}
