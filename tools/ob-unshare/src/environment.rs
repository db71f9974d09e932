//! The environment of pid 1.

use crate::init::stop_timeout;
use ob_document::{Document, inside};

/// The variables of the caller that pid 1 gets, if they are set.
pub const PASSED: [&str; 3] = ["LANG", "TERM", "TZ"];

/// Returns the variables, as `NAME=VALUE`, that depend neither on the caller nor on SETENV.
///
/// `reaper` is the path of the reaper inside, for the script that INIT prints.
pub fn variables(document: &Document, reaper: &str) -> Vec<String> {
    let common = inside::variables(document.name());
    let common = common.map(|(name, value)| format!("{name}={value}"));
    let mut variables = Vec::from(common);
    variables.push("HOME=/root".to_owned());
    if document.has("INIT") {
        variables.push(format!("REAPER={reaper}"));
        variables.push(format!("STOP_TIMEOUT={}", stop_timeout(document)));
    }
    variables
}
