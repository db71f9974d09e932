//! Lines of sh, for work that administrators do with programs.

use crate::{Refused, Try, not_here, refused};
use std::path::Path;
use std::process::{Command, Stdio};

/// The environment of a line: an empty directory `$W`, readable by all users. It is removed
/// afterwards, after the function `end`, which a line may define to undo its other changes.
const FRAME: &str = r#"
set -eu
export W=/var/tmp/administration LC_ALL=C
rm -rf "$W"; mkdir "$W"; cd "$W"
end() { :; }
trap 'status=$?; set +e; end >/dev/null 2>&1; cd /; rm -rf "$W"; exit $status' EXIT
trap 'exit 143' TERM
# Fails with a message unless two texts are equal.
same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'" | tr '\n' ' ' >&2; return 1; }; }
# Fails with a message unless a command fails.
refuses() { if "$@" >/dev/null 2>&1; then echo "succeeded: $*" >&2; return 1; fi; }
# Waits until a command succeeds.
until_done() { i=0; while ! "$@" >/dev/null 2>&1; do i=$((i + 1)); [ $i -lt 100 ] || { echo "timeout: $*" >&2; return 1; }; sleep 0.1; done; }
"#;

/// Seconds, less than the bound of the entry, so that the line cleans up before the caller kills
/// it.
const BOUND: &str = "90";

/// Runs `line` with /bin/sh. Returns that the entry is not available if one of `programs` is
/// missing. If a command fails, the reason is the first line on standard error.
pub fn sh(programs: &[&str], line: &str) -> Try {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let is_there = |program: &&str| {
        let mut directories = path.split(':');
        directories.any(|directory| Path::new(directory).join(program).exists())
    };
    if let Some(missing) = programs.iter().find(|program| !is_there(program)) {
        return not_here(format!("{missing} is not installed"));
    }
    let output = Command::new("timeout")
        .args([BOUND, "/bin/sh", "-c", &format!("{FRAME}{line}")])
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .refused("run timeout(1)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        Some(124) => refused(format!("timeout after {BOUND} seconds")),
        _ => refused(
            said.lines()
                .next()
                .unwrap_or("no message on standard error"),
        ),
    }
}
