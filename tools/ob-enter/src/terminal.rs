//! The terminal of the caller, and the pseudoterminal of the command.

use crate::descriptor::set_nonblocking;
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
    /// The terminal of the caller, reopened: O_NONBLOCK must not be set for the shell there, which
    /// shares the open file description.
    pub host: OwnedFd,
    /// The master of the pseudoterminal.
    pub master: OwnedFd,
    /// The terminal of the command. It stays open here, since the master would report a hangup
    /// while the command has it closed.
    pub peer: OwnedFd,
    /// Whether it is standard input.
    pub is_input: bool,
    /// Whether it is both standard input and standard output, so that all keys are for the command.
    /// Otherwise, as in `ob-enter mta ls | less`, other programs may set the mode of the terminal.
    pub is_whole: bool,
    /// The mode to restore.
    found: Termios,
    /// Whether the terminal is in raw mode.
    is_raw: bool,
}

impl Terminal {
    /// Creates the terminal of the command from `master`, with the size and mode of `host`.
    ///
    /// `host` is the terminal of the caller, from [`reopen`]; `is_terminal` says which of the
    /// standard descriptors are terminals.
    pub fn new(host: OwnedFd, is_terminal: [bool; 3], master: OwnedFd) -> Result<Self> {
        let peer = open_peer(&master).context("open the terminal of the command")?;
        set_nonblocking(&master)?;
        let found = tcgetattr(&host).context("read the mode of the terminal")?;
        let [is_input, is_output, _] = is_terminal;
        let is_whole = is_input && is_output;
        let mut mode = found.clone();
        if !is_whole {
            // The terminal of the caller echoes and translates newlines already.
            mode.local_flags -= LocalFlags::ECHO;
            mode.output_flags -= OutputFlags::OPOST;
        }
        tcsetattr(&peer, SetArg::TCSANOW, &mode)
            .context("set the mode of the terminal of the command")?;
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

    /// Sets the terminal of the caller to raw mode, so that every key reaches the command.
    ///
    /// Does nothing in the background: a shell sends SIGCONT when it continues this process in the
    /// foreground.
    pub fn set_raw(&mut self) {
        if self.is_whole && !self.is_raw && self.is_in_foreground() {
            let mut raw = self.found.clone();
            cfmakeraw(&mut raw);
            self.is_raw = tcsetattr(&self.host, SetArg::TCSANOW, &raw).is_ok();
        }
    }

    /// Restores the mode of the terminal of the caller.
    pub fn restore(&mut self) {
        if self.is_raw {
            let _ = tcsetattr(&self.host, SetArg::TCSANOW, &self.found);
            self.is_raw = false;
        }
    }

    /// Sets raw mode again after a stop, in which another program may have changed the mode.
    ///
    /// Raw mode is not saved as the mode to restore: that program, or this process, had set it.
    pub fn resume(&mut self) {
        let found = self.is_in_foreground().then(|| tcgetattr(&self.host).ok());
        let is_canonical = |found: &Termios| found.local_flags.contains(LocalFlags::ICANON);
        if let Some(found) = found.flatten().filter(is_canonical) {
            self.found = found;
            self.is_raw = false;
        }
        self.set_raw();
        self.resize();
    }

    /// Copies the window size of the caller to the terminal of the command.
    pub fn resize(&self) {
        if let Ok(size) = size(&self.host) {
            let _ = resize(&self.master, &size);
        }
    }

    /// Returns whether keys are for the command.
    ///
    /// They are not while this process is in the background, or while another program of the
    /// pipeline, such as a pager, has disabled canonical mode.
    pub fn is_ours_to_read(&self) -> bool {
        let is_canonical = || {
            let mode = tcgetattr(&self.host);
            mode.is_ok_and(|mode| mode.local_flags.contains(LocalFlags::ICANON))
        };
        self.is_in_foreground() && (self.is_raw || is_canonical())
    }

    /// Returns the character that signals an end of file to the terminal of the command.
    pub fn end_of_file(&self) -> u8 {
        self.found.control_chars[SpecialCharacterIndices::VEOF as usize]
    }

    // tcgetpgrp fails with ENOTTY if the terminal does not control this session, and then there is
    // no background.
    fn is_in_foreground(&self) -> bool {
        tcgetpgrp(&self.host).map_or(true, |group| group == getpgrp())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Reopens the terminal of the caller, with O_NONBLOCK.
///
/// Needs /proc of the host. If the terminal cannot be reopened, returns a duplicate, on which a
/// write may block.
pub fn reopen(terminal: &OwnedFd) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", terminal.as_raw_fd());
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    match open(path.as_str(), flags, Mode::empty()) {
        Ok(opened) => Ok(opened),
        Err(_) => Ok(terminal.try_clone()?),
    }
}
