//! The resource limits of the caller that would end this process, or truncate its output.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, Signal};

/// Limits of the caller, with their soft and hard values. The command has them; this process, which
/// copies its data, does not.
pub struct CallerLimits(Vec<(Resource, rlim_t, rlim_t)>);

impl CallerLimits {
    /// Raises the limits of this process, and returns the previous values.
    ///
    /// Without `CAP_SYS_RESOURCE` a soft limit is raised to the hard limit only. So SIGXFSZ is
    /// blocked: then a write beyond the limit fails with EFBIG, and the reason is reported.
    pub fn lift() -> Self {
        let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
        let limits = [Resource::RLIMIT_FSIZE, Resource::RLIMIT_CPU].into_iter();
        let limits: Vec<_> = limits
            .filter_map(|resource| {
                let (soft, hard) = getrlimit(resource).ok()?;
                Some((resource, soft, hard))
            })
            .filter(|(_, soft, hard)| (*soft, *hard) != (RLIM_INFINITY, RLIM_INFINITY))
            .collect();
        for (resource, _, hard) in &limits {
            let _ = setrlimit(*resource, RLIM_INFINITY, RLIM_INFINITY)
                .or_else(|_| setrlimit(*resource, *hard, *hard));
        }
        CallerLimits(limits)
    }

    /// Sets the former limits again. Fails if `setrlimit(2)` does.
    pub fn restore(&self) -> nix::Result<()> {
        let mut limits = self.0.iter();
        limits.try_for_each(|(resource, soft, hard)| setrlimit(*resource, *soft, *hard))
    }
}
