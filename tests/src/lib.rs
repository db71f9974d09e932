//! Worlds: the places in which the end-to-end tests stand.
//!
//! A [`World`] has mount, network, pid, ipc, uts and control group namespaces of its own (and a user namespace where the
//! tests are not run by root), with a fresh `/run` and `/tmp`, `lo` up, a `/sys` of its own, a control group of its own where
//! there is a cgroup2 tree, and a directory on a real filesystem, where a root made of busybox stands. Whatever a test
//! does to the host, it does to the world's; all of it is gone when the `World` is dropped.
//!
//! ```ignore
//! let world = World::new();
//! let conf = world.subhost("mta", "CABLES=br0=");        // $W/mta/mta.conf over the busybox root, with START=none
//! world.ok("ip link add br0 type bridge");               // a line of sh; panics unless its status is 0
//! let before = world.snapshot();
//! world.ok(&format!("overlay-boot {conf}"));
//! assert_eq!(world.ok("overlay-go mta hostname"), world.ok("hostname"));
//! assert_eq!(world.run("overlay-go nobody").status, 125); // any status
//! world.ok("overlay-stop mta");
//! world.assert_same(&before);                            // nothing is left
//! ```
//!
//! - Lines are run by `/bin/sh` in the directory `$W`, the tools and scripts on PATH, with an environment of a few variables.
//!   [`World::line`] takes more: variables, input, another process meanwhile.
//! - Everything that is waited for has an end, [`BOUND`]; nothing is waited for by the clock. [`until`] waits for a condition.
//! - What a test cannot do here it hands to [`not_done`], which says so and fails where that is not to be expected.
//! - The tools are those of `make`, which is run once, or those in the directory `OB_BIN`, with the scripts in `OB_SCRIPTS`; so the
//!   test program can be copied to another machine. `OB_TMP` is the directory for the worlds' directories.

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

/// Why something may be left out on any machine, a test machine too.
const KNOWN: &[&str] = &[
    NOT_ROOT,
    NO_CGROUP,
    NO_LOOP,
    NO_MACVLAN,
    NO_SOURCE,
    NOT_INSTALLED,
];

/// Only root of the host may do it: a user namespace does not give it.
pub const NOT_ROOT: &str = "needs root";

/// There is no cgroup2 tree that we may write to.
pub const NO_CGROUP: &str = "needs a cgroup2 tree that it may write to";

/// There are no loop devices, as in most containers.
pub const NO_LOOP: &str = "needs loop devices";

/// The test program and the scripts have been copied to another machine.
pub const NO_SOURCE: &str = "needs the source tree";

/// The kernel has been built without.
pub const NO_MACVLAN: &str = "needs a kernel with macvlan";

/// A service that .ci/run installs is not there.
pub const NOT_INSTALLED: &str = "needs a package that .ci/run installs";

/// Tells that (a part of) a test is left out, and why. Fails where `CI` is set, unless the reason is a known one.
pub fn not_done(what: &str, reason: &str) {
    // Past the test harness, which would keep it to itself.
    let _ = writeln!(std::io::stderr(), "NOT DONE: {what}: {reason}");
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!strict || KNOWN.contains(&reason), "{what}: {reason}");
}

/// Whether the tests are run by root; if not, says of `what` that it is left out.
pub fn is_root_or_tell(what: &str) -> bool {
    let root = is_root();
    if !root {
        not_done(what, NOT_ROOT);
    }
    root
}

/// Whether the tests are run by root.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Waits until `done`; panics with `what` if that does not come.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
