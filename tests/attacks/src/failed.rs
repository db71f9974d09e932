//! Why a try has failed, as a value and as a line.

use nix::errno::Errno;
use std::fmt::{self, Display};

/// How a try ends: it got through, or this is why not.
pub type Try<T = ()> = Result<T, Failed>;

/// Why a try did not get through.
#[derive(Debug)]
pub enum Failed {
    /// Something was in its way, in words such as `mknod: Operation not permitted`.
    Refused(String),
    /// This kernel has nothing of the kind, whoever asks.
    NotHere(String),
}

/// It was refused, for this reason.
pub fn refused<T>(why: impl Into<String>) -> Try<T> {
    Err(Failed::Refused(why.into()))
}

/// It cannot be tried, for this reason.
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

/// For the results of system calls: what failed, said.
pub trait Refused<T> {
    /// With the words of `what` before those of the error: whatever it is, it was in the way.
    fn refused(self, what: impl Display) -> Try<T>;

    /// The same, but what the kernel does not know cannot be tried: no such call, file, filesystem or kind of socket. Where system calls
    /// are filtered that may be the filter's answer, and counts as a refusal.
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

/// For what the kernel asks the capability of this number for: that even root of this machine does not have it, where nothing but
/// the machine has taken it.
pub fn is_there(capability: u32) -> Try {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bound = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:\t"));
    let bound = bound.and_then(|set| u64::from_str_radix(set, 16).ok());
    match bound {
        Some(set) if set & (1 << capability) == 0 && !is_filtered() => {
            not_here("this machine lets nobody do that")
        }
        _ => Ok(()),
    }
}

/// Whether this process has a filter of system calls.
pub fn is_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.contains("Seccomp:\t2")
}
