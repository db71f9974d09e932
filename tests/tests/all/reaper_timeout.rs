//! STOP_TIMEOUT as the reaper counts it: below, at and above the 10 seconds that are its default.

use end_to_end::{World, until};
use std::time::Instant;

/// A service that runs for SECONDS_TO_STOP more after TERM, and then records that it has finished.
///
/// A second TERM ends a `sleep` early, so the service looks at the clock.
const SLOW: &str = r#"
[ "$1" = start ] || exit 0
finish() {
    end=$(($(date +%s) + SECONDS_TO_STOP))
    while [ "$(date +%s)" -lt "$end" ]; do sleep 0.1; done
    : >/var/finished
    exit
}
{ trap finish TERM; : >/var/ready; while :; do sleep 0.1; done; } &"#;

/// Boots a subhost whose service, started by `configuration`, takes `seconds` to stop.
fn boot(world: &World, seconds: u32, configuration: &str) {
    let slow = SLOW.replace("SECONDS_TO_STOP", &seconds.to_string());
    world.script("busybox/etc/slow", &slow);
    let conf = world.subhost("mta", &format!("LOG=mta.log\n{configuration}"));
    world.ok(&format!("overlay-boot {conf}"));
    until("the service runs", || world.has("mta/root/var/ready"));
    // The shell that started the service has become the reaper.
    until("the reaper runs", || {
        world.inside("mta", "cat /proc/1/comm") == "ob-reaper"
    });
}

#[test]
fn r04_stop_timeout_above_10_lets_a_service_finish() {
    let world = World::new();
    boot(&world, 12, "START=/etc/slow\nSTOP_TIMEOUT=60");
    let start = Instant::now();
    world.ok("overlay-stop mta");
    let (seconds, log) = (start.elapsed().as_secs(), world.read("mta.log"));
    assert!(world.has("mta/root/var/finished"), "{seconds} s: {log}");
    assert!(seconds < 50, "{seconds} s: {log}");
}

#[test]
fn r04_stop_timeout_above_10_counts_for_a_custom_init() {
    let world = World::new();
    world.script(
        "mta/init",
        r#"echo '/etc/slow start; exec "$REAPER" "$NAME"'"#,
    );
    boot(&world, 12, "INIT=./init\nSTOP_TIMEOUT=60");
    let start = Instant::now();
    world.ok("overlay-stop mta");
    let (seconds, log) = (start.elapsed().as_secs(), world.read("mta.log"));
    assert!(world.has("mta/root/var/finished"), "{seconds} s: {log}");
    assert!(seconds < 50, "{seconds} s: {log}");
}

#[test]
fn r04_stop_timeout_below_10_is_counted_by_the_reaper() {
    let world = World::new();
    boot(&world, 100, "START=/etc/slow\nSTOP_TIMEOUT=1");
    let pid = &world.document("mta")["pid"];
    world.ok(&format!("kill -TERM {pid}"));
    until("the subhost is gone", || {
        !world.has("/run/overlay-boot/mta")
    });
    assert!(!world.has("mta/root/var/finished"));
    let log = world.read("mta.log");
    assert!(log.contains("within 1 s of TERM"), "{log}");
}

#[test]
fn r04_every_stop_timeout_that_passes_the_check_boots() {
    let world = World::new();
    for seconds in ["0", "08", "+7", "86401", "4294967295"] {
        let conf = world.subhost("mta", &format!("LOG=mta.log\nSTOP_TIMEOUT={seconds}"));
        world.ok(&format!("ob-conf --check {conf} && overlay-boot {conf}"));
        until("the placeholder runs", || {
            let log = world.read("mta.log");
            assert!(world.is_up("mta"), "STOP_TIMEOUT={seconds}: {log}");
            world.inside("mta", "ps").contains("dummy_service")
        });
        world.ok("overlay-stop mta");
    }
}
