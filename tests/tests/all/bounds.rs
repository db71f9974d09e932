//! Every wait of a command has a bound, and one subhost does not hold up another.

use end_to_end::{World, booted, until};
use std::time::Instant;

/// Boots a subhost with one service. Returns a line that sets `pid`, `guard`, `supervisor` and
/// `service` to pids.
fn boot_with_service(world: &World, conf: &str) -> String {
    world.boot(conf);
    until("the service", || {
        world.inside("mta", "ps").contains("sleep 98765")
    });
    let (pid, guard) = (
        &world.document("mta")["pid"],
        &world.document("mta")["guard"],
    );
    format!(
        "pid={pid} guard={guard} supervisor=$(cut -d' ' -f4 /proc/{pid}/stat) service=$(pgrep -P {pid} | head -n 1)"
    )
}

#[test]
fn a06_stop_ends_although_a_process_is_stopped() {
    let world = World::new();
    world.script("busybox/etc/one", "[ $1 = stop ] || sleep 98765 &");
    let conf = world.subhost("mta", "START=/etc/one\nSTOP_TIMEOUT=3");
    let before = world.snapshot();
    for stopped in [
        "$pid",
        "$guard",
        "$supervisor",
        "$service",
        "$supervisor $guard $pid",
    ] {
        let pids = boot_with_service(&world, &conf);
        world.ok(&format!("{pids}; kill -STOP {stopped}"));
        let entered = world.run("timeout 20 overlay-go mta -- true");
        assert_eq!(entered.status, 0, "{stopped}: {entered:?}");
        let start = Instant::now();
        let stop = world.run("overlay-stop mta");
        let seconds = start.elapsed().as_secs();
        assert_eq!(stop.status, 0, "{stopped}: {stop:?}");
        assert!(seconds < 30, "{stopped}: {seconds} s");
        world.until_same(&before);
    }
}

#[test]
fn r13_failed_cleanup_affects_one_subhost_alone() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        let conf = world.subhost(name, "");
        world.boot(&conf);
    }
    world.script(
        "clean",
        "! grep -q '\"NAME\":\"b\"' || { echo cannot >&2; exit 1; }",
    );
    let clean = format!("ob-room --undo --cleanup {}/clean", world.directory());
    let stop = world.run(&format!("ob-list --documents a b c | {clean} >/dev/null"));
    assert_eq!(stop.status, 1, "{stop:?}");
    for (name, is_left) in [("a", false), ("b", true), ("c", false)] {
        assert_eq!(
            world.has(format!("/run/overlay-boot/{name}")),
            is_left,
            "{name}"
        );
    }
    world.ok("overlay-stop b");
}

#[test]
fn r18_shared_lock_ends_a_boot_with_a_reason() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok("mkdir -p -m 755 /run/overlay-boot; mkdir -m 700 /run/overlay-boot/mta; : >/run/overlay-boot/mta/lock");
    let held =
        world.line("exec flock -s /run/overlay-boot/mta/lock sh -c ': >held; exec sleep 1000'");
    let mut held = held.start();
    until("the lock", || world.has("held"));
    assert!(held.is_running());
    let boot = world.run(&format!("timeout 60 overlay-boot {conf}"));
    boot.fails(1, &["mta", "shared lock"]);
}

#[test]
fn e10_output_of_stop_scripts_is_in_the_log() {
    let world = World::new();
    world.script(
        "busybox/etc/one",
        "[ $1 = stop ] || { sleep 98765 & exit; }; echo going; exit 3",
    );
    let conf = world.subhost("mta", "LOG=mta.log\nSTART=/etc/one");
    boot_with_service(&world, &conf);
    let stop = world.run("overlay-stop mta");
    assert_eq!(stop.out.trim(), "mta: going");
    assert!(
        stop.err
            .contains("mta: /etc/one: its stop has ended with status 3"),
        "{stop:?}"
    );
    let log = world.read("mta.log");
    for text in [
        " overlay-stop: going\n",
        " overlay-stop: /etc/one: its stop has ended with status 3\n",
    ] {
        assert!(log.contains(text), "{log}");
    }
}

#[test]
fn a06_stopped_list_does_not_block_a_stop() {
    let (world, _) = booted("");
    // It may hold a shared lock at that moment.
    world.ok("ob-list -w1 >/dev/null & list=$!; sleep 0.3; kill -STOP $list; timeout 100 overlay-stop mta; kill -9 $list");
}
