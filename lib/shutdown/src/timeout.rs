//! The bounds of waiting for the end of a subhost.

use crate::request::is_custom;
use ob_document::Document;
use std::time::Duration;

/// How long the kernel may take to end a killed process, and guard and supervisor to notice.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the stages may take to exit after TERM, in addition to [`end_timeout`].
pub const STAGE_GRACE: Duration = Duration::from_secs(15);

/// Returns the time that a subhost has to end after TERM: STOP_TIMEOUT, or its default.
#[must_use]
pub fn stop_timeout(document: &Document) -> Duration {
    let seconds = document.optional("STOP_TIMEOUT");
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// Returns the time after which a subhost is killed at the latest: a custom pid 1 has STOP_TIMEOUT
/// to end it, and then all processes have STOP_TIMEOUT after TERM.
#[must_use]
pub fn end_timeout(document: &Document) -> Duration {
    let respites = if is_custom(document) { 2 } else { 1 };
    stop_timeout(document) * respites
}
