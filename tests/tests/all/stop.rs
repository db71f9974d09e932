//! overlay-stop: how running and starting subhosts are stopped.

use end_to_end::{Done, World, booted, is_root_or_tell, not_done, until};
use std::time::Instant;

#[test]
fn signal_to_overlay_boot_cancels_the_boot() {
    let world = World::new();
    world.script("mta/pre", "touch begun; exec sleep 1000");
    let conf = world.subhost("mta", "PREMOUNT=./pre\nCABLES==");
    let before = world.snapshot();
    for (option, signal) in [("", "INT"), ("-f", "TERM"), ("", "HUP")] {
        let line = format!(
            "trap : INT; overlay-boot {option} {conf} & boot=$!; until [ -e mta/begun ]; do sleep 0.02; done; kill -{signal} $boot; wait $boot"
        );
        let done = world.run(&line);
        assert!(
            done.status == 1 && done.err.contains("a signal ended it"),
            "{done:#?}"
        );
        world.until_same(&before);
        world.ok("rm mta/begun");
    }
}

#[test]
fn every_process_gets_term_under_any_pid_1() {
    let world = World::new();
    let ends_on_term = "(trap 'echo TERM >>/root/got; exit' TERM; : >/root/ready$N; while :; do sleep 0.05; done) &";
    let conf = world.subhost("mta", "INIT=./init\nSTOP_TIMEOUT=60");
    world.init(
        "mta",
        &format!("N=1; {ends_on_term}\nN=2; {ends_on_term}\nexec sleep 100000"),
    );
    let before = world.snapshot();
    world.boot(&conf);
    until("both processes to wait for TERM", || {
        world.has("mta/root/root/ready1") && world.has("mta/root/root/ready2")
    });
    let start = Instant::now();
    world.ok("overlay-stop mta");
    // Pid 1 ignores TERM, but is alone at once, so overlay-stop does not wait for STOP_TIMEOUT.
    assert!(start.elapsed().as_secs() < 50);
    assert_eq!(world.read("mta/root/root/got"), "TERM\nTERM\n");
    world.assert_same(&before);
}

#[test]
fn hazard_31_stop_cancels_a_boot() {
    let world = World::new();
    for (name, hook) in [
        ("before", "PREMOUNT"),
        ("after", "POSTMOUNT"),
        ("at", "INIT"),
    ] {
        let conf = world.subhost(name, &format!("{hook}=./hook\nCABLES=="));
        world.script(format!("{name}/hook"), ": >$BASE/begun; sleep 100000");
        let before = world.snapshot();
        let boot = world.line(&format!("overlay-boot {conf}")).start();
        until("the hook to begin", || world.has(format!("{name}/begun")));
        assert_eq!(world.state(name), "starting");
        world
            .run(&format!("overlay-go {name} true"))
            .fails(125, &[name, "is starting"]);
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &[name, "it is starting", &conf]);
        world.ok(&format!("overlay-stop {name}"));
        world.assert_same(&before);
        assert_eq!(boot.wait().status, 1);
    }
}

#[test]
fn several_subhosts_stop_at_the_same_time() {
    let world = World::new();
    let names: Vec<String> = (0..5)
        .map(|number| {
            let name = format!("s{number}");
            let conf = world.subhost(&name, "INIT=./init\nSTOP_TIMEOUT=8");
            world.init(
                &name,
                "trap '' TERM; sleep 100000 & : >/root/ready; exec sleep 100000",
            );
            world.boot(&conf);
            until("pid 1 to ignore TERM", || {
                world.has(format!("{name}/root/root/ready"))
            });
            name
        })
        .collect();
    let start = Instant::now();
    world.ok(&format!("overlay-stop {}", names.join(" ")));
    let seconds = start.elapsed().as_secs();
    assert!(
        (7..35).contains(&seconds),
        "{seconds} s for five subhosts of 8 s each"
    );
    assert_eq!(world.names(), "");
}

#[test]
fn concurrent_stops_return_when_the_subhost_is_gone() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    for _ in 0..5 {
        world.boot(&conf);
        let stops: Vec<_> = (0..3).map(|_| world.line("overlay-stop mta; status=$?; [ ! -e /run/netns/mta ] || exit 9; exit $status").start()).collect();
        let stops: Vec<Done> = stops.into_iter().map(|stop| stop.wait()).collect();
        for stop in &stops {
            let late = stop.status == 1 && stop.err.contains("mta: not running");
            assert!(stop.status == 0 || late, "{stop:?}");
        }
        assert!(stops.iter().any(|stop| stop.status == 0));
        world.assert_same(&before);
    }
}

/// Attacks 2 and 19 at the end of a subhost: root inside, with all capabilities, inspects the
/// shutdown helper.
#[test]
fn shutdown_helper_exposes_no_host_descriptors() {
    if !is_root_or_tell("the shutdown helper") {
        return;
    }
    let (world, _) = booted("CABLES==\nSTOP_TIMEOUT=2");
    let w = world.directory();
    // The spy ignores TERM, so that it runs until the kernel kills it.
    let spy = format!(
        "trap '' TERM; while :; do for p in /proc/[0-9]*; do echo $(readlink $p/exe) $(for f in $p/fd/*; do readlink $f; done); [ ! -e $p/root{w}/busybox ] || echo host; done; done"
    );
    let start = world.line("overlay-go mta -- sh -c 'sh -c \"$0\" >/seen 2>/dev/null &' \"$SPY\"");
    start.env("SPY", &spy).run().ok();
    until("the spy to look", || {
        world.has("mta/root/seen") && !world.read("mta/root/seen").is_empty()
    });
    world.ok("overlay-stop mta");
    let seen = world.read("mta/root/seen");
    let of_ours: Vec<&str> = seen
        .lines()
        .filter(|line| line.contains("ob-unshare"))
        .collect();
    assert!(
        !of_ours.is_empty(),
        "the spy did not see the helper: {seen}"
    );
    for line in of_ours {
        // The helper also opens a procfs of the subhost.
        let descriptors = line.strip_prefix("/memfd:ob-unshare (deleted)");
        let descriptors = descriptors.unwrap_or_else(|| panic!("{line}"));
        for of_the_host in ["pipe:", "socket:", "/dev/", w] {
            assert!(!descriptors.contains(of_the_host), "{line}");
        }
    }
    assert!(!seen.contains("host"), "the root of the host is reachable");
}

/// Makes a control group in which processes can be frozen so that SIGKILL does not end them:
/// version 1 of cgroups. Returns its path, or `None` if the host has no such tree.
fn freezer(world: &World) -> Option<String> {
    let w = world.directory();
    let mounted = world.run("mkdir freezer; mount -t cgroup -o freezer freezer freezer");
    if mounted.status != 0 {
        not_done("a frozen pid 1", "needs the freezer of cgroups version 1");
        return None;
    }
    let group = format!("{w}/freezer/ob-test-{}", std::process::id());
    world.ok(&format!("mkdir {group}"));
    Some(group)
}

#[test]
fn r07_stuck_subhost_takes_no_time_of_another() {
    let world = World::new();
    let Some(group) = freezer(&world) else { return };
    let conf = world.subhost("frozen", "STOP_TIMEOUT=1");
    world.boot(&conf);
    let slow = world.subhost("slow", "INIT=./init\nSTOP_TIMEOUT=25");
    world.init(
        "slow",
        "trap 'sleep 14; : >/finished; exit' TERM; : >/ready; while :; do sleep 0.1; done",
    );
    world.boot(&slow);
    until("the slow pid 1", || world.has("slow/root/ready"));
    let pid = &world.document("frozen")["pid"];
    world.ok(&format!(
        "echo {pid} >{group}/cgroup.procs; echo FROZEN >{group}/freezer.state"
    ));
    until("pid 1 is frozen", || {
        world.ok(&format!("cat {group}/freezer.state")) == "FROZEN"
    });
    let stop = world.run("overlay-stop frozen slow");
    world.ok(&format!("echo THAWED >{group}/freezer.state"));
    let gone = || !world.has("/run/overlay-boot/frozen");
    until("the thawed subhost ends", gone);
    until("the group is empty", || {
        world.run(&format!("rmdir {group}")).status == 0
    });
    stop.fails(1, &["frozen", "does not exit after SIGKILL"]);
    assert!(!stop.err.contains("slow"), "{stop:?}");
    assert!(world.has("slow/root/finished"));
    assert_eq!(world.names(), "");
}

#[test]
fn r08_many_subhosts_stop_with_few_open_files() {
    let world = World::new();
    let names: Vec<String> = (0..12).map(|number| format!("s{number}")).collect();
    for name in &names {
        let conf = world.subhost(name, "");
        world.boot(&conf);
    }
    world.ok(&format!(
        "ulimit -S -n 20; overlay-stop {}",
        names.join(" ")
    ));
    assert_eq!(world.names(), "");
}

#[test]
fn r08_too_many_open_files_are_not_a_subhost_that_is_gone() {
    let (world, _) = booted("");
    for files in 3..12 {
        for command in [
            "ob-list --names mta",
            "ob-list --documents mta",
            "ob-enter --no-pty -- mta true",
        ] {
            let done = world.run(&format!("ulimit -n {files}; {command}"));
            assert!(!done.err.contains("not running"), "{files}: {done:?}");
        }
    }
    assert_eq!(world.names(), "mta ");
}

#[test]
fn r10_zombie_is_no_running_pid_1() {
    let (world, _) = booted("");
    let pid = &world.document("mta")["pid"];
    let supervisor = world.ok(&format!("cut -d' ' -f4 /proc/{pid}/stat"));
    world.ok(&format!("kill -STOP {supervisor}; kill -9 {pid}"));
    until("pid 1 is a zombie", || {
        world.ok(&format!("cut -d' ' -f3 /proc/{pid}/stat")) == "Z"
    });
    assert_eq!(world.state("mta"), "stopping");
    world
        .run("overlay-go mta true")
        .fails(125, &["mta", "not running"]);
    world.ok(&format!("kill -CONT {supervisor}"));
    until("the subhost is gone", || world.names().is_empty());
}
