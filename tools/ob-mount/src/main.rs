//! Mounts the root of a subhost: the second stage.
#![forbid(unsafe_code)]

mod alive;
mod claims;
mod furnish;
mod holder;
mod layers;
mod mapped;
mod octal;
mod prepare;
mod propagate;
mod ranges;
mod readonly;
mod root;
mod share;
mod steps;
mod unmount;

use anyhow::{Context, Result, bail};
use layers::Layers;
use lexopt::prelude::*;
use mapped::Mapped;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use ob_confine::protect::ReadOnly;
use ob_confine::userns::{IdRange, UsernsSetting};
use ob_document::{Document, Hook, Tool, Usage, filter, log, undo};
use ob_sys::identity::set_fs_ids;
use ob_sys::process::set_cloexec_from;
use root::Root;
use share::{Outcome, Share};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use unmount::{FACTS, mount_id, unmount};

const TOOL: Tool = Tool {
    name: "ob-mount",
    help: "\
Usage: ob-mount [--undo|--dry-run]           a stage: document in, document out
       ob-mount --share DIR[:DEST[:ro]]      in a running subhost (on stdin)
       ob-mount --prepare UPPER              do the default work of PREMOUNT
       ob-mount --furnish LIVE               do the default work of POSTMOUNT

Mounts the root of a subhost on LIVE: an overlay of UPPER on LOWER, a bind mount
if both are the same, or nothing; then /dev, /run and the shares. Runs the
hooks. Adds the facts root, mounts and mountids.

      --undo      unmount the mounts in the documents on stdin
  -n, --dry-run   mount nothing; check, and add the commands as the fact steps
      --share     mount a directory or file of the host in a running subhost
      --prepare   create etc/network/interfaces, unless UPPER has it
      --furnish   mount /dev and /run (size of /run: $RAM_SIZE)
  -h, --help      print this
  -V, --version   print the version

Examples:
  ob-conf mta.conf | ob-mount && chroot /opt/mta/live
  ob-mount --share /srv/mail:/mail:ro </run/overlay-boot/mta/subhost
",
    failed: 1,
};

fn main() -> ExitCode {
    TOOL.main(run)
}

fn run(tool: &Tool, mut parser: lexopt::Parser) -> Result<ExitCode> {
    // Directories that the caller's umask would close to others are the subhost's /etc and /dev.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let (mut undoing, mut dry) = (false, false);
    let mut other: Option<(&str, OsString)> = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("undo") => undoing = true,
            Short('n') | Long("dry-run") => dry = true,
            Long("share") => other = Some(("share", parser.value()?)),
            Long("prepare") => other = Some(("prepare", parser.value()?)),
            Long("furnish") => other = Some(("furnish", parser.value()?)),
            arg => return Err(tool.common(&arg)),
        }
    }
    match &other {
        _ if dry && (undoing || other.is_some()) => {
            bail!(Usage("--dry-run goes alone".to_owned()))
        }
        None if dry => ob_document::steps::plan(steps::describe),
        None if undoing => undo(tool, unmount),
        None => filter(tool, mount, unmount),
        Some(_) if undoing => bail!(Usage("--undo goes alone".to_owned())),
        Some(("share", share)) => filter(
            tool,
            |document| share::into_running(document, &share.to_string_lossy()),
            |_| Ok(()),
        ),
        Some(("prepare", upper)) => prepare::prepare(Path::new(&upper), cables())
            .with_context(|| format!("prepare {}", upper.display()))
            .map(|()| ExitCode::SUCCESS),
        Some((_, live)) => furnish_alone(Path::new(&live)),
    }
}

/// The stage: checks all it can before anything is made, then makes the root and what lies on it, from below upwards.
fn mount(document: &mut Document) -> Result<()> {
    document.forget(FACTS);
    let (layers, claims) = Layers::plan(document)?;
    for hook in ["PREMOUNT", "POSTMOUNT", "INIT"] {
        if let Some(command) = Hook::of(document, hook) {
            command.check().context(hook)?;
        }
    }
    shares(document)?;
    let read_only = ReadOnly::of(document)?;
    for warning in document.list("warnings").unwrap_or_default() {
        log::append(
            &Tool {
                name: "ob-conf",
                ..TOOL
            },
            document,
            warning,
        );
    }
    claims.keep()?;
    alive::ensure_ended(&claims, document.path("LOWER")?)?;
    let mapped = Mapped::of(document, &layers)?;

    let upper = document.path("UPPER")?.to_owned();
    if layers.are_mounted_here() {
        match Hook::of(document, "PREMOUNT") {
            Some(hook) => run_hook(document, &hook, "PREMOUNT", &[&upper])?,
            None if read_only == ReadOnly::Volatile => {} // what is made there is to be forgotten, too
            None => tolerate(document, prepare::prepare(&upper, pairs(document)), &upper),
        }
    }

    let live = document.path("LIVE")?.to_owned();
    let mut mounts = Vec::new();
    // As each is seen before the next one lies on it.
    let mut ids = Vec::new();
    let mut identify = |mounts: &[PathBuf]| {
        let new = &mounts[ids.len()..];
        ids.extend(new.iter().map(|path| mount_id(path)));
    };
    if layers.mount(document.name(), &live, mapped.as_ref())? {
        mounts.push(live.clone());
        identify(&mounts);
    }
    document.set("root", document.text("LIVE")?.to_owned());
    let outcome = (|| {
        if read_only == ReadOnly::Volatile {
            forget(document, &live, &upper, mapped.as_ref()).context("READONLY=volatile")?;
            mounts.push(live.clone());
            identify(&mounts);
        }
        let dressed = dress(document, &live, &upper, mapped.as_ref(), &mut mounts);
        identify(&mounts);
        dressed?;
        if read_only == ReadOnly::Yes
            && readonly::make_read_only(&live, layers.are_mounted_here()).context("READONLY=yes")?
        {
            mounts.push(live.clone());
            identify(&mounts);
        }
        Ok(())
    })();
    let list: Vec<String> = mounts
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if outcome.is_ok() {
        log::append(
            &TOOL,
            document,
            &format!("{} is the root", layers.in_words(&live)),
        );
        for mount in &list {
            log::trace(&TOOL, document, &format!("mounted {mount}"));
        }
    }
    document.set("mounts", list);
    document.set("mountids", ids);
    if outcome.is_err() {
        let _ = unmount(document);
    }
    outcome
}

/// What lies on the root: the devices or what POSTMOUNT makes of them, then the shares.
fn dress(
    document: &Document,
    live: &Path,
    upper: &Path,
    mapped: Option<&Mapped>,
    mounts: &mut Vec<PathBuf>,
) -> Result<()> {
    let root = Root::open(live)?;
    if mapped.is_some() {
        // The log is the host's: made before we make files as root inside.
        drop(log::open(document.path("LOG")?)?);
    }
    let _acting = mapped.map(Mapped::act_as_root).transpose()?;
    match Hook::of(document, "POSTMOUNT") {
        Some(hook) => run_hook(document, &hook, "POSTMOUNT", &[live, upper])?,
        None => {
            let size = document.optional("RAM_SIZE").unwrap_or("50M");
            mounts.extend(furnish::furnish(
                &root,
                size,
                mapped.map(|mapped| mapped.ids),
                |trouble| note(document, trouble),
            )?);
        }
    }
    if document.has("INIT") {
        // A script of one's own may name it, as it could with the shell scripts that these tools come from.
        if let Err(error) = furnish::provide_reaper(&root) {
            note(
                document,
                &format!("/.reaper: {}", ob_document::one_line(&error)),
            );
        }
    }
    let lower = document.path("LOWER").ok();
    for (share, parsed) in shares(document)? {
        match parsed.mount(&root, lower, mapped)? {
            Outcome::Mounted(path) => mounts.push(path),
            Outcome::IsLower => {}
            Outcome::Missing => note(
                document,
                &format!("SHARE={share}: there is no such file on the host; not shared"),
            ),
        }
    }
    log_absent_masks(document, &root)
}

/// Logs which paths of MASK are not there. The file that was meant may have another name: root inside
/// can rename the directories above it.
fn log_absent_masks(document: &Document, root: &Root) -> Result<()> {
    for path in document.list("MASK")? {
        // Mounted later, by ob-unshare.
        let is_of_kernel = ["/proc", "/sys"]
            .iter()
            .any(|of| Path::new(path).starts_with(of));
        let found = root.find(Path::new(path), OFlag::O_PATH);
        if !is_of_kernel && matches!(found, Err(Errno::ENOENT | Errno::ENOTDIR)) {
            note(
                document,
                &format!(
                    "MASK={path}: there is no such file, so nothing is covered; was it renamed?"
                ),
            );
        }
    }
    Ok(())
}

/// What is shared, each with its text in the plan.
fn shares(document: &Document) -> Result<Vec<(&str, Share)>> {
    let writable = document.list("SHARE")?.into_iter();
    let writable = writable.map(|share| Ok((share, Share::parse(share)?)));
    let read_only = document.list("SHARE_RO")?.into_iter();
    let read_only = read_only.map(|share| Ok((share, Share::parse_read_only(share)?)));
    writable.chain(read_only).collect()
}

/// Has memory take what is written to the root. What is made before a mount is made there as well, if UPPER has it not.
fn forget(document: &Document, live: &Path, upper: &Path, mapped: Option<&Mapped>) -> Result<()> {
    let wanted = !document.has("PREMOUNT") && !readonly::is_prepared(upper);
    readonly::make_volatile(document.name(), live, mapped, |memory| {
        if wanted {
            tolerate(document, prepare::prepare(memory, pairs(document)), memory);
        }
    })
}

/// Runs a hook with its output in the log. Its status is only told there: hooks that end in a failed test boot today.
fn run_hook(document: &Document, hook: &Hook, name: &str, arguments: &[&Path]) -> Result<()> {
    let log = log::open(document.path("LOG")?)?;
    set_cloexec_from(3)?;
    let mut hook = hook.with_plan(document, arguments);
    if let Some(ids) = IdRange::of(document)? {
        hook.env("USERNS", ids.to_string()); // which it is, where the plan only says auto
    }
    let status = hook
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .status()
        .with_context(|| format!("run {name}"))?;
    if !status.success() {
        note(document, &format!("{name} ended with {status}"));
    }
    Ok(())
}

/// An UPPER that cannot be written to may still boot: whether it can is for the mount to say.
fn tolerate(document: &Document, outcome: Result<()>, upper: &Path) {
    if let Err(error) = outcome {
        let error = error.context(format!("prepare {}", upper.display()));
        note(document, &ob_document::one_line(&error));
    }
}

/// Tells the log, where there is one.
fn note(document: &Document, text: &str) {
    let log: Result<File> = document.path("LOG").and_then(log::open);
    if let Ok(mut log) = log {
        log::line(&mut log, &format!("{}: {text}", TOOL.name));
    }
}

/// How many links eth0, eth1… there will be inside.
fn pairs(document: &Document) -> usize {
    let words = document.list("CABLES").unwrap_or_default();
    words.iter().filter(|word| !word.contains("=.")).count()
}

/// The same for a hook that calls us by hand, with the plan in the environment.
fn cables() -> usize {
    let cables = std::env::var("CABLES").unwrap_or_default();
    cables
        .split_whitespace()
        .filter(|word| !word.contains("=."))
        .count()
}

fn furnish_alone(live: &Path) -> Result<ExitCode> {
    let size = std::env::var("RAM_SIZE").unwrap_or_else(|_| "50M".to_owned());
    let wish =
        std::env::var("USERNS").map_or(Ok(UsernsSetting::No), |text| UsernsSetting::parse(&text));
    let ids = match wish.context("USERNS")? {
        UsernsSetting::Range(ids) => Some(ids),
        _ => None,
    };
    let root = Root::open(live)?;
    let acting = ids.map(|ids| set_fs_ids(ids.user(0), ids.group(0)));
    let _acting = acting.transpose().context("act as root inside")?;
    furnish::furnish(&root, &size, ids, |trouble| {
        TOOL.warn(trouble);
    })
    .with_context(|| format!("furnish {}", live.display()))?;
    Ok(ExitCode::SUCCESS)
}
