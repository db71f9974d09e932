//! Layers that are used twice, bad words in a configuration that would grant more, and the file
//! that records ranges of ids.

use end_to_end::{Running, World, until};

/// A world in which the subhost `a` runs, with LOWER=../busybox and the default layers.
fn world_with_a() -> World {
    let world = World::new();
    let conf = world.subhost("a", "");
    world.ok(&format!("overlay-boot {conf}"));
    world
}

#[test]
fn r03_layer_of_a_running_subhost_is_refused() {
    let world = world_with_a();
    world.ok("mkdir -p a/root/x/root a/root/x/work a/root/x/live a/work/x a/live/x other b/in");
    world.ok("ln -s a/root link; mkdir alias; mount --bind a/root alias");
    let running = world.snapshot_of_idle("a");
    for (plan, words) in [
        // The same directory.
        ("UPPER=../a/root", &["UPPER=", "as UPPER="][..]),
        ("UPPER=../a/work", &["UPPER=", "as WORK="]),
        ("UPPER=../a/live", &["UPPER=", "as LIVE="]),
        ("WORK=../a/root", &["WORK=", "as UPPER="]),
        ("WORK=../a/work", &["WORK=", "as WORK="]),
        ("LIVE=../a/root", &["LIVE=", "as UPPER="]),
        ("LIVE=../a/work", &["LIVE=", "as WORK="]),
        ("LOWER=../a/root", &["LOWER=", "as UPPER="]),
        ("LOWER=../a/work", &["LOWER=", "as WORK="]),
        ("LOWER=../a/live", &["LOWER=", "as LIVE="]),
        ("LOWER=../other\nUPPER=../busybox", &["UPPER=", "as LOWER="]),
        ("LOWER=../other\nWORK=../busybox", &["WORK=", "as LOWER="]),
        ("LOWER=../link", &["LOWER=", "as UPPER="]),
        ("LOWER=../alias", &["LOWER=", "as UPPER="]),
        // Bound.
        ("LOWER=../a/root\nUPPER=../a/root", &["UPPER=", "as UPPER="]),
        // One in the other.
        (
            "UPPER=../a/root/x/root\nWORK=../a/root/x/work",
            &["UPPER=", "it lies in UPPER="],
        ),
        ("UPPER=../a/work/x", &["UPPER=", "it lies in WORK="]),
        ("UPPER=../a/live/x", &["UPPER=", "it lies in LIVE="]),
        ("WORK=../link/x/work", &["WORK=", "it lies in UPPER="]),
        ("LIVE=../a/root/x/live", &["LIVE=", "it lies in UPPER="]),
        ("LOWER=../a/root/x", &["LOWER=", "it lies in UPPER="]),
        ("LOWER=../a/live/x", &["LOWER=", "it lies in LIVE="]),
        (
            "LOWER=../a/root/x\nUPPER=../a/root/x",
            &["UPPER=", "it lies in UPPER="],
        ),
        ("UPPER=../a", &["UPPER=", "root lies in it"]),
        ("LIVE=../a", &["LIVE=", "root lies in it"]),
    ] {
        let conf = world.subhost("b", plan);
        let done = world.run(&format!("overlay-boot {conf}"));
        done.fails(1, &["ob-mount: b: ", "is in use by the subhost a"]);
        done.fails(1, words);
        world
            .run(&format!("overlay-boot -n {conf}"))
            .fails(1, words);
        world.assert_same(&running);
    }
    world.ok("umount alias; overlay-go a true; overlay-stop a");
}

#[test]
fn r03_layers_that_are_only_read_are_shared() {
    let world = world_with_a();
    world.ok("mkdir -p busybox/srv/live");
    for (name, plan) in [
        ("b", ""),
        ("c", "LOWER=/"),
        ("d", "LOWER=/"),
        ("e", "LIVE=../busybox/srv/live"),
        ("bound", "UPPER=../busybox"),
        ("too", "UPPER=../busybox"),
    ] {
        let conf = world.subhost(name, plan);
        world.ok(&format!("overlay-boot {conf}"));
    }
    assert_eq!(world.ok("ob-list --confs | wc -l"), "7");
    world.ok("overlay-stop --all");
    // Nothing stays locked.
    for name in ["a", "b", "e"] {
        world.ok(&format!("overlay-boot {name}/{name}.conf"));
    }
    world.ok("overlay-stop --all");
}

#[test]
fn r03_layers_of_one_plan_must_stand_apart() {
    let world = World::new();
    world.ok("mkdir -p b/root/in b/work/in b/live/in lower; ln -s root b/link");
    world.ok("mkdir b/alias; mount --bind b/root b/alias");
    let before = world.snapshot();
    for (plan, words) in [
        (
            "WORK=root",
            &["WORK=", "and UPPER=", "lie one in the other"][..],
        ),
        (
            "WORK=root/in",
            &["WORK=", "and UPPER=", "lie one in the other"],
        ),
        (
            "UPPER=work/in",
            &["WORK=", "and UPPER=", "lie one in the other"],
        ),
        (
            "WORK=link/in",
            &["WORK=", "and UPPER=", "lie one in the other"],
        ),
        (
            "WORK=alias",
            &["WORK=", "and UPPER=", "lie one in the other"],
        ),
        (
            "LIVE=root",
            &["UPPER=", "and LIVE=", "lie one in the other"],
        ),
        ("LIVE=work", &["WORK=", "and LIVE=", "lie one in the other"]),
        (
            "LIVE=root/in",
            &["UPPER=", "and LIVE=", "lie one in the other"],
        ),
        (
            "UPPER=live/in",
            &["UPPER=", "and LIVE=", "lie one in the other"],
        ),
        ("LIVE=.", &["UPPER=", "and LIVE=", "lie one in the other"]),
        ("LOWER=root/in", &["LOWER=", "is UPPER=", "or lies in it"]),
        ("LOWER=link", &["LOWER=", "is UPPER=", "or lies in it"]),
        ("LOWER=alias", &["LOWER=", "is UPPER=", "or lies in it"]),
        ("LOWER=work", &["LOWER=", "is WORK=", "or lies in it"]),
        (
            "LOWER=root\nUPPER=root\nLIVE=link",
            &["UPPER=", "one directory"],
        ),
    ] {
        let conf = world.subhost("b", plan);
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &["ob-mount: b: "])
            .fails(1, words);
        world
            .run(&format!("overlay-boot -n {conf}"))
            .fails(1, words);
        world.assert_same(&before);
    }
    // An overlay may lie on its own LOWER.
    let conf = world.subhost("b", "LIVE=../busybox");
    world.ok(&format!("overlay-boot {conf} && overlay-stop b"));
    world.ok("umount b/alias");
}

#[test]
fn r03_of_nested_boots_at_once_one_wins() {
    let world = World::new();
    let outer = world.subhost("outer", "");
    world.ok("mkdir -p outer/root/x/root outer/root/x/work");
    let inner = world.subhost(
        "inner",
        "UPPER=../outer/root/x/root\nWORK=../outer/root/x/work",
    );
    let before = world.snapshot();
    for _ in 0..10 {
        let boots =
            [&outer, &inner].map(|conf| world.line(&format!("overlay-boot {conf}")).start());
        let ends = boots.map(Running::wait);
        let failed: Vec<_> = ends.iter().filter(|end| end.status != 0).collect();
        assert_eq!(failed.len(), 1, "{ends:#?}");
        failed[0].fails(1, &["UPPER=", "is in use by"]);
        world.ok("overlay-stop --all");
        world.assert_same(&before);
    }
}

#[test]
fn r03_locks_of_a_room_without_guard_are_kept() {
    let world = World::new();
    let conf = world.subhost("a", "");
    world.ok("mkdir a/root/x");
    let holder = world
        .line(&format!(
            "ob-unshare --room sh -ec 'ob-conf {conf} | ob-mount >made; : >ready; exec sleep 1000'"
        ))
        .start();
    until("the mounts", || world.has("ready"));
    for plan in ["WORK=../a/work", "LOWER=../a/root", "UPPER=../a/root/x"] {
        let conf = world.subhost("b", plan);
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &["is in use by another subhost"]);
    }
    drop(holder);
}
