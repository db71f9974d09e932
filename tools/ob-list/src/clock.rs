//! The clocks of the kernel.

use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// Returns the time that `count` clock ticks take.
///
/// The kernel reports times to programs in units of 1/USER_HZ, which is 100 on every architecture
/// that Rust supports; see `proc_pid_stat(5)`.
pub fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

/// Returns the time since the host has booted. Fails if `/proc/uptime` cannot be read.
pub fn uptime_of_host() -> Result<Duration> {
    read_uptime().context("read /proc/uptime")
}

fn read_uptime() -> Result<Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let seconds = uptime.split_whitespace().next().unwrap_or_default();
    let seconds: f64 = seconds.parse()?;
    ensure!(seconds.is_finite() && seconds >= 0.0, "not a time");
    Ok(Duration::from_secs_f64(seconds))
}
