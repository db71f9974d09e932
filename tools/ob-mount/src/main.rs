//! Mounts the root of a subhost: the second stage.
#![forbid(unsafe_code)]

mod alive;
mod api_fs;
mod claims;
mod contents;
mod dev;
mod holder;
mod hooks;
mod idmap;
mod layers;
mod ledger;
mod mounts;
mod octal;
mod overlay;
mod prepare;
mod propagate;
mod ranges;
mod readonly;
mod root;
mod running;
mod share;
mod shares;
mod steps;
mod subids;
mod unmount;

use anyhow::{Context, Result, bail};
use contents::{mount_api_fs_for_hook, mount_contents};
use idmap::Idmap;
use layers::Layers;
use lexopt::prelude::*;
use mounts::Mounts;
use ob_confine::protect::ReadOnly;
use ob_document::{Document, Hook, Tool, Usage, filter, log, one_line, undo};
use prepare::{count_pairs, is_prepared, prepare};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use unmount::{FACTS, unmount};

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
    // A umask of 077 would make /etc and /dev unusable for the users of the subhost.
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
            |document| running::share(document, &share.to_string_lossy()),
            |_| Ok(()),
        ),
        Some(("prepare", upper)) => prepare_for_hook(Path::new(upper)),
        Some((_, live)) => mount_api_fs_for_hook(Path::new(live), |warning| TOOL.warn(warning))
            .map(|()| ExitCode::SUCCESS),
    }
}

/// Writes etc/network/interfaces in `upper` for a hook, with CABLES of the environment.
fn prepare_for_hook(upper: &Path) -> Result<ExitCode> {
    let cables = std::env::var("CABLES").unwrap_or_default();
    prepare(upper, count_pairs(cables.split_whitespace()))
        .with_context(|| format!("prepare {}", upper.display()))
        .map(|()| ExitCode::SUCCESS)
}

/// Mounts the root and its contents, and notes them in the document. Checks the plan before it
/// changes anything. After a failure it unmounts what it has mounted.
fn mount(document: &mut Document) -> Result<()> {
    overlay::ensure_can_mount()?;
    document.forget(FACTS);
    let (layers, claims) = Layers::plan(document)?;
    hooks::check(document)?;
    shares::parse(document)?;
    let read_only = ReadOnly::of(document)?;
    log_warnings(document);
    claims.lock_for_subhost()?;
    alive::ensure_ended(&claims, document.path("LOWER")?)?;
    let writable = layers.writable_tree(document)?;
    let idmap = allocate_ids(document, &writable)?;

    if layers.needs_mount() {
        prepare_upper(document, read_only)?;
    }
    let live = document.path("LIVE")?.to_owned();
    let mut mounts = Mounts::default();
    if layers.mount(document.name(), &live, idmap.as_ref())? {
        mounts.push(&live);
    }
    document.set("root", document.text("LIVE")?.to_owned());
    let outcome = mount_on_root(document, &layers, read_only, idmap.as_ref(), &mut mounts);
    if outcome.is_ok() {
        log_mounts(document, &layers.describe(&live), &mounts);
    }
    mounts.note(document);
    if outcome.is_err() {
        let _ = unmount(document);
    }
    outcome
}

/// Logs the warnings of ob-conf, which has no log yet when it finds them.
fn log_warnings(document: &Document) {
    let ob_conf = Tool {
        name: "ob-conf",
        ..TOOL
    };
    for warning in document.list("warnings").unwrap_or_default() {
        log::append(&ob_conf, document, warning);
    }
}

/// Allocates the ids of a subhost with a user namespace, and logs warnings.
fn allocate_ids(document: &mut Document, writable: &Path) -> Result<Option<Idmap>> {
    let mut warnings = Vec::new();
    let idmap = Idmap::allocate(document, writable, &mut warnings);
    for warning in warnings {
        note(document, &warning);
    }
    idmap
}

/// Runs PREMOUNT, or else writes etc/network/interfaces in UPPER. With READONLY=volatile the latter
/// is done in memory, by [`mount_volatile_layer`].
fn prepare_upper(document: &Document, read_only: ReadOnly) -> Result<()> {
    let upper = document.path("UPPER")?;
    match Hook::of(document, "PREMOUNT") {
        Some(hook) => hooks::run(document, &hook, "PREMOUNT", &[upper], |warning| {
            note(document, warning);
        })?,
        None if read_only == ReadOnly::Volatile => {}
        None => try_prepare(document, upper),
    }
    Ok(())
}

/// Writes etc/network/interfaces. Only logs a failure: if UPPER is unusable, the mount fails and
/// reports the reason.
fn try_prepare(document: &Document, upper: &Path) {
    let pairs = count_pairs(document.list("CABLES").unwrap_or_default());
    if let Err(error) = prepare(upper, pairs) {
        let error = error.context(format!("prepare {}", upper.display()));
        note(document, &one_line(&error));
    }
}

/// Mounts the contents of the root, and does what READONLY asks for. Adds each mount to `mounts`,
/// also if a later mount fails.
fn mount_on_root(
    document: &Document,
    layers: &Layers,
    read_only: ReadOnly,
    idmap: Option<&Idmap>,
    mounts: &mut Mounts,
) -> Result<()> {
    let live = document.path("LIVE")?;
    if read_only == ReadOnly::Volatile {
        mount_volatile_layer(document, live, idmap).context("READONLY=volatile")?;
        mounts.push(live);
    }
    let mut points: Vec<PathBuf> = Vec::new();
    let outcome = mount_contents(document, idmap, &mut points, |warning| {
        note(document, warning);
    });
    points.iter().for_each(|point| mounts.push(point));
    outcome?;
    if read_only == ReadOnly::Yes
        && readonly::make_read_only(live, layers.needs_mount()).context("READONLY=yes")?
    {
        mounts.push(live);
    }
    Ok(())
}

/// Mounts a layer in memory on the root, and writes etc/network/interfaces there, if neither UPPER
/// nor a PREMOUNT provides it.
fn mount_volatile_layer(document: &Document, live: &Path, idmap: Option<&Idmap>) -> Result<()> {
    let is_wanted = !document.has("PREMOUNT") && !is_prepared(document.path("UPPER")?);
    readonly::make_volatile(document.name(), live, idmap, |memory| {
        if is_wanted {
            try_prepare(document, memory);
        }
    })
}

fn log_mounts(document: &Document, root: &str, mounts: &Mounts) {
    note(document, &format!("{root} is the root"));
    for point in mounts.points() {
        log::trace(&TOOL, document, &format!("mounted {point}"));
    }
}

fn note(document: &Document, text: &str) {
    log::append(&TOOL, document, text);
}
