//! ifupdown, interfaces(5): the cables without a bridge are its affair where it is installed.

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

/// What ifupdown notes of the links that are up, `LINK=STANZA`, one a line.
const STATE: &str = "/run/network/ifstate";

/// The links that ifupdown has brought up, by its own notes.
pub struct State(Vec<String>);

impl State {
    /// Reads the notes; without notes nothing is up.
    #[must_use]
    pub fn read() -> Self {
        let notes = fs::read_to_string(STATE).unwrap_or_default();
        State::parse(&notes)
    }

    fn parse(notes: &str) -> Self {
        let links = notes.lines().filter_map(|line| line.split_once('='));
        State(links.map(|(link, _)| link.trim().to_owned()).collect())
    }

    /// Whether `link` is noted as up.
    #[must_use]
    pub fn has(&self, link: &str) -> bool {
        self.0.iter().any(|up| up == link)
    }

    /// Those that are noted as up of `link` and the VLANs on it, the VLANs first.
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

/// Where `ifup` is: on PATH, or where administrators' programs are.
#[must_use]
pub fn ifup() -> Option<PathBuf> {
    find("ifup")
}

/// The same for `ifdown`.
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

/// Starts one of the two on a link. What it says goes to the log of the subhost, or to our stderr if that has none.
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

/// Waits for a child, and kills it when the time is over.
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
