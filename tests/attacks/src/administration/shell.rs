//! Lines of sh, for what is done with programs.

use crate::{Refused, Try, not_here, refused};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where a line is run: an empty directory that others can look into, `$W`. It is removed afterwards, after `end`, which a line may
/// define, has taken back what else the line has made.
const FRAME: &str = r#"
set -eu
export W=/var/tmp/administration LC_ALL=C
rm -rf "$W"; mkdir "$W"; cd "$W"
end() { :; }
trap 'status=$?; set +e; end >/dev/null 2>&1; cd /; rm -rf "$W"; exit $status' EXIT
trap 'exit 143' TERM
# Whether two texts are the same, said if they are not.
same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'" | tr '\n' ' ' >&2; return 1; }; }
# Whether a command fails, said if it does not.
refuses() { if "$@" >/dev/null 2>&1; then echo "it could: $*" >&2; return 1; fi; }
# Waits until a command succeeds.
until_done() { i=0; while ! "$@" >/dev/null 2>&1; do i=$((i + 1)); [ $i -lt 100 ] || { echo "in vain: $*" >&2; return 1; }; sleep 0.1; done; }
"#;

/// In seconds: before whoever has started us takes us for one that hangs, and what we have started is ended, too.
const BOUND: &str = "90";

/// Runs `line` by the subhost's own sh, with `programs`, which are not here if one is missing. It has worked if the last of its commands
/// and all before it have; else the first that was said on its standard error is why not.
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
        Some(124) => refused(format!("no end after {BOUND} seconds")),
        _ => refused(said.lines().next().unwrap_or("it said nothing")),
    }
}
