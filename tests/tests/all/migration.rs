//! Migration from overlay-boot 1.6.4: its layers, configurations, hooks, subhosts.conf, all kinds
//! of roots, and real services.

use end_to_end::{NOT_INSTALLED, World, bin, is_root_or_tell, not_done, scripts, until};
use std::path::Path;

/// Makes a world with a bridge br0, 10.0.0.1, and the old directory of the commands.
fn world() -> World {
    let world = World::new();
    world
        .ok("ip link add br0 type bridge && ip link set br0 up && ip addr add 10.0.0.1/24 dev br0");
    world.ok(&format!(
        "mkdir -p lib/overlay-boot && ln -s {}/* lib/overlay-boot && ln -s {}/ob-reaper lib/overlay-boot/reaper && mount --bind lib /var/lib",
        scripts().display(),
        bin().display()
    ));
    world.ok("ls /var/lib/overlay-boot/functions /var/lib/overlay-boot/reaper");
    world
}

/// Adds a service to UPPER that sets an address and serves /srv/www.
fn serve(world: &World, name: &str, address: &str) {
    world.script(
        format!("{name}/root/etc/rc"),
        &format!(
            "case $1 in
start) ip addr add {address}/24 dev eth0; ip link set eth0 up; httpd -h /srv/www; echo started ;;
stop) killall httpd; echo stopped >>/etc/calls ;;
esac"
        ),
    );
    world.write(format!("{name}/root/srv/www/name"), name);
}

/// Fetches a file from there, on the host.
fn fetch(world: &World, address: &str, file: &str) -> String {
    let mut text = String::new();
    until(&format!("an answer from {address}"), || {
        let get = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=5).read().decode())";
        let done = world.run(&format!("python3 -c '{get}' http://{address}/{file}"));
        text = done.out;
        done.status == 0
    });
    text
}

#[test]
fn host_with_files_of_1_6_4_boots_serves_and_stops() {
    let world = world();
    let w = world.directory().to_owned();
    world.write("shared/page", "shared\n");

    // A subhost with all files that the old tool leaves in its layers, and hooks that use the old
    // directory.
    world.conf(
        "mta",
        "# The mail host.\r\nBASE=.\r\n  LOWER=/no/such\r\nexport LOWER=/no/such\r\nLOWER =/no/such\r\nLOWER=../busybox\r\nLOWER=/no/such\r\n\
         CABLES=br0=02:00:5e:10:00:01\r\nSTART=/etc/rc\r\nPREMOUNT=./premount\r\nPOSTMOUNT=./postmount word\r\nINIT=./init\r\n\
         SHARE =../shared:srv/www/shared\r\nRAM_SIZE=!echo 10M\r\nLOG=/tmp/oly-mta.log\r\nMINE=of my own",
    );
    serve(&world, "mta", "10.0.0.2");
    world.write("mta/root/etc/network/interfaces", "# mine\nauto lo\n");
    world.ok("mkdir -m 000 mta/work/work");
    world.script(
        "mta/root/.reaper",
        "trap '' TERM HUP INT; mkfifo /run/never; while :; do read -r x <>/run/never; done",
    );
    world.script(
        "mta/premount",
        ". /var/lib/overlay-boot/functions
[ \"$ACTION\" = overlay-boot ] || die 'no boot'
beginswith \"$CONFIG\" / || die 'no path'
echo \"pre $(subhost_name \"$CONFIG\") $(config RAM_SIZE 50M) $(config MINE) $(config NONE default)\" >>calls
exec /var/lib/overlay-boot/overlay-premount \"$1\"",
    );
    world.script(
        "mta/postmount",
        ". /var/lib/overlay-boot/functions
echo \"post $1 $#\" >>calls
LIVE=$(config LIVE live)
mount -t tmpfs tmpfs $LIVE/root
exec /var/lib/overlay-boot/overlay-postmount LIVE \"$3\"",
    );
    world.script(
        "mta/init",
        "echo 'echo before >/var/before'\nexec /var/lib/overlay-boot/overlay-init",
    );

    // A subhost whose pid 1 is the reaper of the old tool, from its layer, which blocks all
    // signals.
    world.conf(
        "old",
        "BASE=.\nLOWER=../busybox\nCABLES=br0=\nSTART=/etc/rc\nINIT=./init",
    );
    serve(&world, "old", "10.0.0.3");
    world.ok("cp mta/root/.reaper old/root");
    world.script(
        "old/init",
        "echo '/etc/rc start'; echo \"exec /.reaper $(basename $CONFIG .conf)\"",
    );

    // A bound subhost; its configuration spells out the defaults.
    world.make_busybox("bound/root");
    world.conf(
        "bound",
        "BASE=.\nUPPER=root\nLOWER=root\nLIVE=live\nCABLES=br0=\nSTART=none /etc/rc\nRAM_SIZE=none",
    );
    serve(&world, "bound", "10.0.0.4");

    world.write(
        "subhosts.conf",
        &format!("# in this order\n{w}/mta/mta.conf {w}/old/old.conf   # remark\n\n  {w}/bound/bound.conf\n"),
    );
    let subhosts = |action: &str| {
        let line = world.line(&format!("overlay-subhosts {action}"));
        line.env("SUBHOSTS_CONF", &format!("{w}/subhosts.conf"))
            .run()
    };
    world.ok("umask 026; : >/tmp/oly-mta.log"); // the log stays after the stop
    let before = world.snapshot();
    for round in 0..2 {
        subhosts("start").ok();
        for (name, address) in [
            ("mta", "10.0.0.2"),
            ("old", "10.0.0.3"),
            ("bound", "10.0.0.4"),
        ] {
            assert_eq!(fetch(&world, address, "name"), name);
        }
        assert_eq!(fetch(&world, "10.0.0.2", "shared/page"), "shared\n");
        assert_eq!(
            world.read("mta/calls"),
            "pre mta 10M of my own default\npost word 3\n".repeat(round + 1)
        );
        assert_eq!(
            world.inside("mta", "cat /var/before; cat /sys/class/net/eth0/address; df -k /run | tail -n 1 | tr -s ' ' | cut -d' ' -f2; cat /etc/network/interfaces"),
            "before\n02:00:5e:10:00:01\n10240\n# mine\nauto lo"
        );
        assert!(
            world
                .inside("old", "cat /proc/1/cmdline")
                .contains("/.reaper")
        );
        assert!(world.read("/tmp/oly-mta.log").contains("Z started\n"));

        // The commands as they were used with 1.6.4.
        let go = world.line("overlay-go mta").input("echo $((6*7))\n").run();
        assert_eq!(go.ok(), "42");
        let list = world.ok("overlay-go");
        assert!(
            list.lines().any(|line| line == format!("{w}/old/old.conf")),
            "{list}"
        );
        world.ok(&format!("overlay-stop {w}/bound/bound.conf"));
        world
            .run("overlay-stop bound/bound.conf")
            .fails(1, &["bound: not running"]);
        subhosts("stop").ok();
        world.assert_same(&before);
    }
    assert_eq!(world.read("bound/root/etc/calls"), "stopped\nstopped\n");
    assert!(
        world.read("mta/root/.reaper").contains("trap"),
        "the old reaper is unchanged"
    );
}

#[test]
fn functions_for_hooks_work_as_before() {
    let world = world();
    let conf = world.subhost(
        "mta",
        "NAME=other\nCABLES== =\nMINE=  a  \\b \\\\c \nMINE=no\nCOMMAND=!echo said\nSTART=networking ssh",
    );
    let run = |line: &str| {
        let script = format!(". /var/lib/overlay-boot/functions\n{line}");
        world
            .line("sh -c \"$LINE\"")
            .env("LINE", &script)
            .env("CONFIG", &conf)
            .run()
    };
    run("die some reason").fails(1, &["some reason"]);
    for (line, printed) in [
        (
            "beginswith abc ab && ! beginswith abc b && ! beginswith abc 'a*' && echo yes",
            "yes",
        ),
        ("reverse a b c", "c b a"),
        (
            "config MINE; config NONE; config NONE 'a  default'; config COMMAND",
            "a  b \\c\n\na  default\nsaid",
        ),
        ("subhost_name; subhost_name \"$CONFIG\"", "other\nother"),
        ("is_live || echo no; list_running", "no"),
    ] {
        assert_eq!(run(line).ok(), printed, "{line}");
    }
    world.boot(&conf);
    let running = format!("yes\nyes\nno\n{conf}\n{conf}");
    let line = "is_live && echo yes; is_live other && echo yes; is_live mta || echo no; list_running; subhost_config other";
    assert_eq!(run(line).ok(), running);
    world.ok("overlay-stop other");
    run("setup_networking").ok();
    assert_eq!(
        world.ok("ip netns exec other ls /sys/class/net"),
        "eth0\neth1\nlo"
    );
}

/// Boots, checks the subhost, and stops it; nothing is left.
fn boot_and_stop(world: &World, name: &str, conf: &str) {
    let before = world.snapshot();
    world.boot(conf);
    assert_eq!(
        world.inside(
            name,
            "echo $((6*7)) >/etc/made; cat /etc/made; ls -d /proc/self /dev/null"
        ),
        "42\n/dev/null\n/proc/self",
        "{name}"
    );
    assert_eq!(
        world.ok(&format!("overlay-go {name} cat /etc/made")),
        "42",
        "{name}"
    );
    world.ok(&format!("overlay-stop {name}"));
    world.until_same(&before);
}

#[test]
fn roots_of_all_kinds_boot() {
    let world = World::new();

    // A minimal root: one program, and the directories that a read-only root must have.
    world.ok("mkdir -p bare/bin bare/etc && cp busybox/bin/busybox bare/bin && for a in sh cat ls; do ln -s busybox bare/bin/$a; done");
    let conf = world.subhost("bare-one", "LOWER=../bare\nSTART=networking ssh");
    boot_and_stop(&world, "bare-one", &conf);

    // The layout of Alpine: absolute links to one program, no bash, no service command, an inittab.
    world.ok("mkdir -p alpine/bin alpine/sbin alpine/usr/bin alpine/usr/sbin alpine/lib alpine/etc/init.d alpine/var/run alpine/proc alpine/sys alpine/dev alpine/run alpine/tmp
        cp busybox/bin/busybox alpine/bin; cp -L busybox/etc/passwd busybox/etc/group alpine/etc
        for a in sh ash cat ls ps mount; do ln -s /bin/busybox alpine/bin/$a; done; for a in init ip; do ln -s /bin/busybox alpine/sbin/$a; done
        for a in env id setsid; do ln -s /bin/busybox alpine/usr/bin/$a; done; echo ::wait:/bin/touch /etc/x >alpine/etc/inittab; ln -s ../run alpine/var/run2");
    let conf = world.subhost("alpine-one", "LOWER=../alpine\nSTART=networking");
    boot_and_stop(&world, "alpine-one", &conf);

    // Its init as pid 1, by a custom INIT.
    world.write(
        "alpine/etc/inittab",
        "::sysinit:/bin/cat /proc/1/cmdline\n::respawn:/bin/busybox sleep 1000\n",
    );
    world.script("alpine-two/init", "echo 'exec /sbin/init'");
    let conf = world.subhost("alpine-two", "LOWER=../alpine\nINIT=./init");
    world.boot(&conf);
    until("the child of init", || {
        world.inside("alpine-two", "ps").contains("sleep 1000")
    });
    assert!(
        world
            .inside("alpine-two", "cat /proc/1/cmdline")
            .contains("init")
    );
    world.ok("overlay-stop alpine-two");

    // A merged /usr.
    world.ok("mkdir -p merged/usr merged/etc && cp -a busybox/bin merged/usr && ln -s usr/bin merged/bin");
    let conf = world.subhost("merged-one", "LOWER=../merged");
    boot_and_stop(&world, "merged-one", &conf);

    // UPPER on another filesystem, and a LIVE that is mounted before the boot.
    world.ok("mkdir own there && mount -t tmpfs tmpfs own && mkdir own/root own/work");
    let conf = world.subhost("own-one", "UPPER=../own/root\nWORK=../own/work");
    boot_and_stop(&world, "own-one", &conf);
    assert!(world.has("own/root/etc/made"));
    world.make_busybox("there-one/tree");
    let conf = world.conf("there-one", "BASE=.\nSTART=none\nLOWER=live\nUPPER=live");
    world.ok("mount --bind there-one/tree there-one/live");
    boot_and_stop(&world, "there-one", &conf);
    assert!(world.has("there-one/tree/etc/made"));
}

#[test]
fn image_mounted_by_a_custom_command_boots() {
    let world = World::new();
    if !world.mounts_images("images") {
        return;
    }
    world.ok("mksquashfs busybox root.squashfs -quiet -no-progress >&2; truncate -s 24M root.ext4; mke2fs -q -t ext4 -d busybox root.ext4");
    for image in ["squashfs", "ext4"] {
        world.script(
            format!("{image}/image"),
            "[ \"$ACTION\" = overlay-boot ] && mount -o loop,ro \"$1\" mnt\necho mnt",
        );
        let conf = world.subhost(image, &format!("LOWER=!./image ../root.{image}"));
        world.ok(&format!("mkdir {image}/mnt"));
        boot_and_stop(&world, image, &conf);
    }
    until("the removal of the loop devices", || {
        world.ok("losetup -l -n -O BACK-FILE | grep -c \"$W\" || :") == "0"
    });
}

#[test]
fn sshd_and_nginx_of_debian_serve() {
    if !is_root_or_tell("LOWER=/") {
        return;
    }
    if !Path::new("/usr/sbin/sshd").exists() || !Path::new("/usr/sbin/nginx").exists() {
        return not_done("openssh-server and nginx-light", NOT_INSTALLED);
    }
    let world = world();
    let conf = world.conf(
        "web",
        "BASE=.\nCABLES=br0=\nSTART=/etc/address ssh nginx\nSTOP_TIMEOUT=60",
    );
    world.script(
        "web/root/etc/address",
        "[ \"$1\" != start ] || { ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; }",
    );
    world.ok("ssh-keygen -q -t ed25519 -N '' -f key && mkdir -p -m 700 web/root/root/.ssh && chmod 700 web/root/root && cp key.pub web/root/root/.ssh/authorized_keys && mkdir -p web/root/etc/ssh && ssh-keygen -q -A -f web/root >&2");
    let before = world.snapshot();
    world.boot(&conf);
    assert!(fetch(&world, "10.0.0.2", "").contains("nginx"));
    let ssh = "ssh -i key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@10.0.0.2";
    until("a login over ssh", || {
        world.run(&format!("{ssh} true")).status == 0
    });
    // The session runs inside and has a terminal there.
    assert_eq!(
        world.ok(&format!("{ssh} readlink /proc/self/ns/pid")),
        world.inside("web", "readlink /proc/1/ns/pid")
    );
    assert!(
        world
            .ok(&format!("{ssh} -tt tty </dev/null"))
            .contains("/dev/pts/")
    );
    world.ok("overlay-stop web");
    world.until_same(&before);
    assert!(world.run(&format!("{ssh} -o ConnectTimeout=1 true")).status != 0);
}

#[test]
fn ifupdown_configures_a_cable_without_bridge() {
    if !Path::new("/usr/sbin/ifup").exists() && !Path::new("/sbin/ifup").exists() {
        return not_done("ifupdown", NOT_INSTALLED);
    }
    let world = World::new();
    let w = world.directory();
    world.write(
        "network/interfaces",
        &format!(
            "auto lo\niface lo inet loopback\n\niface mta0 inet static\n    address 10.9.0.1/24\n    up echo up >>{w}/calls\n    down echo down >>{w}/calls\n"
        ),
    );
    world.ok("cd network; mkdir if-up.d if-down.d if-pre-up.d if-post-down.d; mount --bind . /etc/network");
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    for round in 1..3 {
        world.boot(&conf);
        assert!(world.ok("ip -o -4 addr show mta0").contains("10.9.0.1/24"));
        world.inside("mta", "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; ping -c 1 -W 20 10.9.0.1 >/dev/null");
        world.ok("overlay-stop mta");
        assert_eq!(world.read("calls"), "up\ndown\n".repeat(round));
        assert!(!world.read("/run/network/ifstate").contains("mta0"));
        world.ok("rm -rf /run/network");
        world.assert_same(&before);
    }
}
