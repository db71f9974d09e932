//! What pid 1 is to do, and the reaper that it becomes.

use anyhow::{Context, Result, ensure};
use ob_document::{Document, Hook, log, quote};
use ob_sys::memfd::seal;
use ob_sys::process::set_cloexec_from;
use std::os::fd::OwnedFd;
use std::process::Stdio;

/// What the subhost's shell runs where there is no INIT; scripts/subhost-init tells its story.
const DEFAULT: &str = include_str!("../../../scripts/subhost-init");

/// The number under which pid 1 finds the reaper.
pub const REAPER_FD: i32 = 9;

/// The longest text: the kernel takes no longer word on a command line.
const LONGEST: usize = 128 * 1024 - 1;

/// How pid 1 reaches the reaper: the path that the caller's REAPER names inside, or a descriptor of our own.
pub struct Reaper {
    /// What to exec.
    pub path: String,
    /// The sealed copy behind it.
    pub copy: Option<OwnedFd>,
}

impl Reaper {
    /// Takes what the environment names, or makes a sealed copy of ob-reaper in memory: no file is needed in the root, nothing
    /// of the host can be reached through `/proc/1/exe`, and nobody inside can change it.
    pub fn provide() -> Result<Self> {
        if let Some(path) = std::env::var("REAPER").ok().filter(|path| !path.is_empty()) {
            return Ok(Reaper { path, copy: None });
        }
        let program = std::env::current_exe()?.with_file_name("ob-reaper");
        let copy = std::fs::read(&program)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Ok(seal(c"ob-reaper", &bytes)?))
            .with_context(|| format!("copy {}", program.display()))?;
        Ok(Reaper {
            path: format!("/proc/self/fd/{REAPER_FD}"),
            copy: Some(copy),
        })
    }
}

/// What pid 1 is to do: what INIT prints, or the default.
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

/// The default for the hook overlay-init, which is told of the subhost by its environment.
pub fn default_text_of_environment() -> String {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let reaper = Some(variable("REAPER")).filter(|path| !path.is_empty());
    let reaper = reaper.unwrap_or_else(|| format!("/proc/self/fd/{REAPER_FD}"));
    let timeout = digits(&variable("STOP_TIMEOUT"));
    default_text(&variable("NAME"), &variable("START"), &timeout, &reaper)
}
