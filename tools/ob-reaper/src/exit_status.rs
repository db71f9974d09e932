//! Exit statuses, as in env(1).

/// The command line is invalid.
pub const MISUSED: u8 = 2;
/// The tool itself failed.
pub const FAILED: u8 = 125;
/// The command was found but cannot be executed.
pub const CANNOT_RUN: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
