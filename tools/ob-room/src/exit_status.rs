//! The exit statuses of the guard, from which its caller learns what to report.

/// The guard has reported why there is no subhost.
pub const REPORTED: i32 = 1;
/// A signal asked the guard to end, and no process of the boot has reported that.
pub const INTERRUPTED: i32 = 2;
/// A process of the boot was killed, which nothing has reported.
pub const STAGE_KILLED: i32 = 3;
/// The last stage, the supervisor, was killed.
pub const LAST_STAGE_KILLED: i32 = 4;
/// The last stage has failed. The supervisor fails if pid 1 does.
pub const LAST_STAGE_FAILED: i32 = 5;
/// The guard has failed when it could write to the log only.
pub const REASON_IN_LOG: i32 = 6;
