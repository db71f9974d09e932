//! A subhost boots, looks as it should from inside and outside, and ends without a trace.

use end_to_end::{World, booted, is_root, is_root_or_tell, not_done, until};

/// Where something is mounted in the subhost. Without root of the host the devices are the host's, each bound.
fn mounts(world: &World, name: &str) -> String {
    let mounts = world.inside(name, "cut -d' ' -f5 /proc/1/mountinfo | sort");
    let is_device =
        |path: &&str| path.starts_with("/dev/") && !["/dev/pts", "/dev/shm"].contains(path);
    let mounts = mounts.lines().filter(|path| is_root() || !is_device(path));
    mounts.collect::<Vec<_>>().join(" ")
}

fn live_ten_times(world: &World, conf: &str) {
    let before = world.snapshot();
    for _ in 0..10 {
        world.ok(&format!("overlay-boot {conf}"));
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
        "what was written is in UPPER"
    );
}

#[test]
fn ten_lives_on_a_busybox_root_leave_nothing() {
    let world = World::new();
    world.ok("ip link add br0 type bridge && ip link set br0 up");
    let conf = world.subhost("mta", "CABLES=br0=");
    live_ten_times(&world, &conf);
}

#[test]
fn ten_lives_on_the_machines_own_root_leave_nothing() {
    if !is_root_or_tell("LOWER=/") {
        return; // an overlay of / would show what is below its mounts
    }
    let world = World::new();
    let conf = world.conf("mta", "BASE=.\nSTART=none\nCABLES==");
    live_ten_times(&world, &conf);
    assert!(!std::path::Path::new("/root/number").exists());
}

#[test]
fn a_configuration_with_every_variable_boots() {
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
    until("the log to tell of pid 1", || {
        world.read("all/all.log").contains("Z hello from pid 1\n")
    });
    world.ok("overlay-stop all/all.conf");
    world.assert_same(&before);
}

#[test]
fn hazard_23_pid_1_has_nothing_of_the_callers() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    let line = format!("umask 077; exec 7</etc; overlay-boot {conf}");
    world.line(&line).env("SECRET_TOKEN", "x").run().ok();
    let pid = &world.document("mta")["pid"];
    let environment = world.ok(&format!("tr '\\0' '\\n' </proc/{pid}/environ | sort"));
    let allowed = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "NAME=mta",
        "LANG=C.UTF-8",
        "container=overlay-boot",
    ];
    for variable in environment
        .lines()
        .filter(|variable| !matches!(*variable, "PWD=/" | "SHLVL=0" | "SHLVL=1" | "OLDPWD=/"))
    {
        assert!(allowed.contains(&variable), "{variable}");
    }
    for variable in allowed {
        assert!(
            environment.lines().any(|line| line == variable),
            "no {variable} in {environment}"
        );
    }
    let files = world.ok(&format!(
        "cd /proc/{pid}/fd; for n in *; do echo $n $(readlink $n); done"
    ));
    let files: Vec<&str> = files
        .lines()
        .filter(|file| !file.starts_with("9 /memfd:ob-reaper"))
        .collect();
    assert_eq!(files[0], "0 /dev/null");
    assert!(
        files[1].starts_with("1 pipe:") && files[2].starts_with("2 pipe:"),
        "{files:?}"
    );
    assert_eq!(files.len(), 3, "{files:?}");
    assert_eq!(
        world.inside(
            "mta",
            "readlink /proc/1/cwd; readlink /proc/1/root; grep Umask /proc/1/status"
        ),
        "/\n/\nUmask:\t0022"
    );
    assert_eq!(
        mounts(&world, "mta"),
        "/ /dev /dev/pts /dev/shm /proc /run /sys"
    );
    // Nothing of the host is mapped into it either.
    assert_eq!(
        world.ok(&format!(
            "grep ' /' /proc/{pid}/maps | grep -cv /memfd:ob-reaper || :"
        )),
        "0"
    );
}

#[test]
fn hazard_30_the_callers_umask_does_not_close_the_subhost() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok(&format!("umask 077; overlay-boot {conf}"));
    assert_eq!(
        world.ok("stat -c %a mta/root/etc mta/root/etc/network mta/root/etc/network/interfaces"),
        "755\n755\n644"
    );
    assert_eq!(
        world.inside("mta", "stat -c %a / /etc /dev /run"),
        "755\n755\n755\n755"
    );
}

#[test]
fn pid_1_is_alone_in_its_namespaces() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}"));
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
    // What is mounted inside stays inside.
    let before = world.snapshot();
    world.inside("mta", "mount -t tmpfs tmpfs /root");
    world.assert_same(&before);
}

#[test]
fn the_devices_are_those_of_the_table() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}"));
    let nodes = world.inside(
        "mta",
        "cd /dev; stat -L -c '%n %a %u:%g %t:%T' console full null ptmx random tty urandom zero",
    );
    let expected = "console 622 0:5 5:1\nfull 666 0:0 1:7\nnull 666 0:0 1:3\nptmx 666 0:5 5:2\n\
                    random 444 0:0 1:8\ntty 666 0:5 5:0\nurandom 444 0:0 1:9\nzero 666 0:0 1:5";
    if is_root() {
        assert_eq!(nodes, expected);
    } else {
        // They are the host's, with its modes and owners; a user namespace makes none of its own.
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
}

#[test]
fn ram_size_takes_every_form() {
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
        world.ok(&format!("overlay-boot {conf}"));
        assert_eq!(
            world.inside(&name, "df -k /run | tail -n 1 | tr -s ' ' | cut -d' ' -f2"),
            *kilobytes,
            "{size}"
        );
    }
    let conf = world.subhost("percent", "RAM_SIZE=1%");
    world.ok(&format!("overlay-boot {conf}"));
    assert_eq!(
        world.inside("percent", "grep -c ' /run ' /proc/mounts"),
        "1"
    );
    for (name, size) in [("without", "none"), ("bad", "lots")] {
        let conf = world.subhost(name, &format!("RAM_SIZE={size}"));
        world.ok(&format!("overlay-boot {conf}"));
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
fn the_host_sees_the_names_that_others_rely_on() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    let conf = world.subhost("mta", "CABLES=br0= br0=");
    world.ok(&format!("overlay-boot {conf}"));
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
    // The only mount of it that the host has is the name of its network namespace.
    assert_eq!(world.ok("grep -c mta /proc/self/mountinfo"), "1");
    let title = format!(": overlay-boot {conf}");
    let mut processes = world.processes().into_iter();
    assert!(processes.any(|process| process.trim_end().ends_with(&title)));
}

#[test]
fn services_are_started_in_order_by_path_and_by_name() {
    let world = World::new();
    world.script(
        "busybox/bin/service",
        "echo \"service $* $(stat -c %N /proc/self/fd/0)\" >>/var/order",
    );
    world.script(
        "busybox/etc/one",
        "echo \"one $*\" >>/var/order; echo spoken",
    );
    let conf = world.subhost("mta", "START=/etc/one two\tthree *");
    world.ok(&format!("overlay-boot {conf}"));
    let order = || world.inside("mta", "cat /var/order 2>/dev/null || :");
    until("all services to be started", || {
        order().lines().count() == 4
    });
    assert!(
        order().starts_with("one start\nservice two start"),
        "{}",
        order()
    );
    assert!(
        order()
            .lines()
            .nth(3)
            .unwrap()
            .starts_with("service * start"),
        "{}",
        order()
    );
    until("the stand-in", || {
        world.inside("mta", "ps").contains("dummy_service")
    });
    assert!(world.read("/tmp/overlay-mta.log").contains("Z spoken\n"));
}

#[test]
fn hazard_37_a_root_without_a_service_command_boots_and_leaves_no_odd_file() {
    let world = World::new();
    world.ok("rm -f busybox/bin/service");
    let conf = world.conf("mta", "BASE=.\nLOWER=../busybox");
    world.ok(&format!("overlay-boot {conf}"));
    until("the log to tell", || {
        world
            .read("/tmp/overlay-mta.log")
            .contains("ssh is not started: this root has no service command")
    });
    assert_eq!(world.ok("ls -A mta/root"), "etc");
}

#[test]
fn the_stand_in_ends_when_something_is_written_to_its_fifo_and_the_subhost_with_it() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    world.ok(&format!("overlay-boot {conf}"));
    until("the stand-in", || {
        world
            .inside("mta", "ps; ls /run")
            .matches("dummy_service")
            .count()
            == 2
    });
    // From outside, for who is inside ends with it.
    let pid = &world.document("mta")["pid"];
    world.ok(&format!("echo >/proc/{pid}/root/run/dummy_service"));
    world.until_same(&before);
    world
        .run("overlay-stop mta")
        .fails(1, &["mta: not running"]);
}

#[test]
fn a_root_without_devices_stays_up_without_a_service() {
    let world = World::new();
    world.ok("cp -r busybox bare && rm -rf bare/dev && mkdir -p bare/proc bare/sys");
    let bare = format!("{}/bare", world.directory());
    let conf = world.conf(
        "mta",
        &format!(
            "BASE=.\nLOWER={bare}\nUPPER={bare}\nLIVE={bare}\nSTART=none\nCABLES==\nPOSTMOUNT=/bin/true"
        ),
    );
    world.ok(&format!("overlay-boot {conf}"));
    until("the stand-in", || {
        world.inside("mta", "ps").contains("dummy_service")
    });
    assert!(!world.has("bare/dev"));
    world.ok("overlay-stop mta");
}

#[test]
fn pid_1_killed_leaves_nothing() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    world.ok(&format!("overlay-boot {conf}"));
    world.ok(&format!("kill -9 {}", world.document("mta")["pid"]));
    world.until_same(&before);
    assert!(
        world
            .read("/tmp/overlay-mta.log")
            .contains("pid 1 was ended by SIGKILL")
    );
    world.ok(&format!("overlay-boot {conf} && overlay-stop {conf}"));
    world.assert_same(&before);
}

#[test]
fn an_init_of_ones_own_decides_what_pid_1_is() {
    let world = World::new();
    world.script(
        "mta/init",
        "echo 'exec sleep 1000'; env >$BASE/env; pwd >$BASE/pwd; echo $*>$BASE/args",
    );
    let conf = world.subhost("mta", "INIT=./init a *.conf");
    world.ok(&format!("overlay-boot {conf}"));
    assert_eq!(
        world.inside(
            "mta",
            "tr '\\0' ' ' </proc/1/cmdline; ls -l /.reaper | cut -c1-10"
        ),
        "sleep 1000 -rwxr-xr-x"
    );
    let w = world.directory();
    assert_eq!(world.read("mta/pwd"), format!("{w}/mta\n"));
    assert_eq!(world.read("mta/args"), "a mta.conf\n");
    let environment = world.read("mta/env");
    for variable in [
        "ACTION=overlay-boot",
        "UNSHARED=yes",
        "NAME=mta",
        "START=none",
        "RAM_SIZE=50M",
        &format!("CONFIG={conf}"),
        &format!("LIVE={w}/mta/live"),
        &format!("LOWER={w}/mta/../busybox"),
    ] {
        assert!(
            environment.lines().any(|line| line == variable),
            "no {variable} in {environment}"
        );
    }
    let before = world.ok("date +%s");
    world.ok("overlay-stop mta"); // sleep heeds TERM only when it is no pid 1; it is alone, so it is not waited for
    assert!(world.ok("date +%s").parse::<u64>().unwrap() - before.parse::<u64>().unwrap() < 9);
}

#[test]
fn hazard_16_what_init_prints_reaches_pid_1_unchanged() {
    let world = World::new();
    world.script(
        "mta/init",
        r#"cat <<'X'
printf '%s\n' 'a\b\\c' "$(echo d)" `echo e` '\$f' >/root/printed
sleep 1000 &
exec /.reaper mta
X"#,
    );
    let conf = world.subhost("mta", "INIT=./init");
    world.ok(&format!("overlay-boot {conf}"));
    until("pid 1 to be the reaper", || {
        world.inside("mta", "tr '\\0' ' ' </proc/1/cmdline") == "/.reaper mta "
    });
    assert_eq!(
        world.inside("mta", "cat /root/printed"),
        "a\\b\\\\c\nd\ne\n\\$f"
    );
    world.ok("overlay-stop mta");
}

#[test]
fn hooks_get_their_words_the_plan_and_the_log() {
    let world = World::new();
    let hook = "{ echo \"$0 $*\"; pwd; readlink /proc/self/fd/0; env; } >$BASE/$1; echo said by $1; echo loud >&2
        [ $1 = pre ] || { mount -t tmpfs tmpfs $LIVE/dev; : >$LIVE/dev/null; }; exit 3";
    world.script("mta/hook", hook);
    let conf = world.subhost("mta", "PREMOUNT=./hook pre x?.y \"q\nPOSTMOUNT=./hook post $HOME\nRAM_SIZE=7M\nSHARE=/x:/y\nSHARE=/z\nMINE=no");
    world.ok("touch mta/x1.y mta/x2.y");
    world.ok(&format!("overlay-boot {conf}"));
    let w = world.directory();
    let (pre, post) = (world.read("mta/pre"), world.read("mta/post"));
    assert!(
        pre.starts_with(&format!(
            "./hook pre x1.y x2.y \"q {w}/mta/root\n{w}/mta\n/dev/null\n"
        )),
        "{pre}"
    );
    assert!(
        post.starts_with(&format!("./hook post $HOME {w}/mta/live {w}/mta/root\n")),
        "{post}"
    );
    for variable in [
        "ACTION=overlay-boot",
        "UNSHARED=yes",
        &format!("CONFIG={conf}"),
        &format!("BASE={w}/mta"),
        "RAM_SIZE=7M",
        "SHARE=/x:/y",
        "/z",
    ] {
        assert!(
            pre.lines().any(|line| line == variable),
            "no {variable} in {pre}"
        );
    }
    assert!(!pre.contains("MINE="));
    let log = world.read("/tmp/overlay-mta.log");
    assert!(
        log.contains("said by pre\nloud\n")
            && log.contains("said by post\nloud\n")
            && log.contains("PREMOUNT ended with exit status: 3"),
        "{log}"
    );
    // POSTMOUNT stands for all of the default's work.
    assert_eq!(mounts(&world, "mta"), "/ /dev /proc /sys");
}

#[test]
fn a_mount_of_a_hook_is_seen_inside_below_live_and_nowhere_on_the_host() {
    let world = World::new();
    world.script("mta/post", "ob-mount --furnish $1; mkdir -p $1/extra /run/aside; mount -t tmpfs tmpfs $1/extra; mount -t tmpfs tmpfs /run/aside");
    let conf = world.subhost("mta", "POSTMOUNT=./post");
    let before = world.snapshot();
    world.ok(&format!("overlay-boot {conf}"));
    assert_eq!(
        mounts(&world, "mta"),
        "/ /dev /dev/pts /dev/shm /extra /proc /run /sys"
    );
    assert_eq!(
        world.ok("grep -c -e /extra -e /run/aside /proc/self/mountinfo || :"),
        "0"
    );
    world.ok("overlay-stop mta; rmdir /run/aside");
    world.assert_same(&before);
}

#[test]
fn a_root_is_an_overlay_or_bound_or_there_already() {
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
        world.ok(&format!("overlay-boot {conf}"));
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
fn hazard_36_the_default_interfaces_have_every_link_and_a_file_that_is_there_stays() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES== =.7 =");
    world.run(&format!("overlay-boot {conf}"));
    let file = world.read("mta/root/etc/network/interfaces");
    let words = [
        "auto lo\niface lo inet loopback\n",
        "auto eth0\niface eth0 inet manual\n",
        "auto eth1\n",
    ];
    assert!(
        words.iter().all(|words| file.contains(words)) && !file.contains("eth2"),
        "{file}"
    );
    let conf = world.subhost("own", "");
    world.write("own/root/etc/network/interfaces", "# mine\n");
    world.ok(&format!("overlay-boot {conf}"));
    assert_eq!(world.read("own/root/etc/network/interfaces"), "# mine\n");
}

#[test]
fn the_hosts_adjtime_is_bound_over_one_that_is_there() {
    if !is_root_or_tell("a file in /etc") {
        return;
    }
    let world = World::new();
    world.write("etc/adjtime", "host\n");
    world.ok("cp -a /etc/passwd /etc/group etc; mount --bind etc /etc");
    world.write("busybox/etc/adjtime", "own\n");
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}"));
    assert_eq!(world.inside("mta", "cat /etc/adjtime"), "host");
}

#[test]
fn overlay_boot_does_not_keep_its_callers_pipe_or_terminal() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    // These return only if nothing that stays holds what they hold.
    assert_eq!(world.ok(&format!("overlay-boot {conf} 2>&1 | cat")), "");
    let document = world.document("mta");
    for fact in ["pid", "guard"] {
        let ids = world.ok(&format!("cut -d' ' -f5,6 /proc/{}/stat", document[fact]));
        assert_ne!(ids, world.ok("cut -d' ' -f5,6 /proc/1/stat"), "{fact}");
        assert_eq!(
            world.ok(&format!("readlink /proc/{}/cwd", document[fact])),
            "/"
        );
    }
    assert_eq!(world.ok("overlay-stop mta 2>&1 | cat"), "");
}

#[test]
fn overlay_boot_in_the_foreground_ends_with_the_subhost_and_the_subhost_with_it() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    let before = world.snapshot();
    let boot = world
        .line(&format!("exec overlay-boot --foreground {conf}"))
        .start();
    until("the subhost to be up", || world.is_up("mta"));
    world.ok("overlay-stop mta");
    assert_eq!(boot.wait().status, 0);
    let boot = world.line(&format!("overlay-boot -f {conf} & boot=$!; until [ -e /run/go ]; do sleep 0.05; done; kill $boot; wait $boot")).start();
    until("the subhost to be up", || world.is_up("mta"));
    world.ok("touch /run/go");
    boot.wait();
    world.ok("rm /run/go");
    world.assert_same(&before);
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
