//! ifupdown, interfaces(5): if it is installed, it configures the cables without a bridge.

use crate::links::Links;
use crate::netlink::Link;
use crate::{TOOL, trace};
use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, access};
use ob_document::{Document, log};
use ob_sys::process::{pidfd_open, set_cloexec_from};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The state file of ifupdown: a line `LINK=STANZA` for each link that is up.
const STATE: &str = "/run/network/ifstate";
/// How long the `down` commands may take.
const IFDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The links that ifupdown has brought up, according to its state file.
pub struct State(Vec<String>);

impl State {
    /// Reads the state file. If it cannot be read, no link is up.
    #[must_use]
    pub fn read() -> Self {
        let notes = fs::read_to_string(STATE).unwrap_or_default();
        State::parse(&notes)
    }

    fn parse(notes: &str) -> Self {
        let links = notes.lines().filter_map(|line| line.split_once('='));
        State(links.map(|(link, _)| link.trim().to_owned()).collect())
    }

    /// Whether `link` is up.
    #[must_use]
    pub fn has(&self, link: &str) -> bool {
        self.0.iter().any(|up| up == link)
    }

    /// Returns `link` and the VLANs on it as far as they are up, the VLANs first.
    #[must_use]
    pub fn of(&self, link: &str) -> Vec<&str> {
        let is_vlan = |up: &str| {
            let rest = up.strip_prefix(link);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        let vlans = self.0.iter().filter(|up| is_vlan(up));
        let itself = self.0.iter().filter(|up| *up == link);
        vlans.chain(itself).map(String::as_str).collect()
    }
}

/// Finds `ifup` on PATH, in /usr/sbin or in /sbin.
#[must_use]
pub fn ifup() -> Option<PathBuf> {
    find("ifup")
}

/// Finds `ifdown` on PATH, in /usr/sbin or in /sbin.
#[must_use]
pub fn ifdown() -> Option<PathBuf> {
    find("ifdown")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|path| path.is_file() && access(path, AccessFlags::X_OK).is_ok())
}

/// Starts `ifup` or `ifdown`. Its output goes to the log of the subhost, or to standard error if
/// the subhost has no log.
pub fn start(program: &Path, arguments: &[&str], document: &Document) -> io::Result<Child> {
    set_cloexec_from(3)?;
    let (output, errors) = outlets(document)?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
}

fn outlets(document: &Document) -> io::Result<(Stdio, Stdio)> {
    if let Some(log) = log_of(document) {
        return Ok((log.try_clone()?.into(), log.into()));
    }
    let stderr = || io::stderr().as_fd().try_clone_to_owned();
    Ok((stderr()?.into(), stderr()?.into()))
}

fn log_of(document: &Document) -> Option<File> {
    log::open(document.path("LOG").ok()?).ok()
}

/// Waits for a child until `end`, then kills it. Returns its exit status.
pub fn wait(child: &mut Child, end: Instant) -> io::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let pidfd = pidfd_open(nix::unistd::Pid::from_raw(pid))?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            child.kill()?;
            return child.wait();
        }
        let left = PollTimeout::try_from(left + Duration::from_millis(1));
        let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ended, left.unwrap_or(PollTimeout::MAX)) == Ok(1) {
            return child.wait();
        }
    }
}

/// Runs `ifup` or `ifdown` and returns whether it succeeded. A failure is logged, and does not stop
/// the boot: interfaces(5) need not have a stanza for the link.
pub(crate) fn run(program: &Path, arguments: &[&str], document: &Document) -> bool {
    let ended = start(program, arguments, document).and_then(|mut child| child.wait());
    let command = format!("{} {}", program.display(), arguments.join(" "));
    let failure = match ended {
        Ok(status) if status.success() => {
            trace(document, &format!("ran {command}"));
            return true;
        }
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let text = format!(
        "{command}: {failure}, as when interfaces(5) has no stanza for it; going on without"
    );
    log::append(&TOOL, document, &text);
    false
}

/// Runs `ifdown -f` on a link that does not exist but is up according to ifupdown: `ifup` would do
/// nothing with it.
///
/// # Errors
/// The link cannot be looked up.
pub(crate) fn forget_stale(link: &str, host: &mut Links, document: &Document) -> Result<()> {
    if !State::read().has(link) || host.find(link)?.is_some() {
        return Ok(());
    }
    if let Some(ifdown) = ifdown() {
        run(&ifdown, &["-f", link], document);
    }
    Ok(())
}

/// Runs `ifdown` on the links of all subhosts, and on their VLANs, that are up according to
/// ifupdown. Failures are logged.
pub(crate) fn bring_down(subhosts: &[(&Document, &[Link])]) {
    if subhosts.iter().all(|(_, links)| links.is_empty()) {
        return;
    }
    let state = State::read();
    let up = subhosts.iter().flat_map(|(document, links)| {
        let names = links.iter().flat_map(|link| state.of(&link.name));
        names.map(move |name| (*document, name))
    });
    let is_pair = |name: &str| {
        let mut all = subhosts.iter().flat_map(|(_, links)| *links);
        all.any(|link| link.name == name)
    };
    let (pairs, vlans): (Vec<_>, Vec<_>) = up.partition(|(_, name)| is_pair(name));
    let end = Instant::now() + IFDOWN_TIMEOUT;
    for batch in [vlans, pairs] {
        run_ifdown(&batch, end);
    }
}

/// Runs `ifdown` on all links of `batch` at the same time, until `end`.
fn run_ifdown(batch: &[(&Document, &str)], end: Instant) {
    if batch.is_empty() {
        return;
    }
    let Some(ifdown) = ifdown() else {
        return;
    };
    let start = |(document, link): &(&Document, &str)| start(&ifdown, &[link], document);
    // All are started before the first wait.
    let children: Vec<_> = batch.iter().map(start).collect();
    for ((document, link), child) in batch.iter().zip(children) {
        match child.and_then(|mut child| wait(&mut child, end)) {
            Ok(status) if status.success() => {
                trace(document, &format!("ran {} {link}", ifdown.display()));
            }
            Ok(status) => log::append(&TOOL, document, &format!("ifdown {link}: {status}")),
            Err(error) => log::append(&TOOL, document, &format!("ifdown {link}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_go_down_before_their_parents() {
        let state = State::parse("lo=lo\nmta0=mta0\nmta0.7=x\nmta01=mta01\nmta0.8=mta0.8\n");
        assert_eq!(state.of("mta0"), ["mta0.7", "mta0.8", "mta0"]);
        assert_eq!(state.of("mta"), [""; 0]);
        assert!(state.has("mta0.7") && !state.has("mta"));
    }

    #[test]
    fn hanging_child_is_killed() {
        let document = Document::new("x").unwrap();
        let mut child = start(Path::new("/bin/sleep"), &["60"], &document).unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(!wait(&mut child, soon).unwrap().success());
        let mut child = start(Path::new("/bin/true"), &[], &document).unwrap();
        let late = Instant::now() + Duration::from_secs(60);
        assert!(wait(&mut child, late).unwrap().success());
    }
}
