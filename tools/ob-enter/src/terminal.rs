//! The caller's terminal, and the pair that stands for it inside.

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::termios::{
    LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr,
    tcsetattr,
};
use nix::unistd::{getpgrp, tcgetpgrp};
use ob_sys::terminal::{open_peer, resize, size};
use std::os::fd::{AsRawFd, OwnedFd};

/// Both terminals.
pub struct Terminal {
    /// The caller's, opened anew: a flag that we set is not set for the caller's shell.
    pub host: OwnedFd,
    /// The side of the pair that is ours.
    pub master: OwnedFd,
    /// The other one. We keep it open, so that the command may close it and open it again.
    pub peer: OwnedFd,
    /// Whether keys are read from it.
    pub is_input: bool,
    /// Whether the command has the terminal to itself: every key is its own. Else it is one of several in a pipeline, such as
    /// `ob-enter mta ls | less`, and we leave the terminal's mode to the others.
    pub is_whole: bool,
    /// The mode that we found.
    found: Termios,
    /// Whether it is changed.
    is_raw: bool,
}

impl Terminal {
    /// Takes `master`, and the caller's terminal as [`reopen`] returns it. The pair begins with its
    /// size and mode.
    pub fn new(host: OwnedFd, is_terminal: [bool; 3], master: OwnedFd) -> Result<Self> {
        let peer = open_peer(&master).context("open its terminal")?;
        super::streams::unblock(&master)?;
        let found = tcgetattr(&host).context("read the mode of the terminal")?;
        let [is_input, is_output, _] = is_terminal;
        let is_whole = is_input && is_output;
        let mut mode = found.clone();
        if !is_whole {
            // The caller's terminal does these two.
            mode.local_flags -= LocalFlags::ECHO;
            mode.output_flags -= OutputFlags::OPOST;
        }
        tcsetattr(&peer, SetArg::TCSANOW, &mode).context("set the mode of its terminal")?;
        let terminal = Terminal {
            host,
            master,
            peer,
            is_input,
            is_whole,
            found,
            is_raw: false,
        };
        terminal.resize();
        Ok(terminal)
    }

    /// Has every key come to us as it is, if the terminal is ours to rule. In the background it is not; we are told (CONT) when
    /// that changes.
    pub fn take(&mut self) {
        if self.is_whole && !self.is_raw && self.is_in_foreground() {
            let mut raw = self.found.clone();
            cfmakeraw(&mut raw);
            self.is_raw = tcsetattr(&self.host, SetArg::TCSANOW, &raw).is_ok();
        }
    }

    /// Gives the terminal the mode back that it had.
    pub fn restore(&mut self) {
        if self.is_raw {
            let _ = tcsetattr(&self.host, SetArg::TCSANOW, &self.found);
            self.is_raw = false;
        }
    }

    /// The same after others had the terminal, and may have left another mode. In the background what we see is theirs still.
    pub fn take_again(&mut self) {
        if self.is_in_foreground()
            && let Ok(found) = tcgetattr(&self.host)
            && found.local_flags.contains(LocalFlags::ICANON)
        {
            self.found = found;
            self.is_raw = false;
        }
        self.take();
        self.resize();
    }

    /// Gives the pair the size of the caller's window.
    pub fn resize(&self) {
        if let Ok(size) = size(&self.host) {
            let _ = resize(&self.master, &size);
        }
    }

    /// Whether what is typed now is for us: not while we are in the background, and not while another in the pipeline has the
    /// terminal in a mode of its own, as a pager has.
    pub fn is_ours_to_read(&self) -> bool {
        let ours = || {
            let mode = tcgetattr(&self.host);
            mode.is_ok_and(|mode| mode.local_flags.contains(LocalFlags::ICANON))
        };
        self.is_in_foreground() && (self.is_raw || ours())
    }

    /// What to send for an end of file that was typed.
    pub fn end_of_file(&self) -> u8 {
        self.found.control_chars[SpecialCharacterIndices::VEOF as usize]
    }

    /// A terminal that does not control our session knows no background.
    fn is_in_foreground(&self) -> bool {
        tcgetpgrp(&self.host).map_or(true, |group| group == getpgrp())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Opens the caller's terminal anew, with flags of its own. By the host's /proc: in that of the subhost `self` may be anything.
///
/// Where it cannot be opened anew, a duplicate will do: then a write may have to wait for the window.
pub fn reopen(terminal: &OwnedFd) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", terminal.as_raw_fd());
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    match open(path.as_str(), flags, Mode::empty()) {
        Ok(opened) => Ok(opened),
        Err(_) => Ok(terminal.try_clone()?),
    }
}
