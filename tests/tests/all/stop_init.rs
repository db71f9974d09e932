//! overlay-stop: a custom INIT runs all its shutdown scripts.

use end_to_end::{World, until};
use std::time::Instant;

/// Boots a subhost with the script `init` for pid 1 and more lines of configuration, and waits
/// until the script has created /ready.
fn boot(world: &World, init: &str, lines: &str) {
    let conf = world.subhost("mta", &format!("LOG=mta.log\nINIT=./init\n{lines}"));
    world.init("mta", init);
    world.boot(&conf);
    until("pid 1 is ready", || world.has("mta/root/ready"));
}

/// A child that records an early TERM, and a pid 1 that takes two seconds after `signal`.
fn slow_init(signal: &str) -> String {
    format!(
        "(trap 'echo early >>/order' TERM; while :; do sleep 0.1; done) &
         trap 'sleep 2; echo finished >>/order; exit' {signal}
         : >/ready
         while :; do sleep 0.1; done"
    )
}

#[test]
fn e02_busybox_init_runs_its_shutdown_action() {
    let world = World::new();
    world.write(
        "busybox/etc/inittab",
        "::sysinit:/bin/sh -c ': >/ready'\n::respawn:/bin/sleep 1000\n::shutdown:/bin/sh -c 'sleep 2; echo finished >/order'\n",
    );
    let before = world.snapshot();
    boot(&world, "exec /bin/busybox init", "");
    // init blocks its signals after it has started the processes.
    until("init waits", || {
        world.inside("mta", "ps").contains("sleep 1000")
    });
    world.ok("overlay-stop mta");
    assert_eq!(world.read("mta/root/order"), "finished\n");
    world.assert_same(&before);
}

#[test]
fn e02_shell_init_finishes_before_any_other_process_gets_term() {
    let world = World::new();
    for (signal, lines) in [
        ("TERM", ""),
        ("USR1", "STOP_SIGNAL=USR1"),
        ("37", "STOP_SIGNAL=SIGRTMIN+3"),
    ] {
        boot(&world, &slow_init(signal), lines);
        world.ok("overlay-stop mta");
        assert_eq!(world.read("mta/root/order"), "finished\n", "{signal}");
        world.ok("rm mta/root/order mta/root/ready");
    }
}

#[test]
fn e02_signal_to_overlay_boot_asks_pid_1_in_its_way() {
    let world = World::new();
    let conf = world.subhost("mta", "INIT=./init\nSTOP_SIGNAL=USR1");
    world.init("mta", &slow_init("USR1"));
    world.run(&format!(
        "overlay-boot -f {conf} & boot=$!; until [ -e mta/root/ready ]; do sleep 0.1; done; kill $boot; wait $boot"
    ));
    assert_eq!(world.read("mta/root/order"), "finished\n");
}

#[test]
fn e02_systemd_gets_its_halt_signal() {
    let world = World::new();
    world.ok("cp busybox/bin/busybox busybox/bin/systemd");
    let init = slow_init("37");
    world.write("busybox/etc/halt", &init);
    boot(&world, "exec -a sh /bin/systemd /etc/halt", "");
    world.ok("overlay-stop mta");
    assert_eq!(world.read("mta/root/order"), "finished\n");
}

#[test]
fn e02_stop_command_asks_pid_1() {
    let world = World::new();
    world.script("busybox/bin/halt-it", "echo \"asked $1\"; kill -USR2 1");
    boot(&world, &slow_init("USR2"), "STOP_COMMAND=halt-it now");
    world.ok("overlay-stop mta");
    assert_eq!(world.read("mta/root/order"), "finished\n");
    assert!(world.read("mta.log").contains("asked now"));
}

/// A child that records TERM, and then creates /ready.
const RECORDS_TERM: &str =
    "(trap 'echo TERM >>/order; exit' TERM; : >/ready; while :; do sleep 0.1; done) &";

#[test]
fn e02_failing_stop_command_is_not_waited_for() {
    let world = World::new();
    let init = format!("trap : USR2; {RECORDS_TERM}\nwhile :; do sleep 0.1; done");
    boot(&world, &init, "STOP_COMMAND=/bin/false\nSTOP_TIMEOUT=1000");
    world.ok("timeout 100 overlay-stop mta");
    assert_eq!(world.read("mta/root/order"), "TERM\n");
}

#[test]
fn e02_init_that_does_not_finish_is_killed() {
    let world = World::new();
    let init =
        format!("trap 'echo asked >>/order' TERM; {RECORDS_TERM}\nwhile :; do sleep 0.1; done");
    boot(&world, &init, "STOP_TIMEOUT=2");
    let start = Instant::now();
    world.ok("overlay-stop mta");
    let seconds = start.elapsed().as_secs();
    assert!((2..40).contains(&seconds), "{seconds} s");
    assert_eq!(world.read("mta/root/order"), "asked\nTERM\n");
}

#[test]
fn e02_invalid_stop_signal_is_refused() {
    let world = World::new();
    for signal in ["KILL", "SIGSTOP", "0", "65", "TERMINATE", "RTMIN+99"] {
        let conf = world.subhost("mta", &format!("STOP_SIGNAL={signal}"));
        let before = world.snapshot();
        let report = world.run(&format!("ob-conf --check {conf}"));
        assert_eq!(report.status, 1, "{signal}");
        assert!(
            report.out.contains(&format!("signal {signal}")),
            "{report:?}"
        );
        let boot = world.run(&format!("overlay-boot {conf}"));
        boot.fails(1, &["STOP_SIGNAL", signal]);
        world.assert_same(&before);
    }
}
