//! The signals that we get in place of the command.

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ob_sys::process::is_ignored;
use std::os::fd::{AsFd, BorrowedFd};

const CAUGHT: [Signal; 9] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// Signals as something to read. What the caller ignores (nohup, a shell's `&`) stays ignored.
pub struct Signals(SignalFd);

impl Signals {
    /// From now on they wait for [`Signals::next`].
    pub fn catch() -> Result<Self> {
        let heeded = CAUGHT.into_iter().filter(|signal| !is_ignored(*signal));
        let mask: SigSet = heeded.collect();
        mask.thread_block()?;
        // With `stty tostop` a write in the background would stop us (tty_check_change), and with
        // us the end of the subhost.
        SigSet::from(Signal::SIGTTOU).thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&mask, flags)?))
    }

    /// The next one that has come, if any.
    pub fn next(&self) -> Option<Signal> {
        let signal = self.0.read_signal().ok().flatten()?;
        Signal::try_from(i32::try_from(signal.ssi_signo).ok()?).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
