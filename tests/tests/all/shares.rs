//! Shares: files and directories of the host that are mounted into a subhost.

use end_to_end::{World, booted, is_root_or_tell};

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

#[test]
fn b01_link_in_a_destination_is_followed_inside() {
    let world = World::new();
    world.ok("mkdir -p data/sub /etc; echo shared >file; echo below >data/sub/file");
    let root = "busybox";
    for (target, link) in [
        ("../run/systemd/resolve/stub-resolv.conf", "etc/resolv.conf"),
        ("/made/absolute", "etc/absolute"),
        ("../../../../made/above", "etc/above"),
        ("chain", "etc/chained"),
        ("/made/of/links/end", "etc/chain"),
        ("missing/../made/dots", "dotted"),
        ("../made/parent", "srv/parent"),
        ("made/directory/", "directory"),
    ] {
        world.ok(&format!(
            "mkdir -p {root}/etc {root}/srv; ln -s {target} {root}/{link}"
        ));
    }
    let w = world.directory();
    let mut lines = String::new();
    for file in [
        "etc/resolv.conf",
        "etc/absolute",
        "etc/above",
        "etc/chained",
        "dotted",
        "srv/parent/a/b",
    ] {
        lines += &format!("SHARE={w}/file:/{file}\n");
    }
    lines += &format!("SHARE={w}/data:/directory\n");
    let conf = world.subhost("mta", &lines);
    world.boot(&conf);
    let inside = |line: &str| world.inside("mta", line);
    for file in [
        "/etc/resolv.conf /run/systemd/resolve/stub-resolv.conf",
        "/etc/absolute /made/absolute",
        "/etc/above /made/above",
        "/etc/chained /made/of/links/end",
        "/dotted /made/dots",
        "/srv/parent/a/b /made/parent/a/b",
    ] {
        assert_eq!(inside(&format!("cat {file}")), "shared\nshared", "{file}");
    }
    assert_eq!(inside("cat /made/directory/sub/file"), "below");
    // A running subhost follows links in the same way.
    inside("ln -s ../late/file /etc/late; ln -s /late/directory /srv/late");
    world.ok("overlay-share file:/etc/late mta; overlay-share data:/srv/late/x mta");
    assert_eq!(
        inside("cat /late/file /late/directory/x/sub/file"),
        "shared\nbelow"
    );
    world.ok("overlay-stop mta");
    assert!(!world.has("/made") && !world.has("/run/systemd") && !world.has("made"));
    // A link that leads to itself is an error of the boot.
    world.ok("ln -s loop busybox/loop");
    let conf = world.subhost("mta", &format!("SHARE={w}/data:/loop/x"));
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["ob-mount: mta: ", "at /loop/x", "symbolic links"]);
}

#[test]
fn b01_dev_run_and_proc_as_links_boot() {
    let world = World::new();
    world.ok("rm -rf busybox/dev busybox/run busybox/proc busybox/sys; mkdir -p busybox/var");
    world.ok("for d in dev run proc sys; do ln -s var/$d busybox/$d; done; rm busybox/run busybox/sys; ln -s /var/sys busybox/sys; ln -s ../var/run busybox/run");
    let conf = world.subhost("mta", "");
    world.boot(&conf);
    let mounted = world.inside("mta", "cut -d' ' -f2 /proc/mounts");
    for path in [
        "/var/dev",
        "/var/dev/pts",
        "/var/dev/shm",
        "/var/run",
        "/var/proc",
        "/var/sys",
    ] {
        assert!(
            mounted.lines().any(|line| line == path),
            "{path}: {mounted}"
        );
    }
    assert_eq!(
        world.ok("overlay-go mta sh -c 'echo x >/dev/null; ls /dev/null'"),
        "/dev/null"
    );
    world.ok("overlay-stop mta");
    assert!(!world.has("/var/dev") && !world.has("/var/proc"));
}

#[test]
fn b02_share_in_a_share_is_visible_in_any_order() {
    let world = World::new();
    world.ok("mkdir -p a/sub a/deep/er b c; echo a >a/file; echo b >b/file; echo c >c/file");
    world.ok("mkdir -p busybox/var/lib; ln -s /srv/deep busybox/short");
    let w = world.directory();
    let lines = [
        format!("SHARE_RO={w}/a:/srv"),
        format!("SHARE={w}/b:/srv/sub"),
        format!("SHARE={w}/c:/short/er"), // /srv/deep/er by a link
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        for read_only in ["SHARE_RO", "SHARE"] {
            let lines = order.map(|number| lines[number].replace("SHARE_RO", read_only) + "\n");
            let conf = world.subhost("mta", &lines.concat());
            world.ok("rm -rf mta/root mta/work; mkdir mta/root mta/work");
            world.boot(&conf);
            let files = "cat /srv/file /srv/sub/file /srv/deep/er/file";
            assert_eq!(world.inside("mta", files), "a\nb\nc", "{lines:?}");
            world.ok("overlay-stop mta");
            let log = world.read("/tmp/overlay-mta.log");
            assert!(!log.contains("SHARE"), "{log}");
        }
    }
    assert_eq!(world.ok("find a | wc -l"), "5");
}

#[test]
fn b02_two_shares_at_one_place_are_logged() {
    let world = World::new();
    world.ok("mkdir a b; echo a >a/file; echo b >b/file");
    let w = world.directory();
    let conf = world.subhost("mta", &format!("SHARE={w}/a:/srv\nSHARE={w}/b:/srv/"));
    world.boot(&conf);
    assert_eq!(world.inside("mta", "cat /srv/file"), "b");
    let log = world.read("/tmp/overlay-mta.log");
    let line = format!("SHARE={w}/b:/srv/ hides SHARE={w}/a:/srv");
    assert!(log.contains(&line), "{log}");
}

#[test]
fn b03_share_below_proc_or_sys_is_refused() {
    let world = World::new();
    world.ok("mkdir k; ln -s /sys/fs busybox/kernel");
    let w = world.directory();
    for destination in ["/sys/fs/bpf", "/proc/fs/x", "proc", "/sys/", "/a/../sys/x"] {
        for variable in ["SHARE", "SHARE_RO"] {
            let conf = world.subhost("mta", &format!("{variable}={w}/k:{destination}"));
            let reason = "would hide the share";
            world.run(&format!("overlay-boot {conf}")).fails(
                1,
                &[
                    "ob-conf: ",
                    &format!("{variable}={w}/k:{destination}"),
                    reason,
                ],
            );
            let check = world.run(&format!("ob-conf --check {conf}"));
            assert!(
                check.status == 1 && check.out.contains(reason),
                "{check:#?}"
            );
            assert!(check.out.contains("mta.conf:1:"), "{check:#?}");
            assert_eq!(world.ok("ls -A mta/root"), "");
        }
    }
    // The root decides where a link leads.
    let conf = world.subhost("mta", &format!("SHARE={w}/k:/kernel/bpf"));
    world.run(&format!("overlay-boot {conf}")).fails(
        1,
        &["ob-mount: mta: ", "/kernel/bpf", "would hide the share"],
    );
    // Below the mounts of a running subhost it is visible.
    let conf = world.subhost("mta", "");
    world.boot(&conf);
    world.ok("touch k/seen; overlay-share k:/sys/fs mta");
    assert_eq!(world.inside("mta", "ls /sys/fs"), "seen");
}

#[test]
fn b04_file_replaced_on_the_host_is_shared_again() {
    let world = World::new();
    let w = world.directory();
    for protect in ["no", "yes"] {
        world.ok("mkdir -p late; echo 1 >file; echo 1 >late/file");
        let conf = world.subhost(
            "mta",
            &format!("PROTECT={protect}\nSHARE={w}/file:/etc/file"),
        );
        world.boot(&conf);
        world.ok("overlay-share late/file:/late mta; overlay-share late:/directory mta");
        for round in ["2", "3"] {
            world.ok(&format!("echo {round} >new; mv new file; mv late old; mkdir late; echo {round} >late/file; rm -r old"));
            world.ok("overlay-share file:/etc/file mta; overlay-share late/file:/late mta; overlay-share late:/directory mta");
            assert_eq!(
                world.inside("mta", "cat /etc/file /late /directory/file"),
                format!("{round}\n{round}\n{round}")
            );
        }
        let stacked = "grep -cE ' (/etc/file|/late|/directory) ' /proc/mounts";
        assert_eq!(world.inside("mta", stacked), "3");
        world.ok("overlay-stop mta; rm -r late");
    }
}

#[test]
fn b04_file_replaced_on_the_host_is_shared_again_at_strict() {
    if !is_root_or_tell("PROTECT=strict") {
        return;
    }
    let world = World::new();
    world.ok("echo 1 >file; echo 1 >boot");
    let w = world.directory();
    let conf = world.subhost("mta", &format!("PROTECT=strict\nSHARE={w}/boot:/etc/boot"));
    world.ok("chmod 700 mta");
    world.boot(&conf);
    for round in ["1", "2", "3"] {
        world.ok(&format!("echo {round} >new; mv new file"));
        world.ok("overlay-share file:/etc/file mta");
        assert_eq!(world.ok("overlay-go mta cat /etc/file"), round);
    }
    assert_eq!(
        world.ok("overlay-go mta grep -c /etc/file /proc/mounts"),
        "1"
    );
    // The kernel has locked the mounts of the boot, and nothing is changed.
    world.ok("echo 2 >new; mv new boot");
    world.run("overlay-share boot:/etc/boot mta").fails(
        1,
        &[
            "overlay-share: mta: ",
            "/etc/boot",
            "locks it",
            "boot again",
        ],
    );
    assert_eq!(world.ok("overlay-go mta cat /etc/boot"), "1");
}

#[test]
fn b06_mount_point_in_another_share_is_logged() {
    let world = World::new();
    world.ok("mkdir a b");
    let w = world.directory();
    let lines = format!("SHARE={w}/b:/srv/new/er\nSHARE={w}/a:/srv");
    let conf = world.subhost("mta", &lines);
    world.boot(&conf);
    let log = world.read("/tmp/overlay-mta.log");
    let line =
        format!("SHARE={w}/b:/srv/new/er: made {w}/a/new/er on the host, in SHARE={w}/a:/srv");
    assert!(log.contains(&line), "{log}");
    world.ok("overlay-stop mta; rm -r a/new");
    // A read-only share is not changed.
    let conf = world.subhost("mta", &lines.replace("\nSHARE=", "\nSHARE_RO="));
    world.run(&format!("overlay-boot {conf}")).fails(
        1,
        &[
            "ob-mount: mta: ",
            &format!("lies in SHARE_RO={w}/a:/srv; create {w}/a/new/er"),
        ],
    );
    assert_eq!(world.ok("ls -A a"), "");
}
