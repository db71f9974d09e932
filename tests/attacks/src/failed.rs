//! The reasons for which an entry fails.

use nix::errno::Errno;
use std::fmt::{self, Display};

/// The result of a function: success, or the reason of the failure.
pub type Try<T = ()> = Result<T, Failed>;

/// The reason of a failure.
#[derive(Debug)]
pub enum Failed {
    /// Refused, with a reason such as `mknod: Operation not permitted`.
    Refused(String),
    /// Not available on this kernel, with any privileges.
    NotHere(String),
}

/// Returns a refusal with this reason.
pub fn refused<T>(why: impl Into<String>) -> Try<T> {
    Err(Failed::Refused(why.into()))
}

/// Returns that the entry cannot run here, for this reason.
pub fn not_here<T>(why: impl Into<String>) -> Try<T> {
    Err(Failed::NotHere(why.into()))
}

impl Display for Failed {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Failed::Refused(why) | Failed::NotHere(why) => to.write_str(why),
        }
    }
}

/// Converts the error of a system call into a reason.
pub trait Refused<T> {
    /// Counts any error as a refusal; the reason is `what` and the text of the error.
    fn refused(self, what: impl Display) -> Try<T>;

    /// Counts an error for an unknown call, file, filesystem or socket type as not available. A
    /// seccomp filter may return the same errno, so under a filter this counts as a refusal.
    fn known(self, what: impl Display) -> Try<T>;
}

impl<T, E: Into<std::io::Error>> Refused<T> for Result<T, E> {
    fn refused(self, what: impl Display) -> Try<T> {
        self.map_err(|error| Failed::Refused(format!("{what}: {}", words(&error.into()))))
    }

    fn known(self, what: impl Display) -> Try<T> {
        self.map_err(|error| {
            let error = error.into();
            let why = format!("{what}: {}", words(&error));
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT) => Failed::NotHere(why),
                Some(Errno::ENOSYS | Errno::ENODEV | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)
                    if !is_filtered() =>
                {
                    Failed::NotHere(why)
                }
                _ => Failed::Refused(why),
            }
        })
    }
}

fn words(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Returns that an entry cannot run here if even root on this machine lacks this capability, and no
/// level of protection has removed it.
pub fn is_there(capability: u32) -> Try {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bound = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:\t"));
    let bound = bound.and_then(|set| u64::from_str_radix(set, 16).ok());
    match bound {
        Some(set) if set & (1 << capability) == 0 && !is_filtered() => {
            not_here("no process on this machine has the capability")
        }
        _ => Ok(()),
    }
}

/// Returns whether this process has a seccomp filter.
pub fn is_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.contains("Seccomp:\t2")
}
