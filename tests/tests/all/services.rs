//! The services of START: how they start and stop inside.

use end_to_end::{World, until};

#[test]
fn hazard_02_services_stop_in_reverse_then_daemons_get_term() {
    let world = World::new();
    for service in ["one", "two", "three"] {
        world.script(
            format!("busybox/etc/{service}"),
            &format!(
                "note() {{ echo \"{service} $1 $(readlink /proc/self/ns/pid)\" >>/var/order; }}; note $1
                [ $1 = stop ] || (trap 'note TERM; exit' TERM; : >/var/{service}; while :; do sleep 0.1; done) &"
            ),
        );
    }
    let conf = world.subhost("mta", "START=/etc/one /etc/two /etc/three");
    let before = world.snapshot();
    world.boot(&conf);
    until("all daemons to wait for TERM", || {
        ["one", "two", "three"]
            .iter()
            .all(|service| world.has(format!("mta/root/var/{service}")))
    });
    let namespace = world.inside("mta", "readlink /proc/self/ns/pid");
    world.ok(&format!("overlay-stop {conf}"));
    world.assert_same(&before);
    let order = world.read("mta/root/var/order");
    let mut order: Vec<&str> = order.lines().collect();
    // All daemons get TERM at once, so that they answer in any order.
    order[6..].sort_unstable();
    let expected = [
        "one start",
        "two start",
        "three start",
        "three stop",
        "two stop",
        "one stop",
        "one TERM",
        "three TERM",
        "two TERM",
    ];
    let expected = expected.map(|line| format!("{line} {namespace}"));
    assert_eq!(order, expected);

    // All stop scripts run to their end, even if the last daemon exits before.
    world.script("busybox/etc/daemon", "case $1 in start) tail -f /dev/null & ;; stop) killall tail; usleep 300000; echo daemon >>/var/order ;; esac");
    world.script("busybox/etc/net", "echo network $1 >>/var/order");
    let conf = world.subhost("two", "START=/etc/net /etc/daemon");
    world.boot(&conf);
    until("the daemon", || {
        world.inside("two", "ps").contains("tail -f")
    });
    world.ok("overlay-stop two");
    assert_eq!(
        world.read("two/root/var/order"),
        "network start\ndaemon\nnetwork stop\n"
    );
}

#[test]
fn hazard_37_root_without_service_command_gets_no_odd_file() {
    let world = World::new();
    world.ok("rm -f busybox/bin/service");
    for (name, start) in [("mta", ""), ("named", "START=networking ssh\n")] {
        let conf = world.conf(name, &format!("{start}BASE=.\nLOWER=../busybox"));
        world.boot(&conf);
        until("the message about ssh in the log", || {
            world
                .read(format!("/tmp/overlay-{name}.log"))
                .contains("ssh is not started: this root has no service command")
        });
        assert_eq!(world.inside(name, "ls -A /"), world.ok("ls -A busybox"));
        assert_eq!(world.ok(&format!("ls -A {name}/root")), "etc");
    }
}

#[test]
fn hazard_39_services_start_in_order_without_shell_errors() {
    let world = World::new();
    world.script(
        "busybox/bin/service",
        "echo \"service $* $(stat -c %N /proc/self/fd/0)\" >>/var/order",
    );
    world.script(
        "busybox/etc/one",
        "echo \"one $*\" >>/var/order; echo spoken",
    );
    let conf = world.subhost("mta", "START=/etc/one two\tthree *");
    world.boot(&conf);
    let order = || world.inside("mta", "cat /var/order 2>/dev/null || :");
    until("all services to be started", || {
        order().lines().count() == 4
    });
    for (line, expected) in order().lines().zip([
        "one start",
        "service two start",
        "service three start",
        "service * start",
    ]) {
        assert!(line.starts_with(expected), "{line} instead of {expected}");
    }
    until("the placeholder", || {
        world.inside("mta", "ps").contains("dummy_service")
    });
    let log = world.read("/tmp/overlay-mta.log");
    assert!(log.contains("Z spoken\n"), "{log}");
    assert!(!log.contains("sh:") && !log.contains("[:"), "{log}");

    // `none` is no service, alone or with other names.
    world.script("busybox/bin/service", "echo $* >>/var/order");
    let conf = world.subhost("odd", "START=none x");
    world.boot(&conf);
    until("the service", || world.has("odd/root/var/order"));
    world.ok("overlay-stop odd");
    assert_eq!(world.read("odd/root/var/order"), "x start\nx stop\n");
}

#[test]
fn r14_number_with_a_leading_zero_stops_the_services() {
    let world = World::new();
    world.script(
        "busybox/etc/one",
        ": >/var/$1; [ $1 = stop ] || sleep 1000 &",
    );
    let conf = world.subhost("mta", "START=/etc/one\nSTOP_TIMEOUT=08");
    world.boot(&conf);
    assert_eq!(world.document("mta")["STOP_TIMEOUT"], "8");
    until("the start", || world.has("mta/root/var/start"));
    let stop = world.run("overlay-stop mta");
    assert_eq!((stop.status, stop.err.as_str()), (0, ""));
    assert!(world.has("mta/root/var/stop"));
}
