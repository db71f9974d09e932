//! Bugs of overlay-boot 1.6.4 by which a subhost, or a file that an attacker planted, changed the
//! host.

use end_to_end::{Done, World, booted, until};

#[test]
fn hazard_11_programs_of_the_subhost_never_run_outside() {
    let world = World::new();
    let planted = "for n in mnt pid net; do readlink /proc/self/ns/$n; done >>/var/planted 2>&1; echo \"$0\" >>/var/planted";
    for program in [
        "umount",
        "mount",
        "ip",
        "ifdown",
        "ifup",
        "rm",
        "rmdir",
        "kill",
        "ob-cable",
        "ob-unshare",
        "ob-conf",
        "ob-mount",
        "ob-reaper",
        "sleep",
        "cat",
        "ldd",
    ] {
        world.ok(&format!("rm -f busybox/bin/{program}"));
        world.script(
            format!("busybox/bin/{program}"),
            &planted.replace("readlink", "/bin/busybox readlink"),
        );
    }
    world.ok("ln -s bin busybox/sbin; mkdir busybox/usr; ln -s ../bin busybox/usr/sbin; ln -s ../bin busybox/usr/bin; ip link add br0 type bridge");
    let conf = world.subhost("mta", "CABLES=br0= =");
    let before = world.snapshot();
    for end in [
        "overlay-stop mta",
        "overlay-go mta sh -c 'echo >/run/dummy_service'",
        "kill -9 $(ob-conf --env - pid </run/overlay-boot/mta/subhost | tr -dc 0-9)",
    ] {
        world.boot(&conf);
        until("the placeholder", || {
            world.inside("mta", "ls /run").contains("dummy_service")
        });
        // The kernel may kill this command together with the subhost; only the result counts.
        let _: Done = world.run(end);
        world.until_same(&before);
        assert!(
            !world.has("mta/root/var/planted"),
            "{end}: {}",
            world.read("mta/root/var/planted")
        );
    }
    // A planted program that does run leaves a trace.
    world.boot(&conf);
    let _: Done = world.run("overlay-go mta umount /x");
    assert!(world.read("mta/root/var/planted").ends_with("/umount\n"));
}

#[test]
fn hazard_12_log_in_tmp_follows_no_link_and_holds_no_values() {
    let world = World::new();
    let conf = world.subhost("mta", "PASSWORD=open-sesame");
    world.ok("echo kept >victim; ln -s $W/victim /tmp/overlay-mta.log");
    world.boot(&conf);
    assert_eq!(world.read("victim"), "kept\n");
    assert_eq!(
        world.ok("stat -c '%F %a' /tmp/overlay-mta.log"),
        "regular file 640"
    );
    assert!(!world.read("/tmp/overlay-mta.log").contains("sesame"));
}

#[test]
fn hazard_13_links_in_upper_do_not_reach_the_host() {
    let world = World::new();
    world.ok("mkdir -p victim/network data; echo kept >victim/file; echo shared >data/file");
    let w = world.directory();
    // etc, the file itself, and the targets of shares, by absolute links and by climbing out.
    for (index, plant) in [
        format!("ln -s {w}/victim root/etc"),
        "ln -s ../../victim root/etc".to_owned(),
        format!("mkdir -p root/etc/network; ln -s {w}/victim/new root/etc/network/interfaces"),
        format!("mkdir root/etc; ln -s {w}/victim/network root/etc/network"),
        format!("ln -s {w}/victim root/mnt; ln -s {w}/victim/file root/one"),
        "ln -s ../../victim root/mnt; ln -s ../../victim/file root/one".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("m{index}");
        let conf = world.subhost(
            &name,
            &format!("CABLES==\nSHARE={w}/data:/mnt/s\nSHARE={w}/data/file:/one"),
        );
        world.ok(&format!("cd {name}; {plant}"));
        let victim = || world.ok("find victim -printf '%p %y %m %s\n' | sort; cat victim/file");
        let before = victim();
        world.boot(&conf);
        assert_eq!(victim(), before, "{plant}");
        // A dangling link is followed inside the root, and its target is created there.
        assert_eq!(
            world.inside(&name, "cat /mnt/s/file /one"),
            "shared\nshared",
            "{plant}"
        );
        world.inside(&name, "echo x >/etc/network/interfaces 2>/dev/null || :");
        world.ok(&format!("overlay-stop {name}"));
        assert_eq!(victim(), before, "{plant}");
    }
}

#[test]
fn hazard_24_stop_creates_no_file_in_dev() {
    let (world, _) = booted("");
    world.ok("overlay-stop mta");
    assert!(!world.has("/dev/nukk"));
}
