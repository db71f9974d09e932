//! Dry runs: the steps that -n prints, and what they do when a shell runs them.

use end_to_end::{World, is_root_or_tell, until};

#[test]
fn dry_run_changes_nothing_and_prints_all_steps() {
    let world = World::new();
    world.ok("ip link add br0 type bridge; mkdir shared");
    world.script("mta/pre", "echo it ran >$BASE/ran");
    world.script("mta/name", "echo $ACTION >>asked; echo none");
    let conf = world.subhost("mta", "CABLES=br0= =02:00:5e:10:00:01\nPREMOUNT=./pre a*\nSHARE=../shared:/mnt/a b:ro\nINIT=overlay-init\nSTART=!./name");
    let before = (
        world.snapshot(),
        world.ok("find . ! -name asked | sort; ls -A /tmp /run"),
    );
    let text = world.ok(&format!("overlay-boot -n {conf}"));
    let document = world.ok(&format!("overlay-boot --dry-run --json {conf}"));
    world.assert_same(&before.0);
    assert_eq!(
        world.ok("find . ! -name asked | sort; ls -A /tmp /run"),
        before.1
    );
    assert_eq!(world.read("mta/asked"), "dry-run\ndry-run\n");
    let w = world.directory();
    for step in [
        format!(
            "(cd {w}/mta && ob-conf {conf} -- env ACTION=overlay-boot UNSHARED=yes ./pre a* {w}/mta/root)"
        ),
        format!(
            "mount -t overlay mta -o lowerdir={w}/mta/../busybox,upperdir={w}/mta/root,workdir={w}/mta/work {w}/mta/live"
        ),
        format!("mount --bind -o ro {w}/mta/../shared '{w}/mta/live/mnt/a b'"),
        "ip link add mta0 type veth peer name eth0 netns mta".to_owned(),
        "ip link set mta0 master br0 up".to_owned(),
        "ip link add mta1 type veth peer name eth1 netns mta address 02:00:5e:10:00:01".to_owned(),
    ] {
        assert!(text.lines().any(|line| line == step), "no {step} in {text}");
        let document: serde_json::Value = serde_json::from_str(&document).expect("a document");
        let steps = document["steps"].as_array().expect("steps");
        assert!(
            steps.iter().any(|found| *found == step),
            "no {step} in {steps:?}"
        );
    }
    assert!(
        text.contains("| ob-mount | ob-cable | ob-unshare"),
        "{text}"
    );
    // A dry run reports the errors of a boot.
    world.run(&format!("sed s/br0=/br7=/ {conf} >other.conf; sed -i s,BASE=.*,BASE=mta, other.conf; overlay-boot -n other.conf"))
        .fails(1, &["ob-cable: other: ", "br7"]);
    world.ok("rm other.conf");
    // A real stage refuses a document with steps.
    world
        .run(&format!("ob-conf {conf} | ob-mount -n | ob-cable"))
        .fails(1, &["ob-cable: mta: ", "dry run"]);
    world
        .run(&format!("ob-conf {conf} | ob-mount -n | ob-unshare"))
        .fails(1, &["ob-unshare: mta: ", "dry run"]);
    // A dry run of a running subhost is refused, as a boot is.
    world.boot(&conf);
    world
        .run(&format!("overlay-boot -n {conf}"))
        .fails(1, &["in use by the subhost mta"]);
    world.ok("overlay-stop mta");
}

#[test]
fn steps_of_a_dry_run_boot_a_subhost() {
    if !is_root_or_tell("typed steps") {
        return;
    }
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    for more in ["CABLES=br0=", "READONLY=volatile\nCABLES=br0="] {
        let conf = world.subhost("mta", more);
        let line =
            format!("overlay-boot -n {conf} >steps && exec unshare --mount sh -e steps </dev/null");
        let mut typed = world.line(&line).start();
        let stand_in = "for d in /proc/[0-9]*; do read -r c <$d/comm && [ $c = dummy_service ] && echo ${d#/proc/} && break; done 2>/dev/null";
        let mut pid = String::new();
        until("the placeholder to run", || {
            assert!(typed.is_running(), "the steps have failed");
            pid = world.run(stand_in).out.trim().to_owned();
            !pid.is_empty()
        });
        let inside =
            |line: &str| world.ok(&format!("nsenter -t {pid} -m -n -u -i -p sh -c '{line}'"));
        assert_eq!(
            inside("cut -d\" \" -f1-3 /proc/mounts | head -n 1"),
            "mta / overlay"
        );
        assert_eq!(inside("ls /sys/class/net"), "eth0\nlo");
        assert_eq!(inside("cat /proc/1/comm"), "ob-reaper");
        world.ok(&format!("kill -9 {pid}"));
        typed.wait().ok();
        world.ok("for i in 0 1 2 3 4 5 6 7 8 9; do [ ! -e /sys/class/net/mta0 ] || sleep 0.2; done; rmdir /sys/fs/cgroup/mta /sys/fs/cgroup/unified/mta 2>/dev/null; rm -f /run/netns/mta");
    }
}

#[test]
fn steps_with_hooks_and_init_give_the_same_environment() {
    if !is_root_or_tell("typed steps") {
        return;
    }
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    world.script("mta/pre", "echo $NAME >>$1/hooks");
    world.script("mta/post", "echo $1 >>$1/hooks");
    world.script(
        "mta/init",
        "cat <<'E'\ntr '\\0' '\\n' </proc/1/environ | sort >/environ; cat /hooks >>/environ; test -e $REAPER && echo reaper >>/environ\nE",
    );
    let conf = world.subhost(
        "mta",
        "CABLES=br0=\nPREMOUNT=./pre\nPOSTMOUNT=./post\nINIT=./init a*\nSTOP_TIMEOUT=3\nSETENV=COLOUR=blue\nSETENV=TZ=UTC",
    );
    for caller in ["", "LANG=C.UTF-8 TERM='v t' TZ=Asia/Tokyo"] {
        let run = |line: &str| {
            let env = "env -u LANG -u TERM -u TZ";
            world.ok(&format!("{env} {caller} {line} </dev/null"));
            let environ = world.read("mta/root/environ");
            world.ok("rm mta/root/environ mta/root/hooks");
            environ
        };
        let booted = run(&format!("overlay-boot -f {conf}"));
        for variable in [
            "REAPER=",
            "STOP_TIMEOUT=3",
            "TZ=UTC",
            "COLOUR=blue",
            "reaper",
        ] {
            let line = booted.lines().find(|line| line.starts_with(variable));
            assert!(line.is_some(), "no {variable} in {booted}");
        }
        assert_eq!(booted.contains("\nTERM=v t\n"), !caller.is_empty());
        world.ok(&format!("overlay-boot -n {conf} >steps"));
        assert_eq!(
            run("unshare --mount sh -e steps"),
            booted,
            "{}",
            world.read("steps")
        );
        world.ok(
            "rmdir /sys/fs/cgroup/mta /sys/fs/cgroup/unified/mta 2>/dev/null; ip netns del mta",
        );
    }
}

/// Prints the properties of the subhost with this pid 1: rights, limits, mounts, files, UPPER, and
/// the environment.
const LOOK: &str = r#"
grep -E '^(Uid|Cap|Seccomp|NoNewPrivs|Groups)' /proc/$pid/status
cat /proc/$pid/uid_map /proc/$pid/limits
nsenter -t $pid -m -n -u sh -c 'hostname; cut -d" " -f1-4 /proc/self/mounts | sort; ls /sys/class/net
    find / /dev /etc/network /run -xdev ! -path "/dev/pts/[0-9]*" ! -path "/bin*" -exec stat -c "%n %F %a %u:%g %t:%T" {} + | sort -u
    cat /etc/network/interfaces /etc/adjtime'
stat -Lc %u /proc/$pid/root/
find mta/root | sort; find mta/root -type f -exec cksum {} + | sort
tr '\0' '\n' </proc/$pid/environ | sort
"#;

/// Boots each configuration, and types the steps of its dry run; checks that both make the same
/// subhost.
#[track_caller]
fn assert_steps_make_the_same(world: &World, configurations: &[&str]) {
    for more in configurations {
        let conf = world.subhost("mta", &format!("{more}\nCABLES=br0= br0=02:00:5e:10:00:01"));
        let clean = "chmod 700 mta; rm -rf mta/root mta/work; mkdir mta/root mta/work";
        world.ok(clean);
        world.boot(&conf);
        let mut found = None;
        until("the placeholder to run", || {
            found = find_subhost(world);
            found.is_some()
        });
        let (pid, _) = found.take().expect("the subhost");
        let booted = world.ok(&format!("pid={pid}{LOOK}"));
        let command = world.ok("ob-enter mta env");
        world.ok(&format!("overlay-stop mta; {clean}"));
        world.ok(&format!("overlay-boot -n {conf} >steps"));
        let mut typed = world
            .line("exec unshare --mount sh -e steps >said 2>&1")
            .start();
        until("the steps to start the subhost", || {
            assert!(typed.is_running(), "{more}: {}", world.read("said"));
            found = find_subhost(world);
            found.is_some()
        });
        let (pid, placeholder) = found.expect("the subhost");
        let is_up = world.is_up("mta");
        let looked = world.ok(&format!("pid={pid}{LOOK}"));
        // With INIT, the console is a terminal of the supervisor, which no command makes.
        let (booted, looked) = match more.contains("INIT=") {
            true => (without_console(&booted), without_console(&looked)),
            false => (booted, looked),
        };
        if looked != booted {
            world.write("booted", &booted);
            world.write("looked", &looked);
            let difference = world.run("diff booted looked").out;
            panic!("{more}:\n{difference}\n{}", world.read("steps"));
        }
        if is_up {
            assert_eq!(world.ok("ob-enter mta env"), command, "{more}");
            world.ok("overlay-stop mta");
            assert_eq!(typed.wait().status, 0, "{}", world.read("said"));
        } else {
            world.ok(&format!("kill -9 {placeholder}"));
            typed.wait().ok();
            world.ok(
                "rmdir /sys/fs/cgroup/mta /sys/fs/cgroup/unified/mta 2>/dev/null; ip netns del mta",
            );
        }
    }
}

fn without_console(looked: &str) -> String {
    let lines = looked
        .lines()
        .filter(|line| !line.starts_with("/dev/console "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the numbers on the host of pid 1 and of the placeholder for a service.
fn find_subhost(world: &World) -> Option<(String, String)> {
    let line = "for d in /proc/[0-9]*; do read -r c <$d/comm && [ $c = dummy_service ] && grep ^PPid $d/status | cut -f2 && echo ${d#/proc/} && break; done 2>/dev/null";
    let found = world.run(line).out;
    let (pid, placeholder) = found.trim().split_once('\n')?;
    Some((pid.to_owned(), placeholder.to_owned()))
}

fn world_with_bridge() -> World {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    world.ok("mkdir -p busybox/etc; echo lower >busybox/etc/adjtime");
    world
}

#[test]
fn steps_of_a_dry_run_make_the_same_subhost() {
    if !is_root_or_tell("typed steps") {
        return;
    }
    let world = world_with_bridge();
    assert_steps_make_the_same(
        &world,
        &[
            "",
            "PROTECT=yes",
            "PROTECT=strict",
            "USERNS=200000\nREADONLY=volatile",
            "CAPS=CHOWN KILL NET_ADMIN SYS_CHROOT SYS_ADMIN SYS_PTRACE SETUID SETGID\nSECCOMP=default",
            "HOSTNAME=elsewhere\nRLIMITS=nofile=500\nSETENV=COLOUR=blue green\nSETENV=TZ=UTC",
        ],
    );
}

#[test]
fn steps_of_a_dry_run_mount_the_same_root() {
    if !is_root_or_tell("typed steps") {
        return;
    }
    let world = world_with_bridge();
    world.ok("mkdir -p shared/below/deep other; mount -t tmpfs tmpfs shared/below; echo x >file; mkdir -p shared/below/deep; cp -a busybox mine; echo kept >busybox/etc/kept");
    let w = world.directory();
    let shares = format!(
        "SHARE={w}/other:/mnt/below/deep\nSHARE_RO={w}/shared:/mnt:rec\nSHARE={w}/file:/etc/a file\nSHARE={w}/none:/none\nSHARE={w}/file:/etc/kept\nSHARE=../../{w}/other:../..//up"
    );
    world.ok(
        "mkdir busybox/var; ln -s /run busybox/var/run; ln -s ../run/net/resolv.conf busybox/etc",
    );
    let links = format!("SHARE={w}/other:/var/run/shared\nSHARE={w}/file:/etc/resolv.conf");
    assert_steps_make_the_same(
        &world,
        &[
            &shares,
            &format!("{shares}\nPROTECT=strict"),
            "READONLY=yes\nSHARE=../other:/mnt",
            "READONLY=volatile\nPROTECT=yes",
            "RAM_SIZE=none",
            "RAM_SIZE=10%\nMASK=/etc/passwd /none",
            &links,
            "LOWER=../mine\nUPPER=../mine",
            "LOWER=../mine\nUPPER=../mine\nREADONLY=yes",
        ],
    );
    assert!(!world.has("/run/shared") && !world.has("/run/net"));
}

#[test]
fn steps_of_a_dry_run_run_the_same_hooks() {
    if !is_root_or_tell("typed steps") {
        return;
    }
    let world = world_with_bridge();
    world.script("mta/pre", "mkdir -p $1/etc/network; env | sort >$1/etc/network/env; echo auto lo >$1/etc/network/interfaces");
    world.script(
        "mta/post",
        "overlay-postmount $1 $2; echo $NAME $1 $2 >$1/dev/made",
    );
    let hooks = "PREMOUNT=./pre a*\nPOSTMOUNT=./post\nINIT=overlay-init\nSTART=";
    assert_steps_make_the_same(
        &world,
        &[
            hooks,
            "PREMOUNT=overlay-premount\nPOSTMOUNT=overlay-postmount",
            &format!("{hooks}\nPROTECT=strict"),
            &format!("{hooks}\nREADONLY=volatile\nPROTECT=yes"),
            "INIT=overlay-init\nREADONLY=yes\nPROTECT=yes",
        ],
    );
}

#[test]
fn steps_of_a_dry_run_mount_images() {
    let world = World::new();
    if !world.mounts_images("overlay-diskfile") {
        return;
    }
    world.ok("mkdir -p disk/upper disk/work; truncate -s 10M data.img; mke2fs -q -d disk data.img; mkdir -p mta/data");
    let image = "UPPER=!overlay-diskfile data/upper ../data.img\nWORK=data/work\nHOSTNAME=mta";
    world.ok("ip link add br0 type bridge");
    assert_steps_make_the_same(&world, &[image]);
    let conf = world.subhost("mta", image);
    let before = world.ok("find mta; cat /proc/mounts");
    world.ok(&format!("overlay-boot -n {conf} >steps"));
    assert_eq!(world.ok("find mta; cat /proc/mounts"), before);
    let typed = world
        .line("exec unshare --mount sh -e steps >said 2>&1")
        .start();
    until("the steps to start the subhost", || world.is_up("mta"));
    world.ok("overlay-go mta touch /kept; overlay-stop mta");
    assert_eq!(typed.wait().status, 0, "{}", world.read("said"));
    assert_eq!(
        world.ok("mount -o loop data.img mta/data; ls mta/data/upper; umount mta/data"),
        "etc\nkept"
    );
}
