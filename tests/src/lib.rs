//! Worlds: private machines for the end-to-end tests.
//!
//! A [`World`] is a set of new mount, network, pid, ipc, uts and cgroup namespaces (and a new user
//! namespace, unless root runs the tests). It has a fresh `/run` and `/tmp`, `lo` up, a mount of
//! sysfs, a control group if there is a cgroup2 tree, and a directory on a real filesystem that
//! holds a root made of busybox. "The host" of a test is its world: a test may change this host as
//! it likes. Dropping the `World` removes everything.
//!
//! ```ignore
//! let (world, conf) = booted("CABLES=br0="); // a world in which the subhost mta runs
//! let world = World::new();
//! let conf = world.subhost("mta", "CABLES=br0="); // writes $W/mta/mta.conf
//! world.ok("ip link add br0 type bridge"); // runs sh; panics unless the status is 0
//! let before = world.snapshot();
//! world.boot(&conf); // overlay-boot CONF
//! assert_eq!(world.ok("overlay-go mta hostname"), world.ok("hostname"));
//! assert_eq!(world.run("overlay-go other").status, 125); // any status
//! world.ok("overlay-stop mta");
//! world.assert_same(&before); // nothing is left
//! ```
//!
//! - `/bin/sh` runs the lines in the directory `$W`, with the tools and scripts on PATH and a
//!   minimal environment. [`World::line`] adds variables and input, or starts the line in the
//!   background.
//! - Every wait ends after [`BOUND`]. A test waits for a condition, with [`until`], and not for a
//!   fixed time.
//! - A test that cannot run here calls [`not_done`], which reports it, and panics in CI unless the
//!   reason is a known one.
//! - The tests use the tools that `make` builds, once per test program, or those in the directory
//!   `OB_BIN`, and the scripts in `OB_SCRIPTS`. So the test program can be copied to another
//!   machine. `OB_TMP` is the directory for the directories of the worlds.

mod cost;
mod host;
mod instructions;
mod line;
mod snapshot;
pub mod soak;
mod subhost;
#[cfg(target_arch = "x86_64")]
pub mod sweep;
mod tools;
#[cfg(target_arch = "x86_64")]
pub mod trace;
mod world;

pub use cost::Cost;
pub use line::{Done, Line, Running};
pub use snapshot::Snapshot;
pub use subhost::booted;
pub use tools::{attack, bin, scripts};
pub use world::World;

use std::io::Write;
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine.
pub const BOUND: Duration = Duration::from_secs(120);

/// The reasons for which a test may be skipped on a test machine (`CI=true`) too.
const KNOWN: &[&str] = &[NOT_ROOT, NO_CGROUP, NO_CONTROLLER, NO_MACVLAN, NO_SOURCE];

/// Only root on the host may do it: a user namespace does not give the right.
pub const NOT_ROOT: &str = "needs root";

/// There is no cgroup2 tree that we may write to.
pub const NO_CGROUP: &str = "needs a cgroup2 tree that it may write to";

/// The cgroup2 tree lacks a controller: cgroup v1 has the controller, or the kernel does not.
pub const NO_CONTROLLER: &str = "needs a cgroup2 tree with this controller";

/// There are no loop devices, as in most containers.
pub const NO_LOOP: &str = "needs loop devices";

/// The test program and the scripts have been copied to another machine.
pub const NO_SOURCE: &str = "needs the source tree";

/// The kernel has been built without macvlan.
pub const NO_MACVLAN: &str = "needs a kernel with macvlan";

/// A package is missing that `scripts/test` installs if `CI=true`.
pub const NOT_INSTALLED: &str = "needs a package that scripts/test installs for CI";

/// Reports to tests/run that the calling test skips `what`.
///
/// Panics if `CI=true`, unless `reason` is in `KNOWN`.
pub fn not_done(what: &str, reason: &str) {
    // libtest names the thread after the test. It captures eprintln!(), but no write to stderr().
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    let _ = writeln!(std::io::stderr(), "NOT DONE: {test}: {what}: {reason}");
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!strict || KNOWN.contains(&reason), "{what}: {reason}");
}

/// Returns whether root runs the tests; if not, reports that the calling test skips `what`.
pub fn is_root_or_tell(what: &str) -> bool {
    let root = is_root();
    if !root {
        not_done(what, NOT_ROOT);
    }
    root
}

/// Returns whether root runs the tests.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Waits until `done` returns true; panics with `what` after [`BOUND`].
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "timeout: waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
