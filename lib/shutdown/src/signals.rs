//! The signals that ask a guard or a supervisor to end.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Blocks TERM, INT, HUP and the signals in `more`, and returns a descriptor that reports them.
///
/// See signalfd(2); reads from the descriptor do not block.
pub fn block_termination_signals(more: &[Signal]) -> Result<SignalFd> {
    let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let mask: SigSet = ending.iter().chain(more).copied().collect();
    mask.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&mask, flags).context("create a signalfd")
}
