//! A boot and its results: what the host and the subhost see of each other.

use end_to_end::{World, booted, is_root, is_root_or_tell, not_done, until};

fn boot_ten_times(world: &World, conf: &str) {
    let before = world.snapshot();
    for _ in 0..10 {
        world.boot(conf);
        assert_eq!(
            world.inside("mta", "echo $$ >/root/number; ls /sys/class/net"),
            "eth0\nlo"
        );
        assert!(world.has("/run/netns/mta"));
        world.ok("overlay-stop mta");
        world.assert_same(&before);
    }
    assert!(
        world.has("mta/root/root/number"),
        "the file written inside is in UPPER"
    );
}

#[test]
fn ten_boots_of_a_busybox_root_leave_nothing() {
    let world = World::new();
    world.ok("ip link add br0 type bridge && ip link set br0 up");
    let conf = world.subhost("mta", "CABLES=br0=");
    boot_ten_times(&world, &conf);
}

#[test]
fn ten_boots_of_the_root_of_the_machine_leave_nothing() {
    if !is_root_or_tell("LOWER=/") {
        return; // without root, an overlay of / would expose the files below its mounts
    }
    let world = World::new();
    let conf = world.conf("mta", "BASE=.\nSTART=none\nCABLES==");
    boot_ten_times(&world, &conf);
    assert!(!std::path::Path::new("/root/number").exists());
}

#[test]
fn configuration_with_every_variable_boots() {
    let world = World::new();
    world.ok("ip link add br0 type bridge; mkdir -p all/shared; echo shared >all/shared/file");
    world.script("all/pre", "echo pre $* >>$BASE/hooks");
    world.script(
        "all/post",
        "echo post $* >>$BASE/hooks; ob-mount --furnish \"$LIVE\"",
    );
    world.script(
        "all/init",
        "echo 'echo hello from pid 1'; ob-unshare --init",
    );
    world.conf(
        "all",
        "NAME=every\nBASE=.\nLOG=all.log\nCABLES=br0= =02:00:5e:10:00:01\nLIVE=live\nUPPER=root\nWORK=work\nLOWER=../busybox\n\
         START=/bin/true\nPREMOUNT=./pre a b\nPOSTMOUNT=./post c\nINIT=./init\nRAM_SIZE=5M\nSHARE=shared:/mnt/s\nSTOP_TIMEOUT=3\nLOG_MAX=1M\n",
    );
    let before = world.snapshot();
    world.ok("cd all; overlay-boot all.conf");
    let w = world.directory();
    assert_eq!(
        world.read("all/hooks"),
        format!("pre a b {w}/all/root\npost c {w}/all/live {w}/all/root\n")
    );
    assert!(world.has("/run/netns/every"));
    assert_eq!(
        world.inside("every", "cat /mnt/s/file; cat /sys/class/net/eth1/address"),
        "shared\n02:00:5e:10:00:01"
    );
    until("the output of pid 1 in the log", || {
        world.read("all/all.log").contains("Z hello from pid 1\n")
    });
    world.ok("overlay-stop all/all.conf");
    world.assert_same(&before);
}

#[test]
fn pid_1_shares_no_namespace_but_user() {
    let (world, _) = booted("");
    let pid = &world.document("mta")["pid"];
    for namespace in ["mnt", "net", "pid", "ipc", "uts", "time"] {
        let differ = format!(
            "[ $(readlink /proc/{pid}/ns/{namespace}) != $(readlink /proc/1/ns/{namespace}) ]"
        );
        assert_eq!(world.run(&differ).status, 0, "{namespace}");
    }
    assert_eq!(
        world.ok(&format!("readlink /proc/{pid}/ns/user")),
        world.ok("readlink /proc/1/ns/user")
    );
    assert_eq!(world.inside("mta", "hostname"), world.ok("hostname"));
    assert_eq!(world.inside("mta", "hostname other; hostname"), "other");
    assert_ne!(world.ok("hostname"), "other");
    // A mount inside does not propagate to the host.
    let before = world.snapshot();
    world.inside("mta", "mount -t tmpfs tmpfs /root");
    world.assert_same(&before);
}

#[test]
fn hazard_20_devices_have_the_right_owners_and_modes() {
    let (world, _) = booted("");
    let nodes = world.inside(
        "mta",
        "cd /dev; stat -L -c '%n %a %u:%g %t:%T' console full null ptmx random tty urandom zero",
    );
    let expected = "console 622 0:5 5:1\nfull 666 0:0 1:7\nnull 666 0:0 1:3\nptmx 666 0:5 5:2\n\
                    random 444 0:0 1:8\ntty 666 0:5 5:0\nurandom 444 0:0 1:9\nzero 666 0:0 1:5";
    if is_root() {
        assert_eq!(nodes, expected);
    } else {
        // In a user namespace mknod(2) returns EPERM: the nodes are bound from the host, with the
        // owners and modes there.
        let numbers = |table: &str| -> Vec<String> {
            let lines = table
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>());
            lines
                .map(|words| format!("{} {}", words[0], words[3]))
                .collect()
        };
        assert_eq!(numbers(&nodes), numbers(expected));
    }
    let links = world.inside(
        "mta",
        "cd /dev; for l in core fd stderr stdin stdout; do echo $l $(readlink $l); done",
    );
    assert_eq!(
        links,
        "core /proc/kcore\nfd /proc/self/fd\nstderr /proc/self/fd/2\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1"
    );
    assert_eq!(
        world.inside("mta", "stat -c %a /dev /dev/shm /run/lock /dev/pts/ptmx"),
        "755\n1777\n1777\n666"
    );
    assert_eq!(
        world.inside(
            "mta",
            "echo x >/dev/null && head -c 3 /dev/zero | wc -c && (exec 3<>/dev/ptmx) && echo works"
        ),
        "3\nworks"
    );
    assert_eq!(
        world.inside(
            "mta",
            "grep ' /dev/pts ' /proc/mounts | grep -oE '(mode|ptmxmode)=[0-9]+'"
        ),
        "mode=620\nptmxmode=666"
    );
    let terminal = "exec 3<>/dev/ptmx; ls /dev/pts; stat -c '%a %g' /dev/pts/0";
    // A user namespace may have no group 5.
    let group = if is_root() { "5" } else { "" };
    let seen = world.inside("mta", terminal);
    assert!(seen.starts_with(&format!("0\nptmx\n620 {group}")), "{seen}");
}

#[test]
fn ram_size_is_taken_in_every_form() {
    let world = World::new();
    for (index, (size, kilobytes)) in [
        ("", "51200"),
        ("RAM_SIZE=5M", "5120"),
        ("RAM_SIZE=512k", "512"),
        ("RAM_SIZE=", "51200"),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("r{index}");
        let conf = world.subhost(&name, size);
        world.boot(&conf);
        assert_eq!(
            world.inside(&name, "df -k /run | tail -n 1 | tr -s ' ' | cut -d' ' -f2"),
            *kilobytes,
            "{size}"
        );
    }
    let conf = world.subhost("percent", "RAM_SIZE=1%");
    world.boot(&conf);
    assert_eq!(
        world.inside("percent", "grep -c ' /run ' /proc/mounts"),
        "1"
    );
    for (name, size) in [("without", "none"), ("bad", "lots")] {
        let conf = world.subhost(name, &format!("RAM_SIZE={size}"));
        world.boot(&conf);
        assert_eq!(
            world.inside(name, "grep -c ' /run ' /proc/mounts || :"),
            "0",
            "{size}"
        );
    }
    assert!(
        world
            .read("/tmp/overlay-bad.log")
            .contains("RAM_SIZE=lots: no /run is mounted")
    );
}

#[test]
fn host_shows_the_documented_names() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    let conf = world.subhost("mta", "CABLES=br0= br0=");
    world.boot(&conf);
    assert_eq!(
        world.ok("ls /run/netns; ip netns exec mta ls -1 /sys/class/net"),
        "mta\neth0\neth1\nlo"
    );
    world.ok("ip link show mta0 && ip link show mta1");
    assert!(
        world
            .read("/tmp/overlay-mta.log")
            .contains("pid 1 has started")
    );
    assert_eq!(world.ok("stat -c %a /tmp/overlay-mta.log"), "640");
    let pid = &world.document("mta")["pid"];
    if world.has_cgroup() {
        assert_eq!(world.ok(&format!("grep ^0: /proc/{pid}/cgroup")), "0::/mta");
    } else {
        not_done("the control group of a subhost", end_to_end::NO_CGROUP);
    }
    // The only mount on the host is the name of the network namespace. On a shared root it is there
    // twice, once below the other, as with `ip netns add`.
    let mounts = world.ok("grep mta /proc/self/mountinfo | cut -d' ' -f5 | sort -u");
    assert_eq!(mounts, "/run/netns/mta");
    let title = format!(": overlay-boot {conf}");
    let mut processes = world.processes().into_iter();
    assert!(processes.any(|process| process.trim_end().ends_with(&title)));
}
