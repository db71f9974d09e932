//! One test for each bug that was proven in overlay-boot 1.6.4, by its number in docs/migration.md: what showed it is done, and
//! does not show it. Other tests go deeper.

use end_to_end::{Done, World, is_root, is_root_or_tell, scripts, until};

/// A world in which the subhost mta runs.
fn booted(more: &str) -> (World, String) {
    let world = World::new();
    let conf = world.subhost("mta", more);
    world.ok(&format!("overlay-boot {conf}"));
    (world, conf)
}

fn boot(world: &World, conf: &str) {
    world.ok(&format!("overlay-boot {conf}"));
}

/// The value of an octal field of /proc/PID/stat that awk counts as `field`.
fn stat(world: &World, pid: &serde_json::Value, field: u32) -> String {
    world.ok(&format!("cut -d' ' -f{field} /proc/{pid}/stat"))
}

/// The source tree's etc/, beside the scripts.
fn etc(file: &str) -> String {
    let source = scripts().parent().expect("the scripts are in a tree");
    source.join("etc").join(file).display().to_string()
}

#[test]
fn hazard_01_values_are_not_run() {
    let world = World::new();
    let conf = world.subhost(
        "mta",
        "MINE=`touch made`'; touch made; '\nLOG=it's $(touch made).log",
    );
    world.ok(&format!(
        "overlay-boot {conf} && overlay-stop {conf} && ob-conf --check {conf}; ob-conf --env {conf}"
    ));
    assert!(world.has("it's $(touch made).log"));
    assert!(!world.has("made") && !world.has("mta/made"));
}

#[test]
fn hazard_02_services_are_stopped_and_daemons_get_term_before_kill() {
    let world = World::new();
    world.script(
        "busybox/etc/one",
        "echo $1 >>/var/told; [ $1 = stop ] || (trap 'echo TERM >>/var/told; exit' TERM; while :; do sleep 0.1; done) &",
    );
    let conf = world.subhost("mta", "START=/etc/one");
    boot(&world, &conf);
    until("the service to run", || world.has("mta/root/var/told"));
    world.ok("overlay-stop mta");
    assert_eq!(world.read("mta/root/var/told"), "start\nstop\nTERM\n");

    // All stops run to their end, also when the last daemon has ended before.
    world.script("busybox/etc/daemon", "case $1 in start) tail -f /dev/null & ;; stop) killall tail; usleep 300000; echo daemon >>/var/order ;; esac");
    world.script("busybox/etc/net", "echo network $1 >>/var/order");
    let conf = world.subhost("two", "START=/etc/net /etc/daemon");
    boot(&world, &conf);
    until("the daemon", || {
        world.inside("two", "ps").contains("tail -f")
    });
    world.ok("overlay-stop two");
    assert_eq!(
        world.read("two/root/var/order"),
        "network start\ndaemon\nnetwork stop\n"
    );
}

#[test]
fn hazard_03_stop_takes_no_other_subhost_whose_file_has_the_same_name() {
    let world = World::new();
    for directory in ["A", "B"] {
        world.ok(&format!("cd {} && mkdir -p {directory}/live {directory}/root {directory}/work && printf 'BASE=.\nLOWER=../busybox\nSTART=none\n' >{directory}/web.conf", world.directory()));
    }
    world.ok("overlay-boot A/web.conf");
    world
        .run("overlay-stop B/web.conf")
        .fails(1, &["web", "A/web.conf"]);
    assert!(world.has("/run/netns/web"));
    assert_eq!(world.inside("web", "echo lives"), "lives");
}

#[test]
fn hazard_04_names_are_no_patterns() {
    let world = World::new();
    let conf = world.subhost("axd", "");
    boot(&world, &conf);
    world.run("overlay-stop a.d").fails(1, &["a.d"]);
    world.run("overlay-go a.. true").fails(125, &["a.."]);
    assert_eq!(world.ok("overlay-go axd echo lives"), "lives");
}

#[test]
fn hazard_05_running_is_not_read_from_the_command_lines_of_all_processes() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    // One that looks like a booting shell, with child and grandchild.
    let look_alike = format!("sh -c 'sh -c \"sleep 1000; :\"; : overlay-boot {conf}'");
    let mut other = world.line(&look_alike).start();
    until("the grandchild", || {
        world
            .processes()
            .iter()
            .any(|process| process.starts_with("sleep: sleep 1000"))
    });
    world
        .run("overlay-stop mta")
        .fails(1, &["mta: not running"]);
    boot(&world, &conf);
    assert_eq!(world.ok("overlay-go mta echo inside"), "inside");
    world.ok("overlay-stop mta");
    assert!(!world.has("/run/netns/mta"));
    assert!(other.is_running());
}

#[test]
fn hazard_06_what_runs_is_not_booted_again_and_upper_not_shared() {
    let (world, conf) = booted("");
    let running = world.snapshot();
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["mta", "runs already"]);
    world.conf(
        "other",
        "BASE=.\nLOWER=../busybox\nSTART=none\nUPPER=../mta/root\nWORK=../mta/work",
    );
    world
        .run("overlay-boot other/other.conf")
        .fails(1, &["UPPER", "in use by the subhost mta"]);
    world.assert_same(&running);
    world.ok("overlay-go mta true && overlay-stop mta");
}

#[test]
fn hazard_07_any_name_and_suffix_can_be_stopped_and_entered() {
    let world = World::new();
    let before = world.snapshot();
    world.subhost("mta", "NAME=other");
    world.ok("mv mta/mta.conf mta/plain; cd mta; overlay-boot plain; overlay-go other true; overlay-stop plain");
    world.ok("cd mta; overlay-boot plain; cd /; overlay-stop other");
    world.assert_same(&before);
}

#[test]
fn hazard_08_hooks_read_the_configuration_that_was_given_by_a_relative_path() {
    let world = World::new();
    world.script("mta/pre", "grep MINE \"$CONFIG\" >seen");
    world.subhost("mta", "PREMOUNT=./pre\nMINE=yes");
    world.ok("mkdir -p a/b; cd a/b; overlay-boot ../../mta/mta.conf");
    assert_eq!(world.read("mta/seen"), "MINE=yes\n");
}

#[test]
fn hazard_09_overlay_share_shares() {
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
    // Read-only with all that is below it, also to who would mount it anew from there.
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
        boot(&world, &conf);
        assert_eq!(world.ok("overlay-go mta ls /etc/group"), "/etc/group");
        world.ok("overlay-stop mta");
        world.assert_same(&before);
        world.ok("umount mta/live");
    }
}

#[test]
fn hazard_11_no_program_of_the_subhosts_is_run_outside_of_it() {
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
        boot(&world, &conf);
        until("the stand-in", || {
            world.inside("mta", "ls /run").contains("dummy_service")
        });
        // Who ends the subhost from inside may be ended with it: what counts is that it is gone.
        let _: Done = world.run(end);
        world.until_same(&before);
        assert!(
            !world.has("mta/root/var/planted"),
            "{end}: {}",
            world.read("mta/root/var/planted")
        );
    }
    // They would have told.
    boot(&world, &conf);
    let _: Done = world.run("overlay-go mta umount /x");
    assert!(world.read("mta/root/var/planted").ends_with("/umount\n"));
}

#[test]
fn hazard_12_a_log_in_tmp_is_not_opened_through_links_and_tells_nothing_of_the_configuration() {
    let world = World::new();
    let conf = world.subhost("mta", "PASSWORD=open-sesame");
    world.ok("echo kept >victim; ln -s $W/victim /tmp/overlay-mta.log");
    boot(&world, &conf);
    assert_eq!(world.read("victim"), "kept\n");
    assert_eq!(
        world.ok("stat -c '%F %a' /tmp/overlay-mta.log"),
        "regular file 640"
    );
    assert!(!world.read("/tmp/overlay-mta.log").contains("sesame"));
}

#[test]
fn hazard_13_links_in_upper_lead_nowhere_on_the_host() {
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
        let boot = world.run(&format!("overlay-boot {conf}"));
        assert_eq!(victim(), before, "{plant}");
        if index > 3 {
            // Inside, the link to the target of the share leads nowhere.
            boot.fails(1, &[&format!("{name}: share {w}/data at /mnt/s: ")]);
        } else {
            boot.ok();
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
}

#[test]
fn hazard_14_a_boot_that_fails_says_so_and_leaves_nothing() {
    let world = World::new();
    let before = world.snapshot();
    for (index, (more, words)) in [
        ("BASE=/no/such", "BASE"),
        ("UPPER=no", "UPPER"),
        ("LOWER=no", "LOWER"),
        ("WORK=no", "WORK"),
        ("LIVE=no", "LIVE"),
        ("PREMOUNT=./no", "PREMOUNT"),
        ("POSTMOUNT=./no", "POSTMOUNT"),
        ("INIT=./no", "INIT"),
        ("INIT=true", "INIT"),
        ("LOG=/no/such/log", "log"),
        ("START=!true", "START"),
        ("CABLES=nobridge=", "nobridge"),
    ]
    .into_iter()
    .enumerate()
    {
        let conf = world.subhost(&format!("f{index}"), more);
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &[words]);
        world.assert_same(&before);
    }
    world.ok("echo START=none >nobase.conf");
    world.run("overlay-boot nobase.conf").fails(1, &["BASE"]);
    world.run("overlay-boot busybox").fails(1, &["busybox"]);
    world.assert_same(&before);
}

#[test]
fn hazard_15_what_was_left_is_not_taken_over() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    // A cable of an earlier attempt, and a namespace that was made by hand, with lo down.
    let conf = world.subhost("mta", "CABLES=br0=02:00:5e:10:00:01 no=");
    world.run(&format!("overlay-boot {conf}")).fails(1, &["no"]);
    let conf = world.subhost("mta", "CABLES=br0=02:00:5e:10:00:02");
    world.ok("ip netns add mta");
    boot(&world, &conf);
    assert_eq!(
        world.inside("mta", "cat /sys/class/net/eth0/address; ls /sys/class/net; ip -o link show lo | grep -c LOOPBACK,UP"),
        "02:00:5e:10:00:02\neth0\nlo\n1"
    );
}

#[test]
fn hazard_16_what_init_prints_reaches_pid_1_unchanged() {
    let world = World::new();
    let text = "printf '%s\\n' 'a\\b\\\\c' \"\\$x $(echo d)\" `echo e; echo $$` '\\\\' '`' >/root/printed\nexec /.reaper mta";
    world.write("mta/text", &format!("sleep 1000 &\n{text}\n"));
    world.script("mta/init", "cat text");
    let conf = world.subhost("mta", "INIT=./init");
    boot(&world, &conf);
    until("pid 1 to become the reaper", || {
        world
            .inside("mta", "cat /proc/1/cmdline")
            .starts_with("/.reaper")
    });
    assert_eq!(
        world.inside("mta", "cat /root/printed"),
        "a\\b\\\\c\n$x d\ne\n1\n\\\\\n`"
    );
}

#[test]
fn hazard_17_overlay_go_runs_commands_returns_their_status_and_needs_no_bash() {
    let (world, _) = booted("");
    assert!(!world.has("busybox/bin/bash"));
    assert_eq!(world.run("overlay-go mta sh -c 'exit 7'").status, 7);
    let shell = world
        .line("overlay-go mta")
        .env("SECRET_TOKEN", "x")
        .input("readlink /proc/1/root; env; readlink /proc/self/ns/time; exit 8\n")
        .run();
    assert_eq!(shell.status, 8, "{shell:#?}");
    assert!(!shell.out.contains("SECRET"), "{shell:#?}");
    let time = world.inside("mta", "readlink /proc/1/ns/time");
    assert!(shell.out.contains(&time), "{shell:#?} {time}");
}

#[test]
fn hazard_18_the_callers_session_and_terminal_are_not_the_subhosts() {
    let world = World::new();
    world.script("busybox/etc/one", "sleep 1000 &");
    let conf = world.subhost("mta", "START=/etc/one");
    // A terminal of its own, whose session ends with the command.
    world.ok(&format!(
        "script -qec 'overlay-boot {conf}' /dev/null </dev/null >&2"
    ));
    until("the service", || {
        world.inside("mta", "ps").contains("sleep 1000")
    });
    let document = world.document("mta");
    for process in ["pid", "guard"] {
        assert_eq!(
            stat(&world, &document[process], 7),
            "0",
            "{process} has a terminal"
        );
    }
    assert_eq!(
        world.inside(
            "mta",
            "for s in /proc/[0-9]*/stat; do cut -d' ' -f7 $s; done | sort -u"
        ),
        "0"
    );
    world.ok("overlay-stop mta");
}

#[test]
fn hazard_19_sys_shows_the_links_of_the_subhost() {
    let (world, _) = booted("CABLES==");
    world.ok("ip link add other0 type dummy 2>/dev/null || ip link add other0 type bridge");
    assert_eq!(world.inside("mta", "ls /sys/class/net"), "eth0\nlo");
    world.inside("mta", "ip link set eth0 up");
    until("a carrier", || {
        world.inside("mta", "cat /sys/class/net/eth0/carrier") == "1"
    });
}

#[test]
fn hazard_20_dev_belongs_to_root_and_terminals_to_tty() {
    let (world, _) = booted("");
    assert_eq!(
        world.inside("mta", "stat -c %a /dev /dev/pts/ptmx; grep ' /dev/pts ' /proc/mounts | grep -oE '(mode|ptmxmode)=[0-9]+'"),
        "755\n666\nmode=620\nptmxmode=666"
    );
    let terminal = "exec 3<>/dev/ptmx; ls /dev/pts; stat -c '%a %g' /dev/pts/0";
    // A user namespace may have no group 5.
    let group = if is_root() { "5" } else { "" };
    let seen = world.inside("mta", terminal);
    assert!(seen.starts_with(&format!("0\nptmx\n620 {group}")), "{seen}");
}

#[test]
fn hazard_21_the_down_commands_run_at_stop() {
    let world = World::new();
    world.script("fake/ifup", "mkdir -p /run/network; ip link set $1 up; echo \"$1=$1\" >>/run/network/ifstate; echo up $1 >>$W/told");
    world.script("fake/ifdown", "for link; do :; done; sed -i \"/^$link=/d\" /run/network/ifstate; echo down $link >>$W/told; [ -e /sys/class/net/$link ] && echo there >>$W/told");
    let conf = world.subhost("mta", "CABLES==");
    world.ok(&format!(
        "PATH=$W/fake:$PATH; overlay-boot {conf}; overlay-stop mta"
    ));
    assert_eq!(world.read("told"), "up mta0\ndown mta0\nthere\n");
    assert_eq!(world.read("/run/network/ifstate"), "");
    // Who ends by itself has them run too.
    world.ok(&format!("PATH=$W/fake:$PATH; overlay-boot {conf}; rm told"));
    until("the stand-in", || {
        world.inside("mta", "ls /run").contains("dummy_service")
    });
    // From outside: who is inside ends with it.
    let pid = world.document("mta")["pid"].clone();
    world.ok(&format!("echo >/proc/{pid}/root/run/dummy_service"));
    until("its end", || world.has("told"));
}

#[test]
fn hazard_22_a_name_that_leaves_no_room_for_a_cable_is_refused() {
    let world = World::new();
    let conf = world.subhost("fifteen-letters", "CABLES==");
    let before = world.snapshot();
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["fifteen-letters", "15"]);
    world.assert_same(&before);
}

#[test]
fn hazard_23_the_callers_environment_and_files_stay_outside() {
    let world = World::new();
    world.script(
        "busybox/etc/one",
        "env >/var/env; ls -l /proc/self/fd >/var/fds; sleep 1000 &",
    );
    let conf = world.subhost("mta", "START=/etc/one");
    let line = format!("exec 7</etc; overlay-boot {conf}");
    world.line(&line).env("SECRET_TOKEN", "x").run().ok();
    until("the service", || {
        world.inside("mta", "ps").contains("sleep 1000")
    });
    let environment = world.read("mta/root/var/env");
    for word in ["SECRET", "ACTION", "UNSHARED", "OLDPWD", "CONFIG", "OB_"] {
        assert!(!environment.contains(word), "{environment}");
    }
    let files = world.read("mta/root/var/fds");
    assert!(
        !files.contains(" /etc") && !files.contains(" 7 ->"),
        "{files}"
    );
    assert_eq!(
        world.inside(
            "mta",
            "tr '\\0' '\\n' </proc/1/environ | grep -c SECRET || :"
        ),
        "0"
    );
}

#[test]
fn hazard_24_stop_makes_no_file_in_dev() {
    let (world, _) = booted("");
    world.ok("overlay-stop mta");
    assert!(!world.has("/dev/nukk"));
}

/// Makes `image`, of two partitions, the second one an ext4 with the tree `from`.
fn partition(world: &World, image: &str, label: &str, from: &str) {
    // Sectors of 512 bytes: 1 MiB, then 4 MiB, then 24 MiB.
    world.ok(&format!(
        "truncate -s 32M {image}; printf 'label: {label}\nstart=2048, size=8192\nstart=10240, size=49152\n' | sfdisk -q {image} >&2; \
         truncate -s 24M part; mke2fs -q -t ext4 -d {from} part; dd if=part of={image} bs=512 seek=10240 conv=notrunc status=none; rm part"
    ));
}

#[test]
fn hazard_25_overlay_diskfile_takes_images_partitions_and_subtrees() {
    let world = World::new();
    if !world.mounts_images("overlay-diskfile") {
        return;
    }
    world.ok("cp -a busybox tree; mkdir deep; cp -a busybox deep/rootfs; mkdir -p writable/upper writable/work; mksquashfs busybox root.squashfs -quiet -no-progress >&2");
    world.ok("truncate -s 24M root.ext4; mke2fs -q -t ext4 -d busybox root.ext4");
    partition(&world, "mbr.img", "dos", "writable");
    partition(&world, "gpt.img", "gpt", "deep");
    let before = world.snapshot();
    for (name, lines) in [
        ("squash", "LOWER=!overlay-diskfile mnt/ ../root.squashfs"),
        ("ext4", "LOWER=!overlay-diskfile mnt/ ../root.ext4"),
        ("subtree", "LOWER=!overlay-diskfile mnt/rootfs ../gpt.img 2"),
        (
            "upper",
            "UPPER=!overlay-diskfile mnt/upper ../mbr.img 2\nWORK=mnt/work",
        ),
    ] {
        let conf = world.subhost(name, lines);
        world.ok(&format!("mkdir {name}/mnt"));
        boot(&world, &conf);
        assert_eq!(
            world.inside(name, "echo x >/var/written; tail -n 1 /etc/group"),
            "tty:x:5:"
        );
        assert_eq!(
            world.ok("losetup -l -n -O BACK-FILE | grep -cE '/(root.squashfs|root.ext4|gpt.img|mbr.img)$' || :"),
            "1",
            "{name}"
        );
        assert_eq!(
            world.ok("ls -A */mnt | grep -v : | grep -c . || :"),
            "0",
            "it is not mounted on the host"
        );
        world.ok(&format!("overlay-stop {name}"));
        world.until_same(&before);
        until("the loop device to go", || {
            world.ok("losetup -l -n -O BACK-FILE | grep -cE '/(root.squashfs|root.ext4|gpt.img|mbr.img)$' || :") == "0"
        });
    }
    // What was written is in the image, and outside a boot nothing is mounted.
    assert_eq!(
        world
            .ok("debugfs -R 'ls upper/var' 'mbr.img?offset=5242880' 2>/dev/null | grep -o written"),
        "written"
    );
    assert_eq!(world.ok("overlay-diskfile /mnt/x ../mbr.img 2"), "mnt/x");
    // A partition that is not there is an error, and no boot with an empty value.
    let conf = world.subhost("none", "LOWER=!overlay-diskfile mnt/ ../gpt.img 3");
    let done = world.run(&format!("mkdir none/mnt; overlay-boot {conf}"));
    assert_eq!(done.status, 1, "{done:#?}");
    world.assert_same(&before);
}

#[test]
fn hazard_26_postmounts_first_argument_is_live() {
    let world = World::new();
    world.script("mta/post", "echo \"$*\" >args; ob-mount --furnish \"$1\"");
    let conf = world.subhost("mta", "POSTMOUNT=./post word");
    boot(&world, &conf);
    let w = world.directory();
    assert_eq!(
        world.read("mta/args"),
        format!("word {w}/mta/live {w}/mta/root\n")
    );
}

#[test]
fn hazard_27_a_share_target_without_a_slash_is_inside() {
    let world = World::new();
    world.ok("mkdir data; echo shared >data/file");
    let conf = world.subhost("mta", &format!("SHARE={}/data:s", world.directory()));
    boot(&world, &conf);
    assert_eq!(world.inside("mta", "cat /s/file"), "shared");
    assert_eq!(world.ok("ls mta"), "live\nmta.conf\nroot\nwork");
}

/// A world whose commands are where the init script looks for them, with three subhosts in $W/subhosts.conf, which tell of their
/// start and stop in $W/order, and another one, that is not in the file.
fn machine() -> World {
    let world = World::new();
    world.ok("mkdir sbin; for d in $(echo $PATH | tr : ' '); do case $d in /usr/*|/bin|/sbin) ;; *) ln -s $d/o* sbin ;; esac; done; mount --bind sbin /usr/local/sbin");
    world.script(
        "busybox/etc/one",
        "echo $1 $(cat /etc/name) >>/order/order; sleep 1000 &",
    );
    world.ok("mkdir order");
    for name in ["a", "b", "c", "d"] {
        let share = format!("SHARE={}/order:/order\nSTART=/etc/one", world.directory());
        world.subhost(name, &share);
        world.write(format!("{name}/root/etc/name"), name);
    }
    let w = world.directory();
    world.write(
        "subhosts.conf",
        &format!(
            "# remark\n{w}/c/c.conf {w}/a/a.conf # two, and a remark\n\n{w}/b/b.conf#right behind"
        ),
    );
    world
}

/// Runs etc/init.d/subhosts.
fn init(world: &World, action: &str) -> Done {
    let script = etc("init.d/subhosts");
    let file = format!("{}/subhosts.conf", world.directory());
    world
        .line(&format!("{script} {action}"))
        .env("SUBHOSTS_CONF", &file)
        .run()
}

#[test]
fn hazard_28_the_init_script_starts_in_order_and_stops_in_reverse_and_what_the_file_names() {
    let world = machine();
    world.ok("overlay-boot d/d.conf");
    until("d", || world.has("order/order"));
    assert_eq!(init(&world, "status").status, 3);
    init(&world, "start").ok();
    assert_eq!(world.ok("ob-list --names | sort | tr '\n' ' '"), "a b c d ");
    until("all services", || {
        world.read("order/order").lines().count() == 4
    });
    init(&world, "status").ok();
    let running = world.snapshot();
    init(&world, "start").ok(); // those that run are left alone
    world.assert_same(&running);
    for refused in ["restart", "force-reload"] {
        init(&world, refused).fails(3, &["stop"]);
    }
    init(&world, "fly").fails(2, &["Usage"]);
    world.ok("rm order/order");
    init(&world, "stop").ok();
    assert_eq!(world.read("order/order"), "stop b\nstop a\nstop c\n");
    assert_eq!(world.ok("ob-list --names"), "d");
    init(&world, "stop").ok(); // LSB: stopped already is no failure
    assert_eq!(init(&world, "status").status, 3);
    // One that fails is told, and the others are started.
    world.ok("mv a/live a/gone");
    init(&world, "start").fails(1, &["a/live"]);
    assert_eq!(world.ok("ob-list --names | sort | tr '\n' ' '"), "b c d ");
}

#[test]
fn hazard_29_an_instance_of_the_unit_is_a_path_or_a_name_and_tells_that_it_is_up() {
    let unit = std::fs::read_to_string(etc("systemd/subhosts@.service")).expect("the unit");
    for line in [
        "Type=notify",
        "ExecStart=/usr/sbin/overlay-subhosts run %I",
        "ExecStop=/usr/sbin/overlay-subhosts end %I",
    ] {
        assert!(unit.lines().any(|there| there == line), "no {line}");
    }
    let world = machine();
    let w = world.directory();
    let file = format!("{w}/subhosts.conf");
    for name in ["my-web", "usr"] {
        let conf = world.subhost(name, "");
        world.ok(&format!("printf '\\n%s' {conf} >>subhosts.conf"));
    }
    let before = world.snapshot();
    // As systemd unescapes it: a path loses its first slash, and a name its dashes. /usr is there, and no configuration.
    for (instance, name) in [
        (format!("{}/d/d.conf", &w[1..]), "d"),
        ("a".to_owned(), "a"),
        ("my/web".to_owned(), "my-web"),
        ("usr".to_owned(), "usr"),
    ] {
        let told = format!("{w}/told-{name}");
        let listen = format!(
            "python3 -c 'import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.bind(\"{w}/notify\"); print(s.recv(99).decode(), file=open(\"{told}\",\"w\"))'"
        );
        let _listener = world.line(&listen).start();
        until("the socket", || world.has("notify"));
        let mut unit = world
            .line(&format!("exec overlay-subhosts run {instance}"))
            .env("NOTIFY_SOCKET", &format!("{w}/notify"))
            .env("SUBHOSTS_CONF", &file)
            .start();
        until("to be told", || {
            assert!(unit.is_running(), "{instance}");
            world.has(&told) && !world.read(&told).is_empty()
        });
        assert_eq!(world.read(&told).trim(), "READY=1");
        assert_eq!(world.ok("ob-list --names"), name);
        assert!(unit.is_running());
        world
            .line(&format!("overlay-subhosts end {instance}"))
            .env("SUBHOSTS_CONF", &file)
            .run()
            .ok();
        assert_eq!(unit.wait().status, 0);
        world.ok("rm notify");
        world.until_same(&before);
    }
}

#[test]
fn hazard_30_the_callers_umask_closes_nothing_inside() {
    let world = World::new();
    world.script("busybox/etc/one", "touch /var/made");
    let conf = world.subhost("mta", "START=/etc/one");
    world.ok(&format!("umask 077; overlay-boot {conf}"));
    until("the service", || world.has("mta/root/var/made"));
    assert_eq!(
        world.inside("mta", "stat -c %a / /etc /etc/network/interfaces /var/made"),
        "755\n755\n644\n644"
    );
}

#[test]
fn hazard_31_stop_ends_a_boot_that_is_under_way() {
    let world = World::new();
    world.script("mta/pre", "touch begun; exec sleep 1000");
    let conf = world.subhost("mta", "PREMOUNT=./pre\nCABLES==");
    let before = world.snapshot();
    let boot = world.line(&format!("overlay-boot {conf}")).start();
    until("the hook", || world.has("mta/begun"));
    world.ok("overlay-stop mta");
    let boot = boot.wait();
    assert!(boot.status != 0, "{boot:#?}");
    world.until_same(&before);

    // So does whoever ends overlay-boot itself meanwhile.
    for (option, signal) in [("", "INT"), ("-f", "TERM"), ("", "HUP")] {
        world.ok("rm mta/begun");
        let line = format!(
            "trap : INT; overlay-boot {option} {conf} & boot=$!; until [ -e mta/begun ]; do sleep 0.02; done; kill -{signal} $boot; wait $boot"
        );
        let done = world.run(&line);
        assert!(
            done.status == 1 && done.err.contains("told to end"),
            "{done:#?}"
        );
        world.until_same(&before);
    }
}

#[test]
fn hazard_32_a_subhost_that_ends_by_itself_leaves_nothing() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    world.script(
        "busybox/etc/one",
        "(until [ -e /go ]; do sleep 0.05; done) &",
    );
    let conf = world.subhost("mta", "START=/etc/one\nCABLES=br0= =");
    let before = world.snapshot();
    boot(&world, &conf);
    // Else it has nothing to wait for, and is kept up by a stand-in.
    until("the service to have started", || {
        world.inside("mta", "cat /proc/1/comm") == "ob-reaper"
    });
    // From outside, for who is inside ends with it.
    let pid = &world.document("mta")["pid"];
    world.ok(&format!("touch /proc/{pid}/root/go"));
    world.until_same(&before);
}

#[test]
fn hazard_33_blanks_commas_and_colons_in_paths() {
    let world = World::new();
    world.ok(
        "mkdir -p 'a b,c:d/live' 'a b,c:d/root' 'a b,c:d/work' 'l o,w:er'; mv busybox/* 'l o,w:er'",
    );
    world.write(
        "a b,c:d/x y.conf",
        "BASE=.\nNAME=xy\nLOWER=../l o,w:er\nSTART=none\n",
    );
    world.ok("overlay-boot 'a b,c:d/x y.conf'; overlay-go xy touch /root/made; overlay-stop 'a b,c:d/x y.conf'");
    assert!(world.has("a b,c:d/root/root/made"));
}

#[test]
fn hazard_34_a_bad_bridge_or_mac_is_refused() {
    let world = World::new();
    world.ok("ip link add br0 type bridge; ip link add nobridge type veth");
    let before = world.snapshot();
    for (cables, word) in [
        ("CABLES=br9=", "br9"),
        ("CABLES=nobridge=", "nobridge"),
        ("CABLES=br0= br0=02:zz:5e:10:00:01", "02:zz"),
        ("CABLES=br0=01:00:5e:10:00:01", "01:00"),
        ("CABLES=word", "word"),
    ] {
        let conf = world.subhost("mta", cables);
        world.run(&format!("overlay-boot {conf}")).fails(1, &[word]);
        world.assert_same(&before);
    }
}

#[test]
fn hazard_35_a_root_needs_no_tmp_and_it_is_not_hidden_while_booting() {
    let world = World::new();
    world.ok("rm -r busybox/tmp");
    let conf = world.subhost("without", "");
    boot(&world, &conf);
    assert_eq!(
        world.inside("without", "ls -d /tmp 2>/dev/null || echo none"),
        "none"
    );
    world.write("busybox/tmp/there", "there\n");
    world.script("busybox/etc/one", "cat /tmp/there >/var/seen");
    let conf = world.subhost("with", "START=/etc/one");
    boot(&world, &conf);
    until("the service", || {
        world.has("with/root/var/seen") && world.read("with/root/var/seen") == "there\n"
    });
}

#[test]
fn hazard_36_the_default_interfaces_file_has_a_stanza_for_each_link() {
    let (world, _) = booted("CABLES== =02:00:5e:10:00:01");
    let file = world.read("mta/root/etc/network/interfaces");
    for line in [
        "auto lo",
        "iface lo inet loopback",
        "auto eth0",
        "iface eth0 inet manual",
        "auto eth1",
        "iface eth1 inet manual",
    ] {
        assert!(
            file.lines().any(|there| there == line),
            "no {line} in {file}"
        );
    }
}

#[test]
fn hazard_37_a_root_without_service_has_no_odd_file() {
    let world = World::new();
    world.ok("rm -f busybox/bin/service");
    let conf = world.subhost("mta", "START=networking ssh");
    boot(&world, &conf);
    until("the log to tell", || {
        world
            .read("/tmp/overlay-mta.log")
            .contains("ssh is not started")
    });
    assert_eq!(world.inside("mta", "ls -A /"), world.ok("ls -A busybox"));
}

#[test]
fn hazard_38_a_subhost_whose_boot_was_killed_can_be_stopped_and_loses_nothing_before() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    boot(&world, &conf);
    let guard = &world.document("mta")["guard"];
    world.ok(&format!("kill -9 {guard}"));
    // The subhost runs on, and overlay-stop cleans up.
    world.ok("overlay-go mta true");
    world.ok("overlay-stop mta");
    world.assert_same(&before);
    world.ok(&format!(
        "overlay-boot {conf}; overlay-go mta true; overlay-stop mta"
    ));
    world.assert_same(&before);
}

#[test]
fn hazard_39_start_with_several_words_is_no_shell_error() {
    let world = World::new();
    world.script("busybox/bin/service", "echo $* >>/var/order");
    let conf = world.subhost("mta", "START=one two three");
    boot(&world, &conf);
    until("the services", || {
        world.has("mta/root/var/order") && world.read("mta/root/var/order").lines().count() == 3
    });
    assert_eq!(
        world.read("mta/root/var/order"),
        "one start\ntwo start\nthree start\n"
    );
    let log = world.read("/tmp/overlay-mta.log");
    assert!(!log.contains("sh:") && !log.contains("[:"), "{log}");
    // `none` is no service, be it alone or among others.
    let conf = world.subhost("odd", "START=none x");
    boot(&world, &conf);
    until("the service", || world.has("odd/root/var/order"));
    world.ok("overlay-stop odd");
    assert_eq!(world.read("odd/root/var/order"), "x start\nx stop\n");
}

#[test]
fn hazard_boot_returns_when_the_subhost_is_there() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    for _ in 0..5 {
        world.ok(&format!(
            "overlay-boot {conf} && overlay-go mta true && overlay-stop mta"
        ));
    }
}

#[test]
fn hazard_share_of_a_missing_path_leaves_nothing_and_is_told() {
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
fn hazard_packaging_no_other_programs_are_needed() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    for program in [
        "brctl",
        "bc",
        "fdisk",
        "ldd",
        "pivot_root",
        "unshare",
        "nsenter",
        "ip",
        "ps",
        "pgrep",
        "pkill",
        "mount",
        "umount",
        "bash",
        "sudo",
    ] {
        world.script(format!("fake/{program}"), "echo \"$0\" >>$W/needed; exit 1");
    }
    let conf = world.subhost("mta", "CABLES=br0=");
    world.ok(&format!(
        "PATH=$W/fake:$PATH; overlay-boot {conf} && overlay-go mta true && overlay-stop mta"
    ));
    assert!(!world.has("needed"), "{}", world.read("needed"));
}

#[test]
fn hazard_sudo_gets_arguments_whole() {
    let world = World::new();
    world.script("fake/sudo", "printf '<%s>' \"$@\"");
    world.ok(if is_root() {
        "mount -t tmpfs -o uid=1 tmpfs /run"
    } else {
        "mount --bind /usr /run"
    });
    let called = world.ok("PATH=$W/fake:$PATH; overlay-boot 'a  b'\"'\"'c.conf'");
    assert!(called.ends_with("<a  b'c.conf>"), "{called}");
}

#[test]
fn hazard_by_design_root_inside_can_be_kept_from_the_host() {
    if !is_root_or_tell("protection") {
        return;
    }
    let (world, _) = booted("PROTECT=yes");
    let done =
        world.run("overlay-go mta sh -c 'cat /proc/sys/kernel/sysrq >/proc/sys/kernel/sysrq'");
    assert!(done.status != 0, "{done:#?}");
    assert!(world.run("overlay-go mta dmesg").status != 0);
}
