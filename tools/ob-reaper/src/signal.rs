//! Names and numbers of signals.

use crate::number;
use core::ffi::c_int;

/// The highest signal number, SIGRTMAX.
const MAX: u32 = 64;

const NAMES: &[(&str, c_int)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// Parses a signal: `SIGTERM`, `TERM` or `15`. Returns its number.
pub fn parse(text: &[u8]) -> Option<c_int> {
    let name = text.strip_prefix(b"SIG").unwrap_or(text);
    if let Some((_, signal)) = NAMES.iter().find(|(known, _)| known.as_bytes() == name) {
        return Some(*signal);
    }
    let signal = number::parse(text, MAX)?;
    (signal > 0).then_some(signal as c_int)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_has_three_spellings() {
        for text in ["SIGTERM", "TERM", "15"] {
            assert_eq!(parse(text.as_bytes()), Some(libc::SIGTERM), "{text}");
        }
    }

    #[test]
    fn invalid_signal_is_refused() {
        for text in ["", "SIG", "term", "0", "65", "SIG15", "-1"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
