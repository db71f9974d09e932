//! The end of a command.

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

/// How a command has ended.
pub enum End {
    /// The command has exited, or a signal has killed it.
    Ended(WaitStatus),
    /// The terminal was hung up, or this process got the signal, and the command still runs.
    ///
    /// The command is killed when this process exits (`PR_SET_PDEATHSIG`).
    HungUp(Signal),
}

impl End {
    /// Returns the exit status for it, like `env(1)`: that of the command, or 128+N for signal N.
    #[must_use]
    pub fn status(&self) -> u8 {
        let status = match self {
            End::Ended(WaitStatus::Exited(_, status)) => *status,
            End::Ended(WaitStatus::Signaled(_, signal, _)) | End::HungUp(signal) => {
                128 + *signal as i32
            }
            End::Ended(_) => 125,
        };
        u8::try_from(status).unwrap_or(125)
    }
}
