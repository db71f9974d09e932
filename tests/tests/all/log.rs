//! The log: which lines the stages write.

use end_to_end::{World, until};

#[test]
fn log_names_each_step_and_its_stage() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    let conf = world.subhost("mta", "CABLES=br0=");
    let w = world.directory();
    for (command, traced) in [
        ("overlay-boot", false),
        ("overlay-boot -v", true),
        ("TRACE=1 overlay-boot", true),
        ("TRACE=0 overlay-boot", false),
    ] {
        world.ok(&format!("{command} {conf}; overlay-stop mta"));
        let log = world.ok("overlay-log mta");
        let mut texts = Vec::new();
        for line in log.lines() {
            let (date, text) = line.split_once(' ').expect("a date");
            assert!(date.len() == 20 && date.ends_with('Z'), "{line}");
            texts.push(text);
        }
        let mounted = format!("ob-mount: mounted {w}/mta/live/dev/pts");
        assert_eq!(
            texts.contains(&mounted.as_str()),
            traced,
            "{command}: {log}"
        );
        let linked = "ob-cable: made mta0 in br0, and eth0 in /run/netns/mta";
        assert_eq!(texts.contains(&linked), traced, "{command}: {log}");
        texts.retain(|text| {
            !text.starts_with("ob-mount: mounted ") && !text.starts_with("ob-cable: made ")
        });
        assert_eq!(
            texts[0],
            format!("ob-mount: an overlay of {w}/mta/root on {w}/mta/../busybox is the root")
        );
        assert_eq!(
            texts[1],
            "ob-cable: /run/netns/mta is the network with mta0 on the host"
        );
        assert!(
            texts[2].starts_with("ob-unshare: pid 1 has started, as "),
            "{log}"
        );
        assert!(
            texts[3..]
                .iter()
                .all(|text| text.starts_with("ob-unshare: pid 1 ")),
            "{log}"
        );
    }
}

#[test]
fn trace_logs_every_link() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    // An ifup that configures one link, fails for the other, and records the first as ifupdown
    // does.
    world.script(
        "bin/ifup",
        "[ $1 = mta1 ] && mkdir -p /run/network && echo $1=$1 >>/run/network/ifstate",
    );
    world.script("bin/ifdown", ":");
    let conf = world.subhost("mta", "CABLES=br0= = =02:00:5e:10:00:01");
    let w = world.directory();
    let life = "export TRACE=1 PATH=$W/bin:$PATH; overlay-boot {conf}; overlay-stop mta";
    world.ok(&life.replace("{conf}", &conf));
    let log = world.ok("overlay-log mta");
    let lines: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once(" ob-cable: ")?.1.into())
        .collect();
    assert_eq!(
        lines,
        [
            "made /run/netns/mta, and set lo up",
            "made mta0 in br0, and eth0 in /run/netns/mta",
            "made mta1, and eth1 in /run/netns/mta",
            &format!("ran {w}/bin/ifup mta1"),
            "made mta2, and eth2 in /run/netns/mta",
            &format!(
                "{w}/bin/ifup mta2: exit status: 1, as when interfaces(5) has no stanza for it; going on without"
            ),
            "set mta2 up",
            "/run/netns/mta is the network with mta0 mta1 mta2 on the host",
            &format!("ran {w}/bin/ifdown mta1"),
            "removed /run/netns/mta",
            "mta0 is gone with it",
            "mta1 is gone with it",
            "mta2 is gone with it",
        ]
    );
    // The undo of a failed boot, and a network namespace that another process keeps.
    world.ok("ip link add mtb1 type bridge");
    let conf = world.subhost("mtb", "CABLES=br0= =");
    world.run(&format!("export TRACE=1; overlay-boot {conf}"));
    let log = world.ok(&format!("overlay-log {conf}"));
    for line in ["made mtb0 in br0", "deleted mtb0", "removed /run/netns/mtb"] {
        assert!(
            log.contains(&format!(" ob-cable: {line}")),
            "no {line} in {log}"
        );
    }
    let conf = world.subhost("mtc", "CABLES=br0=");
    world.ok(&format!("overlay-boot {conf}; ip netns exec mtc sleep 1000 >/dev/null 2>&1 & until ip netns pids mtc | grep .; do sleep 0.1; done"));
    world.ok("TRACE=1 overlay-stop mtc");
    let log = world.ok(&format!("overlay-log {conf}"));
    assert!(log.contains(" ob-cable: deleted mtc0"), "{log}");
}

#[test]
fn c03_log_to_a_descriptor_is_refused() {
    let world = World::new();
    for log in [
        "/dev/stdout",
        "/dev/stderr",
        "/dev//fd/1",
        "/dev/../dev/stdin",
        "/proc/self/fd/2",
        "/proc/thread-self/fd/2",
        "/proc/1/fd/1",
        "/dev/tty",
    ] {
        let conf = world.subhost("mta", &format!("LOG={log}"));
        let before = world.snapshot();
        for run in [
            format!("overlay-boot {conf}"),
            format!("ob-conf {conf} | ob-mount"),
        ] {
            world
                .run(&run)
                .fails(1, &["mta.conf:1: LOG=/", "set LOG to a regular file"]);
        }
        let check = world.run(&format!("ob-conf --check {conf}"));
        assert!(
            check.status == 1 && check.out.contains("mta.conf:1:5: LOG="),
            "{check:#?}"
        );
        world.assert_same(&before);
    }
    let conf = world.subhost("mta", "LOG=!echo /dev/stdout");
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["set LOG to a regular file"]);
    let conf = world.subhost("mta", "LOG=/dev/null");
    world.boot(&conf);
}

#[test]
fn r15_guard_writes_to_the_log_that_is_at_its_path() {
    let world = World::new();
    let conf = world.subhost("mta", "LOG=mta.log");
    world.script("fails", "cat >/dev/null; echo cannot clean up >&2; exit 3");
    for create in [": >mta.log", ":"] {
        let cleanup = format!("{}/fails", world.directory());
        world.ok(&format!(
            "ob-room --guard --cleanup {cleanup} ob-conf {conf} '|' ob-mount '|' ob-unshare >/dev/null"
        ));
        let pid = &world.document("mta")["pid"];
        world.ok(&format!(
            "for n in 1 2; do mv mta.log mta.log.1; {create}; [ -e mta.log ] || touch mta.log; done
             {} kill -9 {pid}",
            if create == ":" { "rm mta.log;" } else { "" }
        ));
        until("the message of the guard", || {
            world.has("mta.log") && world.read("mta.log").contains("ended with exit status: 3")
        });
        assert!(world.read("mta.log").contains("cannot clean up"));
        world.ok("overlay-list; rm -f mta.log*");
    }
}
