//! The kinds of roots: an overlay, a bind mount, a mount that exists already.

use end_to_end::{World, until};

#[test]
fn hazard_10_a_root_that_is_mounted_already_is_taken_however_its_path_is_written() {
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
fn hazard_35_a_root_needs_no_tmp_and_it_is_not_hidden_while_booting() {
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
