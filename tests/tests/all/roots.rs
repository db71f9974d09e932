//! The kinds of roots: an overlay, a bind mount, a root that is mounted before the boot.

use end_to_end::{World, is_root_or_tell, until};

#[test]
fn hazard_10_mounted_root_is_taken_by_any_spelling() {
    let world = World::new();
    world.make_busybox("mta/tree");
    for path in ["live", "live/", "./live"] {
        let conf = world.conf(
            "mta",
            &format!("BASE=.\nSTART=none\nLOWER={path}\nUPPER={path}\nLIVE={path}"),
        );
        world.ok("mount --bind mta/tree mta/live");
        let before = world.snapshot();
        world.boot(&conf);
        assert_eq!(world.ok("overlay-go mta ls /etc/group"), "/etc/group");
        world.ok("overlay-stop mta");
        world.assert_same(&before);
        world.ok("umount mta/live");
    }
}

#[test]
fn hazard_35_root_needs_no_tmp_and_keeps_an_existing_tmp() {
    let world = World::new();
    world.ok("rm -r busybox/tmp");
    let conf = world.subhost("without", "");
    world.boot(&conf);
    assert_eq!(
        world.inside("without", "ls -d /tmp 2>/dev/null || echo none"),
        "none"
    );
    world.write("busybox/tmp/there", "there\n");
    world.script("busybox/etc/one", "cat /tmp/there >/var/seen");
    let conf = world.subhost("with", "START=/etc/one");
    world.boot(&conf);
    until("the service", || {
        world.has("with/root/var/seen") && world.read("with/root/var/seen") == "there\n"
    });
}

#[test]
fn root_without_dev_stays_up_without_a_service() {
    let world = World::new();
    world.ok("cp -r busybox bare && rm -rf bare/dev && mkdir -p bare/proc bare/sys");
    let bare = format!("{}/bare", world.directory());
    let conf = world.conf(
        "mta",
        &format!(
            "BASE=.\nLOWER={bare}\nUPPER={bare}\nLIVE={bare}\nSTART=none\nCABLES==\nPOSTMOUNT=/bin/true"
        ),
    );
    world.boot(&conf);
    until("the placeholder", || {
        world.inside("mta", "ps").contains("dummy_service")
    });
    assert!(!world.has("bare/dev"));
    world.ok("overlay-stop mta");
}

#[test]
fn root_may_be_an_overlay_a_bind_mount_or_present() {
    let world = World::new();
    let overlay = world.subhost("overlay", "");
    let bind = world.subhost("bind", "LOWER=../busybox\nUPPER=../busybox/\nWORK=nowhere");
    world.make_busybox("there/live");
    let there = world.conf(
        "there",
        "BASE=.\nSTART=none\nLOWER=live\nUPPER=live\nLIVE=live",
    );
    world.make_busybox("mounted/live");
    let mounted = world.conf(
        "mounted",
        "BASE=.\nSTART=none\nLOWER=live\nUPPER=live\nLIVE=live",
    );
    world.ok("mount --bind mounted/live mounted/live");
    let before = world.snapshot();
    for (conf, name, kind) in [
        (overlay, "overlay", "overlay"),
        (bind, "bind", "ext"),
        (there, "there", ""),
        (mounted, "mounted", ""),
    ] {
        world.boot(&conf);
        world.inside(name, &format!("touch /var/{name}"));
        let root = world.inside(
            name,
            "grep ' / / ' /proc/1/mountinfo || grep ' / rw' /proc/1/mountinfo",
        );
        assert!(
            kind != "overlay" || root.contains("- overlay overlay "),
            "{root}"
        );
    }
    assert!(world.has("overlay/root/var/overlay") && world.has("busybox/var/bind"));
    assert!(world.has("there/live/var/there") && world.has("mounted/live/var/mounted"));
    assert!(!world.has("busybox/var/overlay"));
    world.ok("overlay-stop overlay bind there mounted");
    world.assert_same(&before);
    assert!(world.has("there/live/bin/busybox"));
}

#[test]
fn adjtime_of_the_host_covers_that_of_the_root() {
    if !is_root_or_tell("a file in /etc") {
        return;
    }
    let world = World::new();
    world.write("etc/adjtime", "host\n");
    world.ok("cp -a /etc/passwd /etc/group etc; mount --bind etc /etc");
    world.write("busybox/etc/adjtime", "own\n");
    let conf = world.subhost("mta", "");
    world.boot(&conf);
    assert_eq!(world.inside("mta", "cat /etc/adjtime"), "host");
}
