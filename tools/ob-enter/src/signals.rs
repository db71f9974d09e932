//! The signals that this process forwards to the command.

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

/// A `signalfd(2)`. Signals that the caller ignores (`nohup`, `&` of a shell) stay ignored.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals, so that [`Signals::next`] returns them. Fails if `signalfd(2)` does.
    pub fn catch() -> Result<Self> {
        let caught = CAUGHT.into_iter().filter(|signal| !is_ignored(*signal));
        let mask: SigSet = caught.collect();
        mask.thread_block()?;
        // After `stty tostop`, a write in the background would stop this process
        // (tty_check_change), and with it the end of the subhost.
        SigSet::from(Signal::SIGTTOU).thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&mask, flags)?))
    }

    /// Returns the next pending signal, if any.
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
