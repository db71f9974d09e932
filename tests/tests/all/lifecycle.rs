//! A subhost is never lost: what is refused, how it is stopped, how it ends by itself, and what finds it again when those who look
//! after it were killed.

use end_to_end::{BOUND, Done, NO_CGROUP, World, not_done, until};
use std::time::Instant;

fn boot(world: &World, conf: &str) {
    world.ok(&format!("overlay-boot {conf}"));
}

fn names(world: &World) -> String {
    world.run("ob-list --names").out.replace('\n', " ")
}

/// Lists the state of one, as overlay-list prints it.
fn state(world: &World, name: &str) -> String {
    let list = world.run(&format!("ob-list --json {name}"));
    let list: serde_json::Value = serde_json::from_str(&list.out).unwrap_or_default();
    list[0]["state"].as_str().unwrap_or("none").to_owned()
}

/// An INIT script that prints `text`.
fn init(world: &World, name: &str, text: &str) {
    world.script(format!("{name}/init"), &format!("cat <<'END'\n{text}\nEND"));
}

#[test]
fn hazard_6_a_second_boot_is_refused_and_names_the_one_that_runs() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    boot(&world, &conf);
    let pid = world.document("mta")["pid"].to_string();
    let before = world.snapshot_of_idle("mta");
    let again = world.run(&format!("overlay-boot {conf}"));
    again.fails(1, &["mta", "it runs already", &format!("pid {pid}"), &conf]);
    world.assert_same(&before);
}

#[test]
fn another_conf_with_its_name_live_or_upper_is_refused_and_told_whose_it_is() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    boot(&world, &conf);
    let before = world.snapshot_of_idle("mta");
    let namesake = world.subhost("namesake", "NAME=mta");
    let live = world.subhost("live", "LIVE=../mta/live");
    let upper = world.subhost("upper", "UPPER=../mta/root\nWORK=../mta/work");
    let bound = world.subhost("bound", "UPPER=../mta/root\nLOWER=../mta/root");
    world.ok("ln -s mta/root elsewhere");
    let link = world.subhost("link", "UPPER=../elsewhere\nWORK=../mta/work");
    let refused = world.run(&format!("overlay-boot {namesake}"));
    refused.fails(1, &["mta", "it runs already", &conf]);
    for (conf, variable) in [
        (live, "LIVE"),
        (upper, "UPPER"),
        (bound, "UPPER"),
        (link, "UPPER"),
    ] {
        let refused = world.run(&format!("overlay-boot {conf}"));
        refused.fails(1, &[variable, "mta"]);
    }
    world.assert_same(&before);
    world.ok("overlay-stop mta");
    boot(&world, &namesake);
    // The conf that it was not started from is another's.
    world
        .run(&format!("overlay-stop {conf}"))
        .fails(1, &["mta", &namesake]);
    world.ok(&format!("overlay-stop {namesake}"));
}

#[test]
fn hazards_3_to_7_what_is_called_nearly_the_same_is_another() {
    let world = World::new();
    let before = world.snapshot();
    let confs = [
        ("one", "one/web.conf", "NAME=web-one"),
        ("two", "two/web.conf", "NAME=web-two"),
        ("dots", "dots/a.d", ""),
        ("letters", "letters/axd", ""),
        ("suffix", "suffix/a.conf.old", ""),
        ("plain", "plain/mta", ""),
        ("unlike", "unlike/mta.conf", "NAME=other"),
        ("plus", "plus/c+.conf", "NAME=c+"),
    ];
    let mut expected = Vec::new();
    for (directory, path, more) in confs {
        let conf = world.subhost(directory, more);
        let path = format!("{}/{path}", world.directory());
        world.ok(&format!("[ -e {path} ] || mv {conf} {path}"));
        let name = match more.strip_prefix("NAME=") {
            Some(name) => name.to_owned(),
            None => world.ok(&format!(
                "ob-conf --env {path} NAME | cut -d= -f2 | tr -d \\'"
            )),
        };
        boot(&world, &path);
        expected.push((name, path));
    }
    // What only speaks of a subhost is none, and hides none.
    let talk =
        "echo $$ >/run/talk; sh -c 'sleep 100000; : overlay-boot dots/a.d /plain/mta one/web.conf'";
    let _talk = world.line(talk).start();
    until("it to be told", || world.has("/run/talk"));
    let mut running: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    running.sort_unstable();
    assert_eq!(
        names(&world).split_whitespace().collect::<Vec<_>>(),
        running
    );
    world
        .run("overlay-go a.. true")
        .fails(125, &["a..", "not running"]);
    while let Some((name, path)) = expected.pop() {
        world.ok(&format!("overlay-go {name} true"));
        // By name or by conf, also one that is given without a slash.
        match expected.len() % 3 {
            0 => world.ok(&format!("overlay-stop {name}")),
            1 => world.ok(&format!("overlay-stop {path}")),
            _ => world.ok(&format!(
                "cd $(dirname {path}); overlay-stop ./$(basename {path})"
            )),
        };
        for (name, _) in &expected {
            assert_eq!(
                world.run(&format!("overlay-go {name} true")).status,
                0,
                "{name}"
            );
        }
        assert_eq!(names(&world).split_whitespace().count(), expected.len());
    }
    world.ok("pkill -9 -P $(cat /run/talk); pkill -9 -x sleep; rm /run/talk");
    world.until_same(&before);
}

#[test]
fn services_are_stopped_inside_the_last_one_first() {
    let world = World::new();
    let script = "echo \"$(basename $0) $1 $(readlink /proc/self/ns/pid)\" >>/var/order";
    for service in ["one", "two", "three"] {
        world.script(format!("busybox/etc/{service}"), script);
    }
    let conf = world.subhost("mta", "START=/etc/one /etc/two /etc/three");
    boot(&world, &conf);
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

#[test]
fn every_process_is_told_to_end_whatever_pid_1_is() {
    let world = World::new();
    let heedful = "(trap 'echo told >>/root/told; exit' TERM; : >/root/ready$N; while :; do sleep 0.05; done) &";
    let conf = world.subhost("mta", "INIT=./init\nSTOP_TIMEOUT=60");
    init(
        &world,
        "mta",
        &format!("N=1; {heedful}\nN=2; {heedful}\nexec sleep 100000"),
    );
    let before = world.snapshot();
    boot(&world, &conf);
    until("both to be ready", || {
        world.has("mta/root/root/ready1") && world.has("mta/root/root/ready2")
    });
    let start = Instant::now();
    world.ok("overlay-stop mta");
    // Pid 1 heeds nothing, but is alone at once: nobody waits for it.
    assert!(start.elapsed().as_secs() < 50);
    assert_eq!(world.read("mta/root/root/told"), "told\ntold\n");
    world.assert_same(&before);
}

#[test]
fn what_hangs_hangs_nobody() {
    let world = World::new();
    world.script("busybox/etc/hangs", "[ $1 = start ] || exec sleep 100000");
    world.script(
        "busybox/etc/deaf",
        "[ $1 = stop ] || { trap '' TERM; sleep 100000 & }; : >/var/$1",
    );
    let conf = world.subhost("mta", "START=/etc/deaf /etc/hangs\nSTOP_TIMEOUT=1");
    let before = world.snapshot();
    boot(&world, &conf);
    until("the services to be started", || {
        world.inside("mta", "ps").contains("ob-reaper")
    });
    let stop = world.run("overlay-stop mta");
    assert_eq!(stop.status, 0, "{stop:?}");
    assert!(
        stop.err.contains("/etc/hangs did not stop within 1 s"),
        "{stop:?}"
    );
    assert!(
        world.has("mta/root/var/stop"),
        "the others are stopped all the same"
    );
    world.assert_same(&before);
}

#[test]
fn a_stop_while_it_is_starting_cancels_the_start() {
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
        assert_eq!(state(&world, name), "starting");
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
fn several_are_stopped_at_once() {
    let world = World::new();
    world.script("busybox/etc/hangs", "[ $1 = start ] || exec sleep 100000");
    let deaf: Vec<String> = (0..5)
        .map(|number| {
            let name = format!("s{number}");
            let conf = world.subhost(&name, "INIT=./init\nSTOP_TIMEOUT=8");
            init(
                &world,
                &name,
                "trap '' TERM; sleep 100000 & : >/root/ready; exec sleep 100000",
            );
            boot(&world, &conf);
            until("it to be deaf", || {
                world.has(format!("{name}/root/root/ready"))
            });
            name
        })
        .collect();
    let start = Instant::now();
    world.ok(&format!("overlay-stop {}", deaf.join(" ")));
    let seconds = start.elapsed().as_secs();
    assert!(
        (7..35).contains(&seconds),
        "{seconds} s for five that take 8 s each"
    );
    assert_eq!(names(&world), "");
}

#[test]
fn two_stops_of_the_same_both_return_when_it_is_gone() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    for _ in 0..5 {
        boot(&world, &conf);
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

#[test]
fn it_may_end_by_itself_in_every_way_and_leaves_nothing() {
    let world = World::new();
    world.script("busybox/etc/short", "[ $1 = stop ] || sleep 0.2 &");
    let ways = [
        ("last", "START=/etc/short", None),
        (
            "fifo",
            "",
            Some("until [ -p /run/dummy_service ]; do sleep 0.01; done; echo >/run/dummy_service"),
        ),
        ("power", "", Some("poweroff -f")),
        ("again", "", Some("reboot -f")),
        ("halt", "", Some("halt -f")),
        ("exits", "INIT=./init", None),
        ("fails", "INIT=./init", None),
        ("dies", "", Some("kill -9 -1; :")),
    ];
    init(&world, "exits", "sleep 0.2");
    init(&world, "fails", "sleep 0.2; exit 7");
    for (name, more, line) in ways {
        let conf = world.subhost(name, &format!("{more}\nCABLES=="));
        let before = world.snapshot();
        boot(&world, &conf);
        if let Some(line) = line {
            // The subhost takes with it who tells it to end.
            world
                .line(&format!("overlay-go {name} sh -c \"$LINE\""))
                .env("LINE", line)
                .run();
            if name == "dies" {
                let pid = world.run(&format!("ob-list --json {name}")).out;
                let pid: serde_json::Value = serde_json::from_str(&pid).unwrap_or_default();
                world.run(&format!("kill -9 {}", pid[0]["pid"]));
            }
        }
        world.until_same(&before);
        let log = world.read(format!("/tmp/overlay-{name}.log"));
        assert!(
            log.contains("pid 1 has ended") || log.contains("pid 1 was ended by"),
            "{name}: {log}"
        );
        assert!(name != "fails" || log.contains("with status 7"), "{log}");
        world
            .run(&format!("overlay-stop {name}"))
            .fails(1, &[name, "not running"]);
    }
}

#[test]
fn the_list_tells_the_states() {
    let world = World::new();
    let conf = world.subhost("a", "");
    assert_eq!(world.ok("overlay-list --names"), "");
    boot(&world, &conf);
    let slow = world.subhost("b", "PREMOUNT=./hook");
    world.script("b/hook", ": >$BASE/begun; sleep 100000");
    let starting = world.line(&format!("overlay-boot {slow}")).start();
    until("the hook to begin", || world.has("b/begun"));
    let deaf = world.subhost("c", "INIT=./init\nSTOP_TIMEOUT=60");
    init(
        &world,
        "c",
        "trap '' TERM; sleep 100000 & : >/root/ready; exec sleep 100000",
    );
    boot(&world, &deaf);
    until("it to be deaf", || world.has("c/root/root/ready"));
    let stopping = world.line("overlay-stop c").start();
    until("it to be stopping", || state(&world, "c") == "stopping");
    assert_eq!(
        (state(&world, "a"), state(&world, "b")),
        ("running".into(), "starting".into())
    );
    assert_eq!(world.ok("overlay-list --names"), "a\nb\nc");
    assert_eq!(
        world.ok("overlay-list a >/dev/null; overlay-list --state running --names"),
        "a"
    );
    assert_eq!(world.run("overlay-list b").status, 1);
    assert_eq!(world.run("overlay-list a b").status, 1);
    world
        .run("overlay-list nobody")
        .fails(1, &["nobody", "not running"]);
    let json = world.ok("overlay-list --json a");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["pid"], world.document("a")["pid"]);
    assert_eq!(
        json[0]["conf"].as_str().or(json[0]["config"].as_str()),
        Some(conf.as_str()),
        "{json}"
    );
    world.ok("kill -9 $(ob-list --json c | grep -o '\"pid\":[0-9]*' | cut -d: -f2)");
    assert_eq!(stopping.wait().status, 0);
    world.ok("overlay-stop a b");
    starting.wait();
}

#[test]
fn while_its_services_are_stopped_it_is_stopping() {
    let world = World::new();
    let conf = world.subhost("mta", "START=/slow\nSTOP_TIMEOUT=100");
    world.script(
        "mta/root/slow",
        "[ $1 = stop ] || exit 0\n: >/root/asked\nuntil [ -e /root/done ]; do sleep 0.05; done",
    );
    boot(&world, &conf);
    let stop = world
        .line("echo $$ >stopper; exec overlay-stop mta >said 2>&1")
        .start();
    until("the service to be asked", || {
        world.has("mta/root/root/asked")
    });
    assert_eq!(state(&world, "mta"), "stopping");
    // A stop that dies has stopped nothing.
    world.ok("kill -9 $(cat stopper)");
    stop.wait();
    until("it to run again", || state(&world, "mta") == "running");
    world.inside("mta", "rm /root/asked");
    let stop = world.line("overlay-stop mta").start();
    until("it to be asked again", || world.has("mta/root/root/asked"));
    assert_eq!(state(&world, "mta"), "stopping");
    world.inside("mta", ": >/root/done");
    assert_eq!(stop.wait().status, 0);
    assert_eq!(world.run("overlay-list mta").status, 1);
}

#[test]
fn hazard_21_the_down_commands_of_a_bridgeless_cable_run_at_its_end() {
    let world = World::new();
    let state = "/run/network/ifstate";
    world.ok("mkdir -p /run/network; : >/run/network/ifstate; : >called");
    world.script(
        "bin/ifup",
        &format!("echo \"up $1\" >>$W/called; ip link set $1 up; echo $1=$1 >>{state}"),
    );
    world.script("bin/ifdown", &format!("echo \"down $1 $(cat /sys/class/net/$1/operstate >/dev/null && echo there)\" >>$W/called; sed -i \"/^$1=/d\" {state}"));
    world.script("bin/ifquery", "exit 0");
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    let mut expected = String::new();
    for way in [
        "overlay-stop mta",
        "kill -9 $(ob-list --json mta | grep -o '\"pid\":[0-9]*' | cut -d: -f2)",
    ] {
        world.ok(&format!("PATH=$W/bin:$PATH overlay-boot {conf}"));
        expected.push_str("up mta0\n");
        assert_eq!(world.read("called"), expected);
        world.ok(&format!("PATH=$W/bin:$PATH; {way}"));
        world.until_same(&before);
        expected.push_str("down mta0 there\n");
        assert_eq!(world.read("called"), expected);
    }
}

#[test]
fn its_control_group_is_joined_by_who_enters_and_goes_with_it() {
    let world = World::new();
    if !world.has_cgroup() {
        return not_done("the control group of who enters", NO_CGROUP);
    }
    let conf = world.subhost("mta", "");
    let before = world.snapshot();
    boot(&world, &conf);
    let group = "/sys/fs/cgroup/mta/cgroup.procs";
    let count = || world.ok(&format!("cat {group}")).lines().count();
    until("the reaper and the stand-in", || count() == 2);
    let guest = world
        .line("exec overlay-go mta sh -c 'sleep 100000 & exec sleep 100000'")
        .start();
    until("the guests to be in the group", || count() == 4);
    // Groups that were made below it go too.
    world.ok("mkdir /sys/fs/cgroup/mta/below /sys/fs/cgroup/mta/below/below");
    world.ok("overlay-stop mta");
    assert_ne!(guest.wait().status, 0);
    world.assert_same(&before);
    // One that is somebody else's is not taken, and nobody in it comes to harm.
    world.ok("mkdir /sys/fs/cgroup/mta; sleep 100000 >/dev/null 2>&1 </dev/null & echo $! >/run/other; echo $! >/sys/fs/cgroup/mta/cgroup.procs");
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["control group", "in use"]);
    world.ok("kill $(cat /run/other); rm /run/other; until rmdir /sys/fs/cgroup/mta; do sleep 0.01; done 2>/dev/null");
    world.until_same(&before);
}

/// The supervisor, pid 1's parent.
fn supervisor(world: &World) -> String {
    let pid = world.document("mta")["pid"].to_string();
    world.ok(&format!("cut -d' ' -f4 /proc/{pid}/stat"))
}

#[test]
fn a_killed_supervisor_takes_the_subhost_along_and_its_guard_cleans_up() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    boot(&world, &conf);
    let supervisor = supervisor(&world);
    world.ok(&format!("kill -9 {supervisor}"));
    world.until_same(&before);
}

#[test]
fn hazard_38_without_its_guard_a_subhost_is_found_all_the_same() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    for end in [
        "overlay-stop mta",
        "overlay-go mta kill -9 -1; overlay-go mta poweroff -f; overlay-list",
    ] {
        boot(&world, &conf);
        world.ok(&format!("kill -9 {}", world.document("mta")["guard"]));
        assert_eq!(
            world.ok("overlay-list --names mta; overlay-go mta echo entered"),
            "mta\nentered"
        );
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &["it runs already"]);
        world.run(end);
        let start = Instant::now();
        while before.difference(&world.snapshot()).is_some() && start.elapsed() < BOUND {
            world.run("overlay-list");
        }
        world.assert_same(&before);
    }
}

#[test]
fn hazards_15_and_32_the_next_one_cleans_up_after_all_were_killed() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES== =\nSHARE=/etc:/mnt");
    let before = world.snapshot();
    let victims = [
        "$guard $supervisor",
        "$supervisor $guard",
        "$guard $supervisor $pid",
        "$pid $guard $supervisor",
    ];
    let cures = [
        "overlay-list",
        "overlay-stop mta",
        &format!("overlay-stop {conf}"),
        &format!("overlay-boot {conf} && overlay-stop mta"),
        "ob-list --documents mta | ob-unshare --undo --then 'ob-cable --undo'",
    ];
    for victims in victims {
        for cure in cures {
            boot(&world, &conf);
            let (guard, pid) = (
                &world.document("mta")["guard"],
                &world.document("mta")["pid"],
            );
            let supervisor = supervisor(&world);
            // A guard that is still awake when the supervisor goes may have cleaned up before its own turn comes.
            world.ok(&format!(
                "guard={guard} supervisor={supervisor} pid={pid}; kill -STOP $guard; kill -9 {victims} || :"
            ));
            until("it to be dead", || state(&world, "mta") == "dead");
            assert!(world.has("/run/netns/mta"));
            let cured = world.run(cure);
            assert_eq!(cured.status, 0, "{cured:?}");
            if cure.starts_with("overlay-list") || cure.starts_with("overlay-boot") {
                assert!(
                    cured
                        .err
                        .contains("mta: cleaned up what a killed predecessor had left"),
                    "{cured:?}"
                );
            }
            world.assert_same(&before);
        }
    }
}

#[test]
fn a_damaged_document_is_cleaned_up_by_its_name() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    boot(&world, &conf);
    let guard = &world.document("mta")["guard"];
    let supervisor = supervisor(&world);
    world.ok(&format!("kill -9 {guard} {supervisor}; until [ \"$(ob-list --json mta | grep dead)\" ]; do sleep 0.01; done; echo '{{' >/run/overlay-boot/mta/subhost"));
    boot(&world, &conf);
    world.ok("overlay-stop mta");
    world.until_same(&before);
}

#[test]
fn hazard_32_a_subhost_that_ends_by_itself_leaves_nothing() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    world.script(
        "busybox/etc/one",
        "(until [ -e /go ]; do sleep 0.05; done) &",
    );
    let conf = world.subhost("mta", "START=/etc/one\nCABLES=br0= =");
    let before = world.snapshot();
    boot(&world, &conf);
    // Else it has nothing to wait for, and is kept up by a stand-in.
    until("the service to have started", || {
        world.inside("mta", "cat /proc/1/comm") == "ob-reaper"
    });
    // From outside, for who is inside ends with it.
    let pid = &world.document("mta")["pid"];
    world.ok(&format!("touch /proc/{pid}/root/go"));
    world.until_same(&before);
}
