//! The services of START: how they start and stop inside.

use end_to_end::{Done, World, is_root, is_root_or_tell, not_done, until};

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

/// Boots a subhost with `lines` and an INIT, whose BASE only root can enter.
///
/// `None` if the host has no cgroup2 tree.
fn with_userns(lines: &str) -> Option<World> {
    if !is_root_or_tell("USERNS") {
        return None;
    }
    let world = World::new();
    if !world.has_cgroup() {
        not_done("control groups inside", "needs cgroup2");
        return None;
    }
    let conf = world.subhost("mta", &format!("INIT=cat init\n{lines}"));
    world.ok("chmod 700 mta");
    world.write("mta/init", "sleep 100000 & exec \"$REAPER\" \"$NAME\"");
    world.boot(&conf);
    Some(world)
}

#[test]
fn e03_init_in_a_userns_owns_its_control_group() {
    for lines in ["USERNS=auto", "PROTECT=strict\nCABLES="] {
        let Some(world) = with_userns(lines) else {
            return;
        };
        // As systemd(1) does: a group for itself, and one for each service.
        world.ok("overlay-go mta sh -ec 'cd /sys/fs/cgroup; mkdir init service service/deep; \
            echo 1 >init/cgroup.procs; sleep 100000 >/dev/null 2>&1 & echo $! >service/deep/cgroup.procs'");
        assert_eq!(
            world.ok("overlay-go mta tail -n 1 /proc/1/cgroup"),
            "0::/init"
        );
        let most = world.ok("overlay-go mta cat /sys/fs/cgroup/cgroup.max.descendants");
        assert_eq!(most, "4096");
        // What limits the subhost stays out of reach, and so does the group above.
        for refused in [
            "echo 1 >/sys/fs/cgroup/cgroup.freeze",
            "echo max >/sys/fs/cgroup/cgroup.max.descendants",
            "echo 1 >/sys/fs/cgroup/cgroup.kill",
            "mkdir /sys/fs/cgroup/../other && ls -d /sys/fs/other",
        ] {
            let done = world.run(&format!("overlay-go mta sh -c '{refused}'"));
            assert_ne!(done.status, 0, "{refused} {done:#?}");
        }
        let groups = world.ok("cd /sys/fs/cgroup; find . -type d | sort | tr '\\n' ' '");
        assert_eq!(
            groups,
            ". ./mta ./mta/init ./mta/service ./mta/service/deep ./the-host "
        );
        world.ok("overlay-stop mta");
        assert!(!world.has("/sys/fs/cgroup/mta"));
    }
}

#[test]
fn e03_stop_ends_a_frozen_group_inside() {
    let Some(world) = with_userns("USERNS=auto") else {
        return;
    };
    world.ok("overlay-go mta sh -ec 'cd /sys/fs/cgroup; mkdir service; \
        sleep 100000 >/dev/null 2>&1 & echo $! >service/cgroup.procs; echo 1 >service/cgroup.freeze'");
    world.ok("timeout 60 overlay-stop mta");
    assert!(!world.has("/sys/fs/cgroup/mta"));
}

#[test]
fn e04_console_of_an_init_goes_to_the_log() {
    let levels = [
        "",
        "PROTECT=yes\nCABLES=",
        "USERNS=auto",
        "PROTECT=strict\nCABLES=",
    ];
    let levels = levels.iter().filter(|level| is_root() || level.is_empty());
    for level in levels {
        let world = World::new();
        let conf = world.subhost("mta", &format!("{level}\nINIT=cat init"));
        world.ok("chmod 700 mta");
        world.write(
            "mta/init",
            "[ ! -t 1 ] || echo a terminal; exec 3>&1 </dev/console >/dev/console 2>&1
            [ ! -t 1 ] || echo hello console; stat -c '%u:%g %F' /dev/console >&3
            printf 'without end' >/dev/console; trap 'echo last; exit' TERM
            while :; do sleep 0.1; done",
        );
        world.boot(&conf);
        let log = || world.read("/tmp/overlay-mta.log");
        until("the output", || {
            log().contains("Z 0:5 character special file\n")
        });
        assert!(log().contains("Z hello console\n"), "{}", log());
        // A service or a command that enters can use the console, too, and a reader blocks.
        world.ok(
            "overlay-go mta sh -c 'echo entered >/dev/console; ! timeout 0.2 cat /dev/console'",
        );
        world.ok("overlay-stop mta");
        let log = log();
        assert!(log.contains("without endentered\n"), "{level}: {log}");
        assert!(
            log.contains("Z last\n") && !log.contains('\r'),
            "{level}: {log}"
        );
        assert!(!log.contains("a terminal"), "{level}: {log}");
    }
}

#[test]
fn e04_console_of_a_shared_dev_stays() {
    let world = World::new();
    let conf = world.subhost("mta", "INIT=cat init\nSHARE=/dev");
    world.write("mta/init", "sleep 100000 & exec \"$REAPER\" \"$NAME\"");
    world.ok("mkdir -p mta/root/proc");
    world.boot(&conf);
    assert_eq!(
        world.ok("overlay-go mta stat -c %t:%T /dev/console"),
        world.ok("stat -c %t:%T /dev/console")
    );
}

/// Checks what `ob-conf --check` has printed: one problem with these parts, or nothing.
#[track_caller]
fn says(check: &Done, parts: &[&str]) {
    assert_eq!(check.status, i32::from(!parts.is_empty()), "{check:#?}");
    let problems = check
        .out
        .lines()
        .filter(|line| line.starts_with('/'))
        .count();
    assert_eq!(problems, usize::from(!parts.is_empty()), "{check:#?}");
    assert!(
        parts.iter().all(|part| check.out.contains(part)),
        "{check:#?}"
    );
}

#[test]
fn e08_service_without_init_script_is_reported() {
    let world = World::new();
    let check = |conf: &str| world.run(&format!("ob-conf --check {conf}"));
    let over_busybox =
        |name: &str, lines: &str| world.conf(name, &format!("{lines}\nBASE=.\nLOWER=../busybox"));
    world.script("busybox/etc/init.d/one", "echo one $1");
    world.script(
        "busybox/bin/service",
        "[ -x /etc/init.d/$1 ] || { echo $1: unrecognized service >&2; exit 1; }; exec /etc/init.d/$1 $2",
    );
    let conf = over_busybox("mta", "START=one two /etc/three none");
    world.script("mta/root/etc/three", "exit 7");
    says(
        &check(&conf),
        &["1:7: two has no script in /etc/init.d", "set INIT"],
    );
    world.boot(&conf);
    until("the messages in the log", || {
        let log = world.read("/tmp/overlay-mta.log");
        let is_said = |text: &str| log.contains(text);
        assert!(!is_said("one: its start"), "{log}");
        is_said("two: its start has ended with status 1\n")
            && is_said("/etc/three: its start has ended with status 7\n")
    });
    world.ok("overlay-stop mta");
    // A script in either layer counts, a whiteout hides one; INIT and other roots are not judged.
    world.script("mta/root/etc/init.d/two", "");
    says(&check(&conf), &[]);
    if is_root() {
        world.ok("mknod mta/root/etc/init.d/one c 0 0");
        says(&check(&conf), &["one has no script"]);
    }
    let conf = over_busybox("init", "START=two\nINIT=echo exec sleep 100");
    says(&check(&conf), &[]);
    world.ok("rm -r busybox/etc/init.d");
    let conf = over_busybox("bare", "START=two");
    says(&check(&conf), &[]);
}

#[test]
fn check_reports_comma_in_start_and_bad_ram_size() {
    let world = World::new();
    let check = |line: &str| {
        let conf = world.conf("mta", &format!("{line}\nBASE=.\nLOWER=../busybox"));
        world.run(&format!("ob-conf --check {conf}"))
    };
    for start in ["networking, ssh", "networking,ssh", ", networking ssh,"] {
        says(
            &check(&format!("START={start}")),
            &["write START=networking ssh"],
        );
    }
    for size in ["lots", "50 M", "50MB", "-1", "M", "5%%", "0x10"] {
        says(
            &check(&format!("RAM_SIZE={size}")),
            &[&format!("RAM_SIZE={size} is not a size")],
        );
    }
    for size in ["none", "50M", "10%", "1g", "65536"] {
        says(&check(&format!("RAM_SIZE={size}")), &[]);
    }
}

#[test]
fn e03_systemd_without_mounts_is_reported() {
    let world = World::new();
    let check = |lines: &str| {
        let conf = world.subhost("mta", lines);
        world.write("mta/init", "mkdir -p /run/x; exec /sbin/init\n");
        world.ok(
            "chmod 700 mta; mkdir -p busybox/sbin; ln -sf ../lib/systemd/systemd busybox/sbin/init",
        );
        world.run(&format!("ob-conf --check {conf}"))
    };
    for init in [
        "echo exec /sbin/init",
        "cat init",
        "echo 'exec /lib/systemd/systemd'",
    ] {
        says(
            &check(&format!("PROTECT=yes\nINIT={init}")),
            &["2:6: systemd cannot mount"],
        );
        says(&check(&format!("INIT={init}")), &[]);
    }
    says(&check("PROTECT=yes\nINIT=echo exec /bin/init"), &[]);
    if is_root() {
        says(&check("PROTECT=strict\nINIT=cat init"), &[]);
        says(&check("PROTECT=yes\nUSERNS=auto\nINIT=cat init"), &[]);
    }
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
