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
    first: &'a [OsString],
    middle: Vec<&'a [OsString]>,
    last: &'a [OsString],
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
    /// Parses the stages in `words`, separated by `|`. A [`Usage`] error if one is empty or there
    /// are fewer than two: the first prints the document for the next stages.
    pub fn of(words: &'a [OsString]) -> Result<Self> {
        let stages: Vec<_> = words.split(|word| word == BAR).collect();
        let usage = |text: &str| Usage(text.to_owned());
        if stages.iter().any(|stage| stage.is_empty()) {
            return Err(usage("a stage of the pipeline is empty").into());
        }
        match stages.as_slice() {
            [first, middle @ .., last] => Ok(Pipeline {
                first,
                middle: middle.to_vec(),
                last,
            }),
            _ => Err(usage("expects two stages or more, separated by '|'").into()),
        }
    }

    /// Starts the stages in the room of `store`. This process executes the last one. The other
    /// stages are its siblings: all have the same parent. Returns only if a stage cannot start; the
    /// stages before it then get SIGPIPE.
    pub fn run(&self, tool: &Tool, store: &FdStore, cut: Cut) -> Error {
        match self.start(tool, store, cut) {
            Err(error) => error,
        }
    }

    fn start(&self, tool: &Tool, store: &FdStore, cut: Cut) -> Result<Infallible> {
        // A shell gives /dev/null to a command in the background too.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let null = open("/dev/null", flags, Mode::empty()).context("open /dev/null")?;
        start_stage(tool, self.first, store, null, cut.printed)?;
        let mut input = cut.admitted;
        for stage in &self.middle {
            let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
            start_stage(tool, stage, store, input, writing)?;
            input = reading;
        }
        let output = Stdio::inherit();
        Err(become_program(self.last, store, input.into(), output))
    }
}

/// Starts a sibling of this process that executes a stage.
fn start_stage(
    tool: &Tool,
    words: &[OsString],
    store: &FdStore,
    input: OwnedFd,
    output: OwnedFd,
) -> Result<()> {
    spawn(CLONE_PARENT, None, || {
        tool.complain(&become_program(words, store, input.into(), output.into()));
        1
    })
    .map(drop)
    .with_context(|| format!("start {}", words[0].to_string_lossy()))
}
