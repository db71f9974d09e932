//! The end of a subhost: a service that hangs, an end without overlay-stop, and the cleanup after
//! guard, supervisor or pid 1 were killed.

use end_to_end::{BOUND, World, until};
use std::time::Instant;

#[test]
fn hanging_service_does_not_block_the_stop() {
    let world = World::new();
    world.script("busybox/etc/hangs", "[ $1 = start ] || exec sleep 100000");
    world.script(
        "busybox/etc/ignores-term",
        "[ $1 = stop ] || { trap '' TERM; sleep 100000 & }; : >/var/$1",
    );
    let conf = world.subhost("mta", "START=/etc/ignores-term /etc/hangs\nSTOP_TIMEOUT=1");
    let before = world.snapshot();
    world.boot(&conf);
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
        "the other services get their stop"
    );
    world.assert_same(&before);
}

#[test]
fn hazard_32_subhost_that_ends_by_itself_leaves_nothing() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    world.script("busybox/etc/short", "[ $1 = stop ] || sleep 0.2 &");
    world.script(
        "busybox/etc/waits",
        "(until [ -e /go ]; do sleep 0.05; done) &",
    );
    let ways = [
        ("last", "START=/etc/short", None),
        (
            "waits",
            "START=/etc/waits",
            Some("until [ \"$(cat /proc/1/comm)\" = ob-reaper ]; do sleep 0.01; done; touch /go"),
        ),
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
    world.init("exits", "sleep 0.2");
    world.init("fails", "sleep 0.2; exit 7");
    for (name, more, line) in ways {
        let conf = world.subhost(name, &format!("{more}\nCABLES=br0= ="));
        let before = world.snapshot();
        world.boot(&conf);
        if let Some(line) = line {
            // The kernel kills this command with the subhost that it ends.
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

/// Returns the pid of the supervisor, the parent of pid 1.
fn supervisor(world: &World) -> String {
    let pid = world.document("mta")["pid"].to_string();
    world.ok(&format!("cut -d' ' -f4 /proc/{pid}/stat"))
}

#[test]
fn killed_supervisor_ends_the_subhost_and_leaves_nothing() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    world.boot(&conf);
    let supervisor = supervisor(&world);
    world.ok(&format!("kill -9 {supervisor}"));
    world.until_same(&before);
}

#[test]
fn hazard_38_subhost_without_guard_can_be_entered_and_stopped() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    for end in [
        "overlay-stop mta",
        "overlay-go mta kill -9 -1; overlay-go mta poweroff -f; overlay-list",
    ] {
        world.boot(&conf);
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
fn next_command_cleans_up_after_all_were_killed() {
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
        "ob-list --documents mta | ob-room --undo --cleanup 'ob-cable --undo'",
    ];
    for victims in victims {
        for cure in cures {
            world.boot(&conf);
            let (guard, pid) = (
                &world.document("mta")["guard"],
                &world.document("mta")["pid"],
            );
            let supervisor = supervisor(&world);
            // Stopped, because a running guard could clean up between the two kills.
            world.ok(&format!(
                "guard={guard} supervisor={supervisor} pid={pid}; kill -STOP $guard; kill -9 {victims} || :"
            ));
            until("the state to be dead", || world.state("mta") == "dead");
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
fn subhost_with_damaged_document_is_cleaned_up() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    world.boot(&conf);
    let guard = &world.document("mta")["guard"];
    let supervisor = supervisor(&world);
    world.ok(&format!("kill -9 {guard} {supervisor}; until [ \"$(ob-list --json mta | grep dead)\" ]; do sleep 0.01; done; echo '{{' >/run/overlay-boot/mta/subhost"));
    world.boot(&conf);
    world.ok("overlay-stop mta");
    world.until_same(&before);
}

#[test]
fn killed_pid_1_leaves_nothing() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    world.boot(&conf);
    world.ok(&format!("kill -9 {}", world.document("mta")["pid"]));
    world.until_same(&before);
    assert!(
        world
            .read("/tmp/overlay-mta.log")
            .contains("pid 1 was ended by SIGKILL")
    );
    world.ok(&format!("overlay-boot {conf} && overlay-stop {conf}"));
    world.assert_same(&before);
}

#[test]
fn write_to_dummy_service_ends_the_subhost() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    world.boot(&conf);
    until("the placeholder", || {
        world
            .inside("mta", "ps; ls /run")
            .matches("dummy_service")
            .count()
            == 2
    });
    // From outside, because the kernel kills a process inside together with the subhost.
    let pid = &world.document("mta")["pid"];
    world.ok(&format!("echo >/proc/{pid}/root/run/dummy_service"));
    world.until_same(&before);
    world
        .run("overlay-stop mta")
        .fails(1, &["mta: not running"]);
}
