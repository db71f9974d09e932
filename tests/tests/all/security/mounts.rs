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

/// Mounts inside on the share at /srv, and on a directory below it.
const MOUNT: &str = "mount -t tmpfs inside /srv/below; mount -t tmpfs inside /srv; mount --make-rshared /srv; \
     mount -t tmpfs inside /srv; :";

/// Checks that mounts on a share stay inside, also if the root of the host is a shared mount.
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

/// The mounts that are visible inside: the level, the mount point, the flags and the type.
///
/// The level `*` is every level. docs/security.md has the same list, with the reasons. The only
/// mounts of the host are the root and the shares; only these are on a disk.
const VISIBLE: &[(&str, &str, &str)] = &[
    ("*", "/dev", "rw,nosuid tmpfs"),
    ("*", "/dev/pts", "rw,nosuid,noexec devpts"),
    ("*", "/dev/shm", "rw,nosuid,nodev tmpfs"),
    ("*", "/run", "rw,nosuid,nodev tmpfs"),
    ("*", "/etc/adjtime", "rw,nosuid tmpfs"),
    ("*", "/etc/passwd", "ro,nosuid,nodev,noexec tmpfs"), // MASK
    ("*", "/proc", "rw,nosuid,nodev,noexec proc"),
    ("*", "/share", "rw disk"),
    ("*", "/share-ro", "ro disk"),
    ("*", "/share-rec", "rw disk"),
    ("*", "/share-rec/sub", "rw disk"),
    ("*", "/share-file", "rw disk"),
    ("*", "/share-of-share-ro", "ro disk"),
    ("*", "/late", "rw disk"),
    ("*", "/late-ro", "ro disk"),
    ("no", "/sys", "rw,nosuid,nodev,noexec sysfs"),
    ("yes", "/sys", "rw,nosuid,nodev,noexec sysfs"), // below the next one
    ("yes", "/sys", "ro,nosuid,nodev,noexec sysfs"),
    ("yes", "/dev/console", "rw,nosuid tmpfs"), // /dev/null
    ("strict", "/sys", "rw,nosuid,nodev,noexec sysfs"),
    ("strict", "/sys", "rw,nosuid,nodev,noexec sysfs"), // a copy, for `ip netns exec`
    ("strict", "/dev/console", "rw,nosuid tmpfs"),
    ("strict", "/share-idmap", "rw,nodev,idmapped disk"),
    ("strict", "/late-idmap", "rw,nodev,idmapped disk"),
    ("strict", "/late-idmap-ro", "ro,nodev,idmapped disk"),
];

/// The root itself, by what the configuration says of it.
fn root_of(level: &str, more: &str) -> &'static str {
    match (level, more) {
        ("strict", "READONLY=yes") => "ro,nodev overlay",
        ("strict", "LOWER=root") => "rw,nodev,idmapped disk",
        ("strict", _) => "rw,nodev overlay",
        ("yes", "READONLY=yes") => "ro,nodev overlay",
        ("yes", "LOWER=root") => "rw,nodev disk",
        ("yes", _) => "rw,nodev overlay",
        (_, "READONLY=yes") => "ro overlay",
        (_, "LOWER=root") => "rw disk",
        _ => "rw overlay",
    }
}

/// Whether this is a read-only cover of a path below /proc or /sys; subhost.conf(5), PROTECT, lists
/// them.
fn is_cover(point: &str, mount: &str) -> bool {
    let below = ["/proc/", "/sys/"]
        .iter()
        .any(|kernel| point.starts_with(kernel));
    below && mount.starts_with("ro,nosuid,nodev,noexec ")
}

/// A line of mountinfo as in [`VISIBLE`], with its place and whether it is private.
fn described(line: &str) -> (String, String, bool) {
    let fields: Vec<&str> = line.split(' ').collect();
    let end = fields
        .iter()
        .position(|field| *field == "-")
        .expect("a table of mounts");
    let flags: Vec<&str> = fields[5]
        .split(',')
        .filter(|flag| !flag.ends_with("atime"))
        .collect();
    let kind = match fields[end + 1] {
        known @ ("tmpfs" | "devpts" | "proc" | "sysfs" | "overlay") => known,
        _ => "disk",
    };
    (
        fields[4].to_owned(),
        format!("{} {kind}", flags.join(",")),
        end == 6,
    )
}

fn mounts_are_as_listed(level: &str) {
    for more in ["", "READONLY=yes", "READONLY=volatile", "LOWER=root"] {
        let world = world_with_adjtime();
        world.ok("echo old >busybox/etc/adjtime; mkdir -p shared/sub other third; echo x >file");
        world.ok("mount --bind third shared/sub; mount --make-shared shared/sub");
        world.ok("mkdir busybox/late busybox/late-ro busybox/late-idmap busybox/late-idmap-ro");
        let mut shares = "MASK=/etc/passwd\nSHARE=../shared:/share\nSHARE=../shared:/share-ro:ro\n\
            SHARE=../shared:/share-rec:rec\nSHARE=../file:/share-file\nSHARE_RO=../other:/share-of-share-ro"
            .to_owned();
        let mut late = vec!["other:/late", "other:/late-ro:ro"];
        if level == "strict" {
            shares += "\nSHARE=../other:/share-idmap:idmap";
            late.extend(["other:/late-idmap:idmap", "other:/late-idmap-ro:ro,idmap"]);
        }
        let conf = world.subhost("mta", &format!("{more}\nPROTECT={level}\n{shares}"));
        world.ok("cp -a busybox/. mta/root/; chmod 700 mta");
        world.ok(&format!("overlay-boot {conf}"));
        for share in late {
            world.ok(&format!("overlay-share {share} mta"));
        }
        let table = world.inside("mta", "cat /proc/self/mountinfo");
        let mut found = Vec::new();
        for (point, mount, is_private) in table.lines().map(described) {
            assert!(
                is_private,
                "{level} {more}: {point} {mount} is not private:\n{table}"
            );
            if !is_cover(&point, &mount) {
                found.push(format!("{point} {mount}"));
            }
        }
        let listed = VISIBLE.iter().filter(|(at, ..)| ["*", level].contains(at));
        let mut listed: Vec<_> = listed
            .map(|(_, point, mount)| format!("{point} {mount}"))
            .collect();
        listed.push(format!("/ {}", root_of(level, more)));
        found.sort();
        listed.sort();
        assert_eq!(found, listed, "{level} {more}");
        world.ok("overlay-stop mta");
    }
}

#[test]
fn f01_mounts_inside_are_those_listed_at_no() {
    mounts_are_as_listed("no");
}

#[test]
fn f01_mounts_inside_are_those_listed_at_yes() {
    if is_root_or_tell("PROTECT=yes") {
        mounts_are_as_listed("yes");
    }
}

#[test]
fn f01_mounts_inside_are_those_listed_at_strict() {
    if is_root_or_tell("PROTECT=strict") {
        mounts_are_as_listed("strict");
    }
}

#[test]
fn r01_undo_of_mounts_leaves_their_peers_on_the_host() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok("mkdir -p tree/below && mount --bind tree tree && mount -t tmpfs tmpfs tree/below");
    let before = world.snapshot();
    world.ok(&format!(
        "ob-conf {conf} | ob-mount >made && mount --rbind tree mta/live/dev && \
         ob-mount --undo <made >/dev/null"
    ));
    world.assert_same(&before);
}
