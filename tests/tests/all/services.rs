//! The services of START: how they are started and stopped inside.

use end_to_end::{World, until};

#[test]
fn hazard_02_services_are_stopped_and_daemons_get_term_before_kill() {
    let world = World::new();
    world.script(
        "busybox/etc/one",
        "echo $1 >>/var/told; [ $1 = stop ] || (trap 'echo TERM >>/var/told; exit' TERM; while :; do sleep 0.1; done) &",
    );
    let conf = world.subhost("mta", "START=/etc/one");
    world.boot(&conf);
    until("the service to run", || world.has("mta/root/var/told"));
    world.ok("overlay-stop mta");
    assert_eq!(world.read("mta/root/var/told"), "start\nstop\nTERM\n");

    // All stops run to their end, also when the last daemon has ended before.
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
fn hazard_37_a_root_without_service_has_no_odd_file() {
    let world = World::new();
    world.ok("rm -f busybox/bin/service");
    let conf = world.subhost("mta", "START=networking ssh");
    world.boot(&conf);
    until("the log to tell", || {
        world
            .read("/tmp/overlay-mta.log")
            .contains("ssh is not started")
    });
    assert_eq!(world.inside("mta", "ls -A /"), world.ok("ls -A busybox"));
}

#[test]
fn hazard_39_start_with_several_words_is_no_shell_error() {
    let world = World::new();
    world.script("busybox/bin/service", "echo $* >>/var/order");
    let conf = world.subhost("mta", "START=one two three");
    world.boot(&conf);
    until("the services", || {
        world.has("mta/root/var/order") && world.read("mta/root/var/order").lines().count() == 3
    });
    assert_eq!(
        world.read("mta/root/var/order"),
        "one start\ntwo start\nthree start\n"
    );
    let log = world.read("/tmp/overlay-mta.log");
    assert!(!log.contains("sh:") && !log.contains("[:"), "{log}");
    // `none` is no service, be it alone or among others.
    let conf = world.subhost("odd", "START=none x");
    world.boot(&conf);
    until("the service", || world.has("odd/root/var/order"));
    world.ok("overlay-stop odd");
    assert_eq!(world.read("odd/root/var/order"), "x start\nx stop\n");
}

#[test]
fn services_are_started_in_order_by_path_and_by_name() {
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
    assert!(
        order().starts_with("one start\nservice two start"),
        "{}",
        order()
    );
    assert!(
        order()
            .lines()
            .nth(3)
            .unwrap()
            .starts_with("service * start"),
        "{}",
        order()
    );
    until("the stand-in", || {
        world.inside("mta", "ps").contains("dummy_service")
    });
    assert!(world.read("/tmp/overlay-mta.log").contains("Z spoken\n"));
}

#[test]
fn hazard_37_a_root_without_a_service_command_boots_and_leaves_no_odd_file() {
    let world = World::new();
    world.ok("rm -f busybox/bin/service");
    let conf = world.conf("mta", "BASE=.\nLOWER=../busybox");
    world.boot(&conf);
    until("the log to tell", || {
        world
            .read("/tmp/overlay-mta.log")
            .contains("ssh is not started: this root has no service command")
    });
    assert_eq!(world.ok("ls -A mta/root"), "etc");
}

#[test]
fn services_are_stopped_inside_the_last_one_first() {
    let world = World::new();
    let script = "echo \"$(basename $0) $1 $(readlink /proc/self/ns/pid)\" >>/var/order";
    for service in ["one", "two", "three"] {
        world.script(format!("busybox/etc/{service}"), script);
    }
    let conf = world.subhost("mta", "START=/etc/one /etc/two /etc/three");
    world.boot(&conf);
    let order = || world.read("mta/root/var/order");
    until("the services to be started", || {
        world.has("mta/root/var/order") && order().lines().count() == 3
    });
    let namespace = world.inside("mta", "readlink /proc/self/ns/pid");
    world.ok("overlay-stop mta");
    let expected = [
        "one start",
        "two start",
        "three start",
        "three stop",
        "two stop",
        "one stop",
    ];
    let expected: Vec<String> = expected
        .iter()
        .map(|line| format!("{line} {namespace}"))
        .collect();
    assert_eq!(order().lines().collect::<Vec<_>>(), expected);
}
