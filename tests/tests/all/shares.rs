//! Shares: files and directories of the host that are mounted into a subhost.

use end_to_end::{World, booted};

#[test]
fn hazard_09_overlay_share_mounts_into_a_running_subhost() {
    let (world, _) = booted("");
    world.ok("mkdir -p data/below busybox/there; echo host >data/file; echo one >single; mount -t tmpfs tmpfs data/below; echo deep >data/below/file");
    let before = world.ok("cut -d' ' -f5 /proc/self/mountinfo");
    world.ok("overlay-share $W/data:/mnt/data mta; overlay-share $W/data:/mnt/ro:ro mta; overlay-share $W/data:/mnt/all:ro,rec mta; overlay-share data:/there mta; overlay-share single:/one mta");
    let go = |line: &str| world.run(&format!("overlay-go mta sh -c '{line}'"));
    assert_eq!(
        go("cat /mnt/data/file /mnt/ro/file /mnt/all/below/file /there/file /one").ok(),
        "host\nhost\ndeep\nhost\none"
    );
    go("echo inside >/mnt/data/new").ok();
    assert_eq!(world.read("data/new"), "inside\n");
    // Read-only including the mounts below.
    for path in ["/mnt/ro", "/mnt/all", "/mnt/all/below"] {
        let done = go(&format!("echo x >{path}/file"));
        assert!(done.err.contains("Read-only"), "{path}: {done:#?}");
    }
    for (share, reason) in [("/no/such", "no such file"), ("no", "no such file")] {
        world
            .run(&format!("overlay-share {share} mta"))
            .fails(1, &["overlay-share", share, reason]);
    }
    assert_eq!(go("ls /no || :").ok(), "");
    assert_eq!(world.run("overlay-share $W/data nobody").status, 1);
    assert_eq!(world.ok("cut -d' ' -f5 /proc/self/mountinfo"), before);
    world.ok("overlay-stop mta");
    assert_eq!(
        world.ok("ls -A mta/root/mnt/data mta/root/mnt/ro"),
        "mta/root/mnt/data:\n\nmta/root/mnt/ro:"
    );
}

#[test]
fn hazard_27_relative_share_target_is_inside() {
    let world = World::new();
    world.ok("mkdir data; echo shared >data/file");
    let conf = world.subhost("mta", &format!("SHARE={}/data:s", world.directory()));
    world.boot(&conf);
    assert_eq!(world.inside("mta", "cat /s/file"), "shared");
    assert_eq!(world.ok("ls mta"), "live\nmta.conf\nroot\nwork");
}

#[test]
fn share_of_a_missing_path_is_logged_and_leaves_nothing() {
    let (world, _) = booted("SHARE=/no/such:/mnt/s");
    assert_eq!(
        world.inside("mta", "ls -d /mnt 2>/dev/null || echo none"),
        "none"
    );
    assert!(
        world
            .read("/tmp/overlay-mta.log")
            .contains("SHARE=/no/such:/mnt/s: there is no such file")
    );
}
