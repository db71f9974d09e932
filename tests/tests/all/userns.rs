//! USERNS: root inside has no privileges outside, files on disk keep their owners, and the same
//! tree boots with and without a user namespace.

mod ranges;

use end_to_end::{World, is_root_or_tell, not_done, until};

/// Makes a world with a private /var/lib, which holds the ranges; `None` unless root runs the
/// tests.
fn world() -> Option<World> {
    if !is_root_or_tell("USERNS") {
        return None;
    }
    let world = World::new();
    world.ok("mkdir lib && mount --bind lib /var/lib && ip link add br0 type bridge && ip link set br0 up");
    Some(world)
}

/// Writes the configuration of a subhost whose BASE only root can enter, as USERNS requires.
fn subhost(world: &World, name: &str, more: &str) -> String {
    let conf = world.subhost(name, more);
    world.ok(&format!("chmod 700 {name}"));
    conf
}

/// Lists the files inside: name, owner, mode, kind and size. Omits /proc and /sys, and the many
/// links to busybox.
fn tree(world: &World, name: &str) -> String {
    let look = "find / -xdev ! -type l ! -path /proc ! -path /sys | sort | while read -r path; do stat -c '%n %u:%g %a %F %s' \"$path\"; done";
    world
        .line(&format!("overlay-go {name} -- sh -c \"$LOOK\""))
        .env("LOOK", look)
        .run()
        .ok()
}

#[test]
fn same_upper_boots_with_and_without_userns() {
    let Some(world) = world() else { return };
    let conf = subhost(&world, "mta", "USERNS=auto\nCABLES=br0=");
    world.ok("echo x >busybox/etc/gone; mkdir -p busybox/etc/replaced/below busybox/etc/renamed; echo x >busybox/etc/renamed/file");
    world.ok("echo kept >mta/root/mine; chown 1000:1000 mta/root/mine; chmod 640 mta/root/mine");
    let before = world.snapshot();
    world.boot(&conf);
    assert_eq!(
        world.ok("overlay-go mta -- stat -c '%u:%g %a' /mine"),
        "1000:1000 640"
    );
    world.ok(
        "overlay-go mta -- sh -ec 'echo a >/new; chown 33:34 /new; chmod 2750 /new; echo b >>/etc/passwd; rm /etc/gone
         rm -r /etc/replaced; mkdir /etc/replaced; mv /etc/renamed /etc/other; cp /bin/busybox /suid; chmod 4755 /suid'",
    );
    assert_eq!(
        world.ok(
            "cd mta/root; stat -c '%n %u:%g %a %F' new suid mine etc/passwd etc/gone etc/other/file"
        ),
        "new 33:34 2750 regular file\nsuid 0:0 4755 regular file\nmine 1000:1000 640 regular file\n\
         etc/passwd 0:0 644 regular file\netc/gone 0:0 0 character special file\netc/other/file 0:0 644 regular file"
    );
    let with = tree(&world, "mta");
    world.ok("overlay-stop mta");
    world.assert_same(&before);

    world.ok("sed -i 's/^USERNS=.*/USERNS=no/' mta/mta.conf");
    world.boot(&conf);
    assert_eq!(
        world
            .ok("overlay-go mta -- cat /proc/self/uid_map")
            .split_whitespace()
            .nth(1),
        Some("0")
    );
    assert_eq!(tree(&world, "mta"), with);
    world.ok("overlay-go mta -- sh -ec 'echo c >/newer; chown 5:6 /newer; rm /new'");
    let without = tree(&world, "mta");
    world.ok("overlay-stop mta");

    world.ok("sed -i 's/^USERNS=.*/USERNS=1000000000/' mta/mta.conf");
    world.boot(&conf);
    assert_eq!(tree(&world, "mta"), without);
    world.ok("overlay-stop mta");
    world.assert_same(&before);
}

#[test]
fn root_inside_is_an_unprivileged_id_outside() {
    let Some(world) = world() else { return };
    let conf = subhost(&world, "mta", "USERNS=300000:70000\nCABLES=br0=");
    world.boot(&conf);
    let pid = world.document("mta")["pid"].to_string();
    let map = |of: &str| {
        world
            .ok(&format!("cat /proc/{of}/uid_map /proc/{of}/gid_map"))
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(map(&pid), ["0", "300000", "70000", "0", "300000", "70000"]);
    assert_eq!(world.ok(&format!("stat -c %u /proc/{pid}")), "300000");
    assert_eq!(world.ok("overlay-go mta -- id -u"), "0");
    // The subhost owns its network and its devices.
    assert_eq!(
        world.ok(
            "overlay-go mta -- sh -c 'ip link set eth0 up && brctl addbr a && ls /sys/class/net'"
        ),
        "a\neth0\nlo"
    );
    assert_eq!(
        world.ok("overlay-go mta -- stat -c '%n %u:%g' / /dev /dev/null /dev/tty /dev/pts /dev/pts/ptmx /dev/shm /run"),
        "/ 0:0\n/dev 0:0\n/dev/null 0:0\n/dev/tty 0:5\n/dev/pts 0:0\n/dev/pts/ptmx 0:0\n/dev/shm 0:0\n/run 0:0"
    );
    // Services open /proc/1/fd/1 and /dev/stdout again.
    world.ok("overlay-go mta -- sh -c 'echo from inside >/proc/1/fd/1'");
    until("the text in the log", || {
        world
            .ok("cat /tmp/overlay-mta.log")
            .contains("Z from inside")
    });
    assert_eq!(
        world
            .run("overlay-go mta -- sh -c 'echo out >/dev/stdout; echo err >/dev/stderr'")
            .err,
        "err\n"
    );
    if world.has_cgroup() {
        assert_eq!(
            world.ok(&format!("cat /proc/{pid}/cgroup | tail -1")),
            "0::/mta"
        );
        assert_eq!(
            world.ok("overlay-go mta -- cat /proc/self/cgroup | tail -1"),
            "0::/"
        );
    }
    world.ok("overlay-stop mta");
}

#[test]
fn administration_works_and_cannot_reach_the_host() {
    let Some(world) = world() else { return };
    world.ok("mkdir -p mta/root/etc; printf 'root:x:0:0::/root:/bin/sh\\nweb:x:33:33::/:/bin/sh\\n' >mta/root/etc/passwd; echo '127.0.0.1 a' >mta/root/etc/hosts");
    // A node that root made outside.
    world.ok("mknod -m 666 mta/root/zero c 1 5");
    let conf = subhost(
        &world,
        "mta",
        "USERNS=auto\nCABLES=br0=\nMASK=/etc/group /etc/masked",
    );
    world.ok("mkdir -p mta/root/mnt mta/root/etc/masked; touch mta/root/etc/masked/file");
    world.boot(&conf);
    assert_eq!(world.ok("ob-enter -u web mta id -u"), "33");
    for works in [
        "su web -c 'id -u' | grep -x 33",
        "mount -t tmpfs tmpfs /mnt && touch /mnt/x && umount /mnt",
        "mount --bind /root /mnt && umount /mnt",
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        "hostname other",
        "chroot / /bin/true",
        "ip addr add 10.9.9.9/24 dev eth0",
        "touch -d '2001-01-01 00:00' /etc/passwd",
        "kill -0 1",
        "dd if=/dev/zero of=/dev/null count=1 2>/dev/null",
    ] {
        world.ok(&format!("overlay-go mta -- sh -c \"{works}\""));
    }
    for fails in [
        "mknod /null c 1 3",
        "head -c 1 /zero",
        "echo x >/proc/sys/kernel/core_pattern",
        "echo 1 >/proc/sys/vm/drop_caches",
        "date -s 2001-01-01 >/dev/null 2>&1; date +%Y | grep 2001",
        "dmesg",
        "mount -t debugfs d /mnt",
        "mount -o remount,dev /",
        "mount -o remount,bind,suid,dev /run",
        "umount /dev",
        "test -s /etc/group",
        "test -e /etc/masked/file",
        "umount /etc/group",
        "umount -l /etc/masked",
        "mount -o remount,bind,rw /etc/group",
        "cat /dev/console | grep .",
        "chown 70000 /etc/hosts",
        "echo 1 >/sys/class/net/lo/../../../kernel/profiling",
    ] {
        let done = world.run(&format!("overlay-go mta -- sh -c \"{fails}\""));
        assert_ne!(done.status, 0, "{done:#?}");
    }
    world.ok("overlay-stop mta");
}

#[test]
fn share_shows_its_owners_only_with_idmap() {
    let Some(world) = world() else { return };
    world.ok("mkdir -p shared/a; chown 33 shared/a; chmod 755 shared shared/a");
    let conf = subhost(
        &world,
        "mta",
        "USERNS=auto\nSHARE=../shared:/plain\nSHARE=../shared:/mapped:idmap\nSHARE=../shared:/both:ro,idmap",
    );
    world.boot(&conf);
    let owners = "stat -c '%n %u' /plain/a /mapped/a /both/a";
    assert_eq!(
        world.ok(&format!("overlay-go mta -- {owners}")),
        "/plain/a 65534\n/mapped/a 33\n/both/a 33"
    );
    for fails in [
        "touch /plain/file",
        "touch /both/file",
        "mount -o remount,bind,rw /both",
    ] {
        assert_ne!(
            world.run(&format!("overlay-go mta -- {fails}")).status,
            0,
            "{fails}"
        );
    }
    world.ok("overlay-go mta -- touch /mapped/file");
    assert_eq!(world.ok("stat -c %u shared/file"), "0");
    world.ok(
        "ob-mount --share $W/shared:/later/mapped:idmap </run/overlay-boot/mta/subhost >/dev/null",
    );
    world.ok("ob-mount --share $W/shared:/later/plain </run/overlay-boot/mta/subhost >/dev/null");
    assert_eq!(
        world.ok("overlay-go mta -- stat -c '%n %u' /later /later/plain/a /later/mapped/a"),
        "/later 0\n/later/plain/a 65534\n/later/mapped/a 33"
    );
    world.ok("overlay-stop mta");
}

#[test]
fn postmount_hook_and_bound_root_are_mapped() {
    let Some(world) = world() else { return };
    world.script(
        "mta/post",
        "echo $USERNS >$BASE/range; ob-mount --furnish \"$1\"",
    );
    let conf = subhost(&world, "mta", "USERNS=auto\nPOSTMOUNT=./post");
    world.boot(&conf);
    assert_eq!(world.read("mta/range"), "2013265920:65536\n");
    assert_eq!(
        world.ok("overlay-go mta -- stat -c '%n %u:%g' /dev /dev/tty /run/lock"),
        "/dev 0:0\n/dev/tty 0:5\n/run/lock 0:0"
    );
    world.ok("overlay-stop mta");

    world.make_busybox("bound/root");
    let conf = world.conf("bound", "BASE=.\nLOWER=root\nSTART=none\nUSERNS=auto\n");
    world.ok("chmod 700 bound; chown 7 bound/root/tmp");
    for live in ["live", "root"] {
        world.ok(&format!(
            "sed -i '/^LIVE/d' bound/bound.conf; echo LIVE={live} >>bound/bound.conf"
        ));
        let before = world.snapshot();
        world.boot(&conf);
        assert_eq!(
            world.ok("overlay-go bound -- sh -c 'stat -c %u / /tmp; touch /new'"),
            "0\n7"
        );
        assert_eq!(world.ok("stat -c %u bound/root/new"), "0");
        world.ok("overlay-stop bound");
        world.assert_same(&before);
    }
}

#[test]
fn userns_works_without_room_and_network() {
    let Some(world) = world() else { return };
    let conf = subhost(&world, "mta", "USERNS=auto");
    let before = world.snapshot();
    assert_eq!(
        world.ok(&format!("ob-conf {conf} | ob-mount | tee document | ob-unshare -- sh -c 'id -u; cat /proc/self/uid_map; exit'"))
            .split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "2013265920", "65536"]
    );
    world.ok("ob-mount --undo <document >/dev/null; rm document");
    world.assert_same(&before);
    // A command that does not exist has the exit status of env(1).
    world.ok(&format!("ob-conf {conf} | ob-mount >document"));
    world
        .run("ob-unshare -- /no/such <document")
        .fails(127, &["there is no /no/such"]);
    world.ok("ob-mount --undo <document >/dev/null");
}

#[test]
fn mapped_pid_1_dies_with_its_supervisor() {
    let Some(world) = world() else { return };
    let conf = subhost(&world, "mta", "USERNS=auto\nCABLES=br0=");
    let before = world.snapshot();
    world.boot(&conf);
    let pid = world.document("mta")["pid"].to_string();
    world.ok(&format!("kill -9 $(cut -d' ' -f4 /proc/{pid}/stat)"));
    until("pid 1 to die", || {
        world.run(&format!("test -d /proc/{pid}")).status != 0
    });
    until("the guard to clean up", || {
        !world.has("/run/overlay-boot/mta")
    });
    world.assert_same(&before);
}

#[test]
fn root_of_the_machine_boots_with_userns() {
    let Some(world) = world() else { return };
    let conf = world.conf("mta", "BASE=.\nSTART=none\nUSERNS=auto\n");
    world.ok("chmod 700 mta");
    world.boot(&conf);
    assert_eq!(
        world.ok("overlay-go mta -- stat -c '%u:%g' /etc/shadow"),
        world.ok("stat -c '%u:%g' /etc/shadow")
    );
    world.ok(
        "overlay-go mta -- sh -c 'head -c 1 /etc/shadow && touch /etc/passwd && chown 33:33 /srv'",
    );
    assert_eq!(
        world.ok("overlay-go mta -- su -s /bin/sh nobody -c 'id -u'"),
        "65534"
    );
    assert_eq!(
        world.ok("stat -c '%u %a' mta/root/etc/passwd mta/root/srv"),
        "0 644\n33 755"
    );
    let has_setcap = world.run("command -v setcap").status == 0;
    if has_setcap {
        world.ok("overlay-go mta -- sh -c 'cp /bin/true /true && setcap cap_net_raw+ep /true && getcap /true | grep cap_net_raw'");
    } else {
        not_done("setcap", "this machine has no setcap");
    }
    world.ok("overlay-stop mta");
    if has_setcap {
        assert!(world.ok("getcap mta/root/true").contains("cap_net_raw"));
    }
}

#[test]
fn e07_nested_procfs_mounts_without_hidden_paths() {
    let Some(world) = world() else { return };
    // As docs/security.md states under "Nested namespaces".
    for (name, lines, works) in [
        ("strict", "PROTECT=strict\nCABLES=", false),
        ("auto", "USERNS=auto\nSECCOMP=default", true),
    ] {
        let conf = subhost(&world, name, lines);
        world.boot(&conf);
        world.ok(&format!("overlay-go {name} unshare -pf --mount-proc true"));
        let done = world.run(&format!(
            "overlay-go {name} unshare -Urpf --mount-proc true"
        ));
        assert_eq!(done.status == 0, works, "{name} {done:#?}");
        // A bind mount of the outer /proc needs no new procfs.
        world.ok(&format!(
            "overlay-go {name} unshare -Urm sh -c 'mkdir -p /tmp/p; mount --rbind /proc /tmp/p && [ -d /tmp/p/self ]'"
        ));
        world.ok(&format!("overlay-stop {name}"));
    }
}
