//! overlay-boot -f: the exit status, and the output of a subhost that ends after a signal.

use end_to_end::{Done, World};

/// Boots in the foreground, runs the line `end` while the subhost runs, and returns the result of
/// overlay-boot.
fn foreground(world: &World, conf: &str, end: &str) -> Done {
    world.run(&format!(
        "overlay-boot -f {conf} & boot=$!
         state=/run/overlay-boot/mta/subhost
         until grep -q '\"pid\":' $state; do sleep 0.05; done 2>/dev/null
         pid=$(jq .pid $state) guard=$(jq .guard $state)
         supervisor=$(cut -d' ' -f4 /proc/$pid/stat)
         {end}
         wait $boot"
    ))
}

#[test]
fn a05_foreground_boot_fails_if_the_subhost_was_killed() {
    let world = World::new();
    let conf = world.subhost("mta", "LOG=mta.log");
    let before = world.snapshot();
    for (end, why) in [
        ("kill -9 $pid", "pid 1 has failed"),
        ("kill -9 $supervisor", "its supervisor was killed"),
        (
            "kill -9 $guard; overlay-stop mta",
            "its guard was ended by SIGKILL",
        ),
    ] {
        foreground(&world, &conf, end).fails(1, &["mta", why]);
        world.until_same(&before);
    }
}

#[test]
fn a05_foreground_boot_fails_with_its_pid_1() {
    let world = World::new();
    let conf = world.subhost("mta", "LOG=mta.log\nINIT=./init");
    let before = world.snapshot();
    for (init, status) in [("exit 7", 1), ("cat /missing", 1), ("exit 0", 0)] {
        world.init("mta", init);
        let boot = world.run(&format!("overlay-boot -f {conf}"));
        assert_eq!(boot.status, status, "{init}: {boot:?}");
        assert_eq!(
            boot.err.contains("mta: pid 1 has failed"),
            status == 1,
            "{boot:?}"
        );
        world.until_same(&before);
    }
}

#[test]
fn a05_foreground_boot_succeeds_after_a_stop() {
    let world = World::new();
    // Pid 1 ignores TERM, so a stop kills it.
    let ignoring = world.subhost("mta", "LOG=mta.log\nINIT=./init\nSTOP_TIMEOUT=1");
    world.init("mta", "exec sleep 100000");
    for end in ["overlay-stop mta", "kill $boot"] {
        assert_eq!(foreground(&world, &ignoring, end).status, 0, "{end}");
    }
    let conf = world.subhost("mta", "LOG=mta.log");
    for end in [
        "overlay-stop mta",
        "kill $boot",
        "overlay-go mta poweroff -f || :",
        "overlay-go mta reboot -f || :",
    ] {
        assert_eq!(foreground(&world, &conf, end).status, 0, "{end}");
    }
}

#[test]
fn r05_output_is_read_while_the_subhost_ends_after_a_signal() {
    let world = World::new();
    world.script(
        "busybox/etc/prints",
        "[ $1 = start ] || exit 0
         (trap 'seq 1 50000; : >/finished; exit' TERM; : >/ready; while :; do sleep 0.1; done) &",
    );
    let conf = world.subhost("mta", "LOG=mta.log\nSTART=/etc/prints\nSTOP_TIMEOUT=60");
    let end = "until [ -e mta/root/ready ]; do sleep 0.05; done; kill $boot";
    assert_eq!(foreground(&world, &conf, end).status, 0);
    assert!(world.has("mta/root/finished"));
    assert!(world.read("mta.log").contains(" 50000\n"));
}
