//! The script of pid 1, and the reaper that it executes.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use ob_document::{Document, Hook, log, quote};
use ob_sys::memfd::seal;
use ob_sys::process::set_cloexec_from;
use std::os::fd::OwnedFd;
use std::process::Stdio;

/// The script of pid 1 if the configuration has no INIT; scripts/subhost-init explains it.
const DEFAULT: &str = include_str!("../../../scripts/subhost-init");

/// The descriptor of the reaper in pid 1.
pub const REAPER_FD: i32 = 9;

/// The longest script: MAX_ARG_STRLEN of execve(2), without the zero byte.
const LONGEST: usize = 128 * 1024 - 1;

/// The reaper of a subhost: a path inside, or a descriptor.
pub struct Reaper {
    /// The path to execute.
    pub path: String,
    /// The sealed memfd that `path` refers to, if it is a descriptor.
    pub copy: Option<OwnedFd>,
}

impl Reaper {
    /// Returns the path in the variable REAPER, or copies ob-reaper to a sealed memfd.
    ///
    /// The root needs no file, `/proc/1/exe` leads to no file of the host, and no process inside
    /// can change the memfd.
    pub fn provide() -> Result<Self> {
        if let Some(path) = std::env::var("REAPER").ok().filter(|path| !path.is_empty()) {
            return Ok(Reaper { path, copy: None });
        }
        let program = std::env::current_exe()?.with_file_name("ob-reaper");
        let copy = std::fs::read(&program)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| match seal(c"ob-reaper", &bytes) {
                Err(Errno::EACCES) => bail!("set the sysctl vm.memfd_noexec to 0 or 1"),
                copy => Ok(copy?),
            })
            .with_context(|| format!("copy {}", program.display()))?;
        Ok(Reaper {
            path: format!("/proc/self/fd/{REAPER_FD}"),
            copy: Some(copy),
        })
    }
}

/// Returns the script of pid 1: the output of INIT, or the default.
pub fn text(document: &Document, reaper: &str) -> Result<String> {
    let Some(hook) = Hook::of(document, "INIT") else {
        let start = document.list("START")?.join(" ");
        let timeout = stop_timeout(document);
        return Ok(default_text(document.name(), &start, &timeout, reaper));
    };
    hook.check().context("INIT")?;
    let errors = log::open(document.path("LOG")?)?;
    set_cloexec_from(3)?;
    let output = hook
        .with_plan(document, None::<&str>)
        .stderr(Stdio::from(errors))
        .output()
        .context("run INIT")?;
    let text = String::from_utf8(output.stdout).context("what INIT printed is not UTF-8")?;
    ensure!(
        !text.trim().is_empty(),
        "INIT printed nothing for pid 1 to do"
    );
    ensure!(
        text.len() <= LONGEST && !text.contains('\0'),
        "INIT printed more than {LONGEST} bytes, or a zero byte"
    );
    Ok(text)
}

/// Returns STOP_TIMEOUT in the digits that the reaper reads, or nothing: the reaper has a default.
pub fn stop_timeout(document: &Document) -> String {
    digits(document.optional("STOP_TIMEOUT").unwrap_or_default())
}

fn digits(number: &str) -> String {
    number
        .parse::<u32>()
        .map_or_else(|_| String::new(), |number| number.to_string())
}

fn default_text(name: &str, start: &str, stop_timeout: &str, reaper: &str) -> String {
    let (name, start, reaper) = (quote(name), quote(start), quote(reaper));
    format!("NAME={name}\nSTART={start}\nSTOP_TIMEOUT={stop_timeout}\nREAPER={reaper}\n{DEFAULT}")
}

/// Returns the default script for the hook overlay-init, which has the variables of the subhost in
/// its environment.
pub fn default_text_of_environment() -> String {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let reaper = Some(variable("REAPER")).filter(|path| !path.is_empty());
    let reaper = reaper.unwrap_or_else(|| format!("/proc/self/fd/{REAPER_FD}"));
    let timeout = digits(&variable("STOP_TIMEOUT"));
    default_text(&variable("NAME"), &variable("START"), &timeout, &reaper)
}
