//! Objects of the host that are visible inside, their flags and propagation.

use end_to_end::{World, is_root_or_tell};

/// A world whose /etc is a copy, so that a test may damage it.
fn world_with_adjtime() -> World {
    let world = World::new();
    world.ok("cp -a /etc etc && mount --bind etc /etc && echo '0.0 0 0.0\n0\nUTC' >/etc/adjtime");
    world
}

#[test]
fn f01_adjtime_of_the_host_keeps_content_owner_and_mode() {
    let world = world_with_adjtime();
    world.ok("echo old >busybox/etc/adjtime && chmod 644 /etc/adjtime");
    let before = world.ok("cat /etc/adjtime; stat -c '%a %u %g' /etc/adjtime");
    for level in ["no", "yes", "strict"] {
        if level == "strict" && !is_root_or_tell("PROTECT=strict") {
            continue;
        }
        let conf = world.subhost("mta", &format!("PROTECT={level}"));
        world.ok(&format!("chmod 700 mta && overlay-boot {conf}"));
        assert_eq!(
            world.ok("overlay-go mta cat /etc/adjtime"),
            world.ok("cat /etc/adjtime")
        );
        world.run(
            "overlay-go mta sh -c 'mount -o remount,bind,rw /etc/adjtime; cat /bin/busybox >/etc/adjtime; \
             chmod 4755 /etc/adjtime; chown 1 /etc/adjtime'",
        );
        let after = world.ok("cat /etc/adjtime; stat -c '%a %u %g' /etc/adjtime");
        assert_eq!(after, before, "{level}");
        world.ok("overlay-stop mta");
    }
}

/// A line that mounts inside on what is shared at /srv, and in a directory of it.
const MOUNT: &str = "mount -t tmpfs inside /srv/below; mount -t tmpfs inside /srv; mount --make-rshared /srv; \
     mount -t tmpfs inside /srv; :";

/// Mounts that are made inside on a share stay inside, also where the host's root is shared.
fn nothing_propagates(level: &str, share: &str) {
    let world = World::new();
    world.ok("mkdir -p shared/below && mount --bind shared shared && mount --make-shared shared");
    let conf = world.subhost("mta", &format!("PROTECT={level}\nSHARE=../shared:/mnt"));
    world.ok(&format!("chmod 700 mta && overlay-boot {conf}"));
    world.ok(&format!("overlay-share {share} mta"));
    let before = world.ok("cut -d' ' -f5- /proc/self/mountinfo");
    world.run(&format!("overlay-go mta sh -c '{MOUNT}'"));
    world.run(&format!(
        "overlay-go mta sh -c '{}'",
        MOUNT.replace("/srv", "/mnt")
    ));
    assert_eq!(
        world.ok("cut -d' ' -f5- /proc/self/mountinfo"),
        before,
        "{level} {share}"
    );
    world.ok("overlay-stop mta");
    assert!(!world.ok("cat /proc/self/mountinfo").contains(" inside "));
}

#[test]
fn r01_mount_on_share_stays_inside_at_no() {
    for share in ["shared:/srv", "shared:/srv:ro", "shared:/srv:rec"] {
        nothing_propagates("no", share);
    }
}

#[test]
fn r01_mount_on_share_stays_inside_at_strict() {
    if is_root_or_tell("PROTECT=strict") {
        for share in ["shared:/srv", "shared:/srv:ro", "shared:/srv:rec,idmap"] {
            nothing_propagates("strict", share);
        }
    }
}

#[test]
fn r02_share_given_at_run_time_stays_read_only_at_strict() {
    if !is_root_or_tell("PROTECT=strict") {
        return;
    }
    let world = World::new();
    let conf = world.subhost("mta", "PROTECT=strict");
    world.ok(&format!("chmod 700 mta && overlay-boot {conf}"));
    world.ok("mkdir -m 700 closed && mkdir -m 777 closed/tree && mknod closed/tree/node c 1 3 && chmod 666 closed/tree/node");
    world.ok("echo kept >closed/tree/file && chmod 666 closed/tree/file && cp -p closed/tree/file closed/one");
    world.ok("mkdir -p mta/root/deep/er && chmod 755 mta/root/deep mta/root/deep/er");
    for share in [
        "closed/tree:/srv:ro",
        "closed/tree:/mapped:ro,idmap",
        "closed/one:/deep/er/one:ro",
        "closed/one:/run/one:ro,idmap",
        "closed/tree:/run/dir:ro",
        "closed/tree:/srv:ro", // once more on the same place
    ] {
        world.ok(&format!("overlay-share {share} mta"));
        let place = share.split(':').nth(1).expect("a destination");
        let attempt = format!(
            "mount -o remount,bind,rw {place}; mkdir -p /elsewhere; : >/elsewhere-file; \
             mount --bind {place} /elsewhere; mount --bind {place} /elsewhere-file; \
             for p in {place} /elsewhere /elsewhere-file; do mount -o remount,bind,rw $p; echo evil >$p; echo evil >$p/file; \
             echo evil >$p/new; done; exec 2>&1; mount -o remount,bind,dev {place}; true"
        );
        world.run(&format!("overlay-go mta sh -c '{attempt}'"));
        let left = world.ok("cat closed/tree/file closed/one; ls closed/tree");
        assert_eq!(left, "kept\nkept\nfile\nnode", "{share}");
        world.run("overlay-go mta sh -c 'umount /elsewhere /elsewhere-file'");
    }
    // Nothing that the way there needed is left behind, and nothing is shared.
    let table = world.inside("mta", "cat /proc/self/mountinfo");
    assert!(
        !table.contains("shared:") && !table.contains("master:"),
        "{table}"
    );
    world.ok("overlay-stop mta");
}

#[test]
fn r02_device_in_mapped_share_stays_closed_at_strict() {
    if !is_root_or_tell("PROTECT=strict") {
        return;
    }
    let world = World::new();
    let conf = world.subhost("mta", "PROTECT=strict");
    world.ok(&format!("chmod 700 mta && overlay-boot {conf}"));
    world.ok("mkdir -m 700 closed && mkdir closed/tree && mknod -m 666 closed/tree/node c 1 5");
    world.ok("overlay-share closed/tree:/mapped:idmap mta");
    let done = world.run(
        "overlay-go mta sh -c 'mount -o remount,bind,dev /mapped; head -c 1 /mapped/node >/dev/null'",
    );
    assert_ne!(done.status, 0, "{done:?}");
    assert_eq!(
        world.ok("overlay-go mta sh -c 'echo new >/mapped/new; cat /mapped/new'"),
        "new"
    );
}
