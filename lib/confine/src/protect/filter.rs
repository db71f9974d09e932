//! The system call filter that SECCOMP selects, and its file in the state directory.

use crate::seccomp::Filters;
use anyhow::{Context, Result, ensure};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use ob_sys::credentials::Capabilities;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The value of SECCOMP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seccomp {
    /// No filter.
    None,
    /// The default profile for the capabilities that are kept.
    Default,
    /// The profile in this file.
    Profile(PathBuf),
}

impl Seccomp {
    /// Parses `none`, `default` or a path.
    pub(super) fn parse(value: &str) -> Self {
        match value {
            "none" => Seccomp::None,
            "default" => Seccomp::Default,
            path => Seccomp::Profile(path.into()),
        }
    }

    /// Compiles the filters for a process that keeps these capabilities; none if there is no
    /// filter.
    ///
    /// # Errors
    /// The profile cannot be read, or is invalid.
    pub(super) fn compile(&self, kept: Capabilities) -> Result<Option<Filters>> {
        let filters = match self {
            Seccomp::None => return Ok(None),
            Seccomp::Default => Filters::default_for(kept).context("SECCOMP=default")?,
            Seccomp::Profile(path) => {
                let json = std::fs::read_to_string(path).map_err(anyhow::Error::from);
                json.and_then(|json| Filters::of_profile(&json, kept))
                    .with_context(|| format!("SECCOMP={}", path.display()))?
            }
        };
        Ok(Some(filters))
    }
}

/// Reads the filters from a file that no other user can have written.
///
/// # Errors
/// The file is missing or truncated, or another user can write to it.
pub(super) fn read(path: &Path) -> Result<Filters> {
    let bytes = read_own(path).and_then(|bytes| Filters::from_bytes(&bytes));
    bytes.with_context(|| format!("read {}", path.display()))
}

fn read_own(path: &Path) -> Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut file = File::from(open(path, flags, Mode::empty())?);
    let status = file.metadata()?;
    ensure!(
        status.is_file() && status.uid() == geteuid().as_raw() && status.mode() & 0o022 == 0,
        "it is not a regular file that only root can write"
    );
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
