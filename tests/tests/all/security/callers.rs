//! Attacks from the surroundings: an ordinary user with a sudo(8) rule, directories and files that
//! a user owns, a full or unusual filesystem, an environment that the caller chose.

use end_to_end::{Done, NOT_INSTALLED, World, is_root_or_tell, not_done, scripts, until};

/// Reads a log. It does not exist for a moment when it is moved.
fn log(world: &World, path: &str) -> String {
    world.run(&format!("cat {path}")).out
}

/// A line that an ordinary user of the host runs.
fn as_user(line: &str) -> String {
    format!("setpriv --reuid 65534 --regid 65534 --clear-groups {line}")
}

/// A world in which the subhost `mta` can boot.
fn world(more: &str) -> (World, String) {
    let world = World::new();
    let conf = world.subhost("mta", more);
    world.ok("chmod 700 mta");
    (world, conf)
}

/// A world with the rules of sudo(8) that an administrator might give an ordinary user: each for
/// one command with its arguments, the variables that our tools read kept, but REAPER, by which a
/// caller chooses what pid 1 becomes. None if this is not root's, or there is no sudo.
fn with_rules(more: &str) -> Option<(World, String)> {
    if !is_root_or_tell("rules of sudo") {
        return None;
    }
    let (world, conf) = world(more);
    if world.run("command -v sudo visudo").status != 0 {
        not_done("rules of sudo", NOT_INSTALLED);
        return None;
    }
    let scripts = scripts().display();
    let bin = end_to_end::bin().display();
    let rules = format!(
        "Defaults secure_path=\"{scripts}:{bin}:/usr/sbin:/usr/bin:/sbin:/bin\", !use_pty, !syslog\n\
         Defaults env_keep += \"TERM LANG LC_ALL COLUMNS TRACE OB_ROOM OB_COMMAND NOTIFY_SOCKET\"\n\
         Defaults env_keep += \"NAME LOG CONFIG ACTION UPPER START INIT IFS CDPATH TMPDIR\"\n\
         root ALL=(ALL:ALL) ALL\n\
         #65534 ALL=(root) NOPASSWD: {scripts}/overlay-list \"\", {scripts}/overlay-boot {conf}, \
         {scripts}/overlay-stop mta, {scripts}/overlay-go mta id, {scripts}/overlay-log mta\n"
    );
    world.write("sudoers", &rules);
    world.ok("chmod 440 sudoers && mount --bind sudoers /etc/sudoers && visudo -c >&2");
    Some((world, conf))
}

/// Runs one of our commands as the user, with sudo(8).
fn sudo(world: &World, command: &str) -> Done {
    let (name, arguments) = command.split_once(' ').unwrap_or((command, ""));
    world.run(&as_user(&format!(
        "sudo -n {}/{name} {arguments}",
        scripts().display()
    )))
}

#[test]
fn c01_rule_of_sudo_permits_its_command_and_no_other() {
    let Some((world, conf)) = with_rules("") else {
        return;
    };
    sudo(&world, &format!("overlay-boot {conf}")).ok();
    let done = sudo(&world, "overlay-go mta id");
    assert!(done.clone().ok().starts_with("uid=0(root)"), "{done:#?}");
    assert!(sudo(&world, "overlay-list").ok().contains("mta"));
    for refused in [
        "overlay-go mta sh",
        "overlay-stop --all",
        "overlay-log /etc/shadow",
        "overlay-list -l",
    ] {
        assert_eq!(sudo(&world, refused).status, 1, "{refused}");
    }
    // The command itself becomes root by the same rules: an argument more is another command.
    let plain = |line: &str| world.run(&as_user(&format!("sh -c '{line} </dev/null'")));
    assert_eq!(plain("overlay-go mta id").status, 0);
    assert_eq!(plain("overlay-go mta -- id").status, 1);
    sudo(&world, "overlay-stop mta").ok();
}

/// What the user's environment, limits, descriptors and directory can change in a command that
/// sudo(8) runs: nothing.
#[test]
fn c02_callers_environment_changes_nothing_under_sudo() {
    let Some((world, conf)) = with_rules("") else {
        return;
    };
    world.write("evil.conf", "NAME=evil\nLOG=/run/fell\n");
    world.script("evil", ": >$W/fell");
    let before = world.snapshot();
    for variable in [
        "TERM=../../../etc/passwd",
        "TERM=$(printf 'x\\033]0;evil\\007')",
        "LANG=../../../etc",
        "LC_ALL=xx",
        "COLUMNS=-1",
        "COLUMNS=99999999999999999999",
        "COLUMNS=0",
        "TRACE=$(printf '1\\n2')",
        "OB_ROOM=0:1",
        "OB_ROOM=3:4",
        "OB_ROOM=x",
        "OB_COMMAND=evil",
        "REAPER=/bin/true",
        "NOTIFY_SOCKET=",
        "NAME=evil",
        "LOG=/run/fell",
        "CONFIG=$W/evil.conf",
        "ACTION=dry-run",
        "UPPER=/etc",
        "START=$W/evil",
        "INIT=$W/evil",
        "IFS=a",
        "CDPATH=/etc",
        "TMPDIR=/nowhere",
    ] {
        let sudo = |command: &str| {
            let (name, arguments) = command.split_once(' ').unwrap_or((command, ""));
            let command = format!("sudo -n {}/{name} {arguments}", scripts().display());
            world.run(&as_user(&format!("env \"{variable}\" {command}")))
        };
        sudo(&format!("overlay-boot {conf}")).ok();
        let document = world.document("mta");
        assert_eq!(document["LOG"], "/tmp/overlay-mta.log", "{variable}");
        assert_eq!(world.ok("ls /run/overlay-boot"), "mta", "{variable}");
        let list = sudo("overlay-list").ok();
        assert!(list.contains("running"), "{variable}: {list}");
        let done = sudo("overlay-go mta id");
        assert!(
            done.clone().ok().starts_with("uid=0(root)"),
            "{variable}: {done:#?}"
        );
        sudo("overlay-stop mta").ok();
        world.assert_same(&before);
    }
    assert!(!world.has("fell"));
}

/// A user cannot look into what sudo(8) runs, and a core of it is not theirs.
#[test]
fn c03_process_run_by_sudo_is_not_looked_into() {
    let Some((world, conf)) = with_rules("") else {
        return;
    };
    sudo(&world, &format!("overlay-boot {conf}")).ok();
    let processes = "for p in $(pgrep -x 'ob-unshare|overlay-boot|ob-reaper'); do";
    assert!(
        world
            .ok(&format!("{processes} echo $p; done"))
            .lines()
            .count()
            >= 2
    );
    let look = format!(
        "{processes} for f in environ maps mem fd/1 cwd/x exe root/etc; do cat /proc/$p/$f && echo $f; ls /proc/$p/$f/ && echo $f; done; done"
    );
    assert_eq!(
        world
            .run(&as_user(&format!("sh -c \"{look}\" 2>/dev/null")))
            .out,
        ""
    );
    world.ok("mkdir -m 777 theirs");
    let quit = "cd theirs; ulimit -c unlimited; sudo -n $0/overlay-go mta id; for p in $(pgrep ob-); do kill -QUIT $p; done";
    let line = format!(
        "sh -c '{}'",
        quit.replace("$0", &scripts().display().to_string())
    );
    world.run(&as_user(&line));
    assert_eq!(world.ok("find theirs -type f -user 65534"), "");
    sudo(&world, "overlay-stop mta").ok();
}

/// The user stops, hangs up or interrupts what sudo(8) runs in their terminal: the administrator
/// can stop the subhost all the same.
#[test]
fn c04_stopped_command_of_a_user_blocks_no_stop() {
    let (world, conf) = world("");
    for (command, signal) in [
        ("overlay-boot CONF", "STOP"),
        ("overlay-boot CONF", "HUP"),
        ("overlay-stop mta", "STOP"),
        ("overlay-stop mta", "HUP"),
        ("ob-enter mta sleep 1000 | cat", "TSTP"),
        ("ob-enter mta sleep 1000 | cat", "HUP"),
        ("overlay-list", "STOP"),
    ] {
        for delay in ["0.005", "0.015", "0.03"] {
            if !command.starts_with("overlay-boot") {
                world.ok(&format!("overlay-boot {conf}"));
            }
            let command = command.replace("CONF", &conf);
            world.ok(&format!(
                "setsid sh -c 'echo $$ >group; {command}' >/dev/null 2>&1 & \
                 sleep {delay}; kill -{signal} -- -$(cat group) || :"
            ));
            until("its end", || {
                world.run("timeout 60 overlay-stop mta");
                !world.has("/run/overlay-boot/mta")
            });
            world.run("kill -KILL -- -$(cat group)");
        }
    }
}

#[test]
fn c05_notified_socket_or_descriptor_keeps_no_boot_waiting() {
    let (world, conf) = world("");
    world.ok("mkfifo fifo; echo kept >file");
    let sockets = "import socket\n\
        for name, kind in ('stale', socket.SOCK_DGRAM), ('stream', socket.SOCK_STREAM): socket.socket(socket.AF_UNIX, kind).bind(name)\n";
    world.write("sockets.py", sockets);
    world.ok("python3 sockets.py");
    let before = world.snapshot();
    let long = "x".repeat(200);
    for address in [
        "relative",
        "@",
        "@nobody",
        "$W/fifo",
        "$W/file",
        "$W/stale",
        "$W/stream",
        "/dev/null",
        "/",
        ".",
        &format!("/{long}"),
        &format!("@{long}"),
        "$(printf '/a\\nb')",
        "$(printf '\\377')",
        "/proc/self/mem",
    ] {
        let done = world.run(&format!("NOTIFY_SOCKET=\"{address}\" overlay-boot {conf}"));
        done.fails(1, &["notify "]);
        world.assert_same(&before);
    }
    for descriptor in ["5</dev/null", "5</etc", "5>/dev/full", "5<file"] {
        let done = world.run(&format!("overlay-boot --notify-fd 5 {conf} {descriptor}"));
        done.fails(1, &["notify descriptor 5"]);
        world.assert_same(&before);
    }
    for number in ["-1", "3", "99"] {
        let done = world.run(&format!("overlay-boot --notify-fd {number} {conf}"));
        done.fails(1, &["notify descriptor"]);
        world.assert_same(&before);
    }
    // One that is there and takes nothing.
    let full = format!(
        "import os, socket, subprocess\n\
         def fill(write):\n\
         \x20   try:\n\
         \x20       while True: write(b'x' * 4096)\n\
         \x20   except BlockingIOError: pass\n\
         server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); server.bind('full')\n\
         client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); client.setblocking(False); client.connect('full')\n\
         fill(client.send)\n\
         read, write = os.pipe(); os.set_blocking(write, False); fill(lambda text: os.write(write, text)); os.set_blocking(write, True)\n\
         boot = lambda *words, **more: print(subprocess.run(['overlay-boot', *words, '{conf}'], timeout=60, **more).returncode)\n\
         boot(env=dict(os.environ, NOTIFY_SOCKET=os.path.abspath('full')))\n\
         boot('--notify-fd', str(write), pass_fds=[write])\n"
    );
    world.write("full.py", &full);
    let done = world.run("python3 full.py");
    assert_eq!(done.out, "1\n1\n", "{done:#?}");
    world.assert_same(&before);
    assert_eq!(world.read("file"), "kept\n");
}

#[test]
fn c06_new_subhost_is_created_in_no_other_directory() {
    if !is_root_or_tell("another user") {
        return;
    }
    let world = World::new();
    world.ok("mkdir busybox/etc/ssh; echo 0123456789abcdef0123456789abcdef >busybox/etc/machine-id; echo key >busybox/etc/ssh/ssh_host_x_key");
    world.ok("mkdir -m 700 victim own; echo kept >victim/file");
    let victim = "find victim -printf '%p %y %m %s\\n' | sort";
    world.script("own/ssh-keygen", "mkdir -p root/etc/ssh");
    let before = world.ok(victim);
    let mut swapped = 0;
    // As soon as the directory exists, the user who owns its parent replaces it by a link or a
    // directory.
    for (number, command) in [
        "cat",
        "sed",
        "ob-conf",
        "tr",
        "chmod",
        "mknod",
        "rm",
        "rmdir",
        "mkdir root work live",
    ]
    .iter()
    .enumerate()
    {
        for plant in ["ln -s $W/victim mta", "mkdir mta", "ln -s nowhere mta"] {
            let word = command.split(' ').next().unwrap_or_default();
            world.script(format!("own/{word}"), &format!(
                "case $* in '{}'*) (cd $W/home && [ -e mta ] && [ ! -e mine ] && mv mta mine && {}) ;; esac; exec $(PATH=${{PATH#*:}} command -v {word}) \"$@\"",
                command.strip_prefix(word).unwrap_or_default().trim(),
                as_user(&format!("sh -c '{plant}'"))
            ));
            world.ok("rm -rf home; mkdir home; chown 65534:65534 home");
            world.run("cd home; PATH=$W/own:$PATH overlay-new --lower ../busybox mta");
            world.ok(&format!("rm own/{word}"));
            assert_eq!(world.ok(victim), before, "{number} {command}: {plant}");
            if world.has("home/mine") {
                swapped += 1;
                let made = "find home/mta ! -type l -user 0 2>/dev/null || :";
                assert_eq!(world.ok(made), "", "{command}: {plant}");
            }
        }
    }
    assert!(swapped >= 12, "{swapped}");
    // What TMPDIR, CDPATH and a sticky directory of all have to do with it: nothing.
    world.ok("mkdir -p other/busybox");
    let said =
        world.ok("cd /tmp; TMPDIR=$W/nowhere CDPATH=$W/other overlay-new --lower $W/busybox mta");
    assert!(said.ends_with("overlay-boot mta/mta.conf"), "{said}");
    assert_eq!(world.ok("stat -c '%a %u' /tmp/mta"), "700 0");
    let lower =
        world.ok("CDPATH=$W/other overlay-new --lower busybox mtb; grep ^LOWER mtb/mtb.conf");
    assert!(
        lower.ends_with(&format!("LOWER={}/busybox", world.directory())),
        "{lower}"
    );
    // A directory with a line of a configuration in its name.
    world.ok("mkdir \"$(printf 'a\\nPREMOUNT=x')\"");
    let done = world.run("overlay-new --lower \"$(printf 'a\\nPREMOUNT=x')\" mtc");
    done.fails(1, &["a newline"]);
    let done = world.run("overlay-new --lower busybox \"$(printf 'mtd\\nPREMOUNT=x')\"");
    done.fails(1, &["a newline"]);
}

#[test]
fn c07_image_that_is_no_image_is_refused() {
    let (world, conf) = world("");
    world.ok("cd mta; mkdir mnt; echo text >text; mkfifo fifo; truncate -s 4M empty disk mbr; echo 'start=2048,size=100' | sfdisk -q disk");
    world.write("mbr.py", "import struct\nwith open('mta/mbr', 'r+b') as disk:\n  disk.seek(446)\n  disk.write(struct.pack('<BBBBBBBBII', 0, 0, 0, 0, 0x83, 0, 0, 0, 0xffffffff, 0xffffffff))\n  disk.seek(510)\n  disk.write(b'\\x55\\xaa')\n");
    world.ok("python3 mbr.py; echo text >mta/--all; echo text >mta/-V");
    let before = world.snapshot();
    for words in [
        "text",
        "text 1",
        "fifo",
        "fifo 1",
        "missing",
        "missing 1",
        "/dev/zero",
        "/dev/zero 1",
        "/etc",
        "empty",
        "empty 1",
        "disk 1",
        "disk 2",
        "disk -1",
        "disk 1:2",
        "disk 1,1",
        "disk $(touch$IFS/fell)",
        "disk a[$(touch$IFS/fell)]",
        "mbr 1",
        "--all",
        "-V",
        "-V 1",
        "-o",
    ] {
        world.write(
            "mta/mta.conf",
            &format!(
                "LOWER=!overlay-diskfile mnt/ {words}\nBASE={}/mta\nSTART=none\n",
                world.directory()
            ),
        );
        let done = world.run(&format!("timeout 60 overlay-boot {conf}"));
        assert_eq!(done.status, 1, "{words}: {done:#?}");
        world.assert_same(&before);
    }
    assert_eq!(
        world.ok("losetup --list --noheadings --output BACK-FILE | grep -c ^$W || :"),
        "0"
    );
}

/// Without MKNOD, root inside cannot create a node. A node of an image, or of another level, must
/// not open.
#[test]
fn c08_node_in_the_root_does_not_open() {
    if !is_root_or_tell("device nodes") {
        return;
    }
    for (level, opens) in [("no", "1"), ("yes", "0"), ("strict", "0")] {
        let (world, conf) = world(&format!("PROTECT={level}"));
        world.ok(
            "mount -t tmpfs -o dev tmpfs mta && mkdir mta/root mta/work mta/live && chmod 700 mta",
        );
        world.write(
            "mta/mta.conf",
            &format!("PROTECT={level}\nBASE=.\nLOWER=../busybox\nSTART=none\n"),
        );
        world.ok("mknod -m 666 mta/root/zero c 1 5");
        world.ok(&format!("overlay-boot {conf}"));
        let read = "ob-enter mta sh -c 'head -c 1 PATH | wc -c' 2>/dev/null";
        assert_eq!(world.ok(&read.replace("PATH", "/zero")), opens, "{level}");
        assert_eq!(world.ok(&read.replace("PATH", "/dev/zero")), "1", "{level}");
        world.ok("overlay-stop mta");
    }
}

/// overlay-boot must not take NAME and LOG from one state of the file and lock another.
#[test]
fn c09_configuration_replaced_while_read_has_one_name() {
    let (world, _) = world("");
    let w = world.directory();
    let rest = format!("BASE={w}/mta\nLOWER={w}/busybox\nSTART=none\n");
    world.write("second", &format!("NAME=evil\nLOG={w}/evil.log\n{rest}"));
    world.write(
        "third",
        &format!("NAME=!{w}/swap\nLOG={w}/first.log\n{rest}"),
    );
    world.script("swap", "cp $W/second $W/mta/mta.conf; echo first");
    for _ in 0..2 {
        world.ok("cp third mta/mta.conf");
        let before = world.snapshot();
        let booted = world.run("overlay-boot mta/mta.conf");
        if booted.status == 0 {
            let name = world.ok("ls /run/overlay-boot");
            let document = world.document(&name);
            let log = document["LOG"].as_str().unwrap_or_default().to_owned();
            assert_eq!(document["NAME"], name.as_str());
            assert_eq!(log, format!("{w}/{name}.log"), "the log of another name");
            world.ok(&format!("overlay-stop {name}"));
        }
        world.assert_same(&before);
    }
}

#[test]
fn c10_full_ledger_refuses_a_boot_and_loses_nothing() {
    if !is_root_or_tell("user namespaces") {
        return;
    }
    let (world, conf) = world("PROTECT=strict");
    world
        .ok("mkdir /var/lib/subhosts; mount -t tmpfs -o size=16k,mode=700 tmpfs /var/lib/subhosts");
    let before = world.snapshot();
    let fill = "dd if=/dev/zero of=/var/lib/subhosts/fill bs=4k 2>/dev/null || :";
    world.ok(fill);
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["No space left"]);
    world.assert_same(&before);
    world.ok("rm /var/lib/subhosts/fill");
    world.ok(&format!("overlay-boot {conf} && overlay-stop mta"));
    let ledger = world.ok("cat /var/lib/subhosts/userns");
    assert!(ledger.contains("mta"), "{ledger}");
    world.ok(fill);
    world.ok("mkdir -m 700 mtb; mkdir mtb/root mtb/work mtb/live; sed s/mta/mtb/ mta/mta.conf >mtb/mtb.conf");
    world
        .run("overlay-boot mtb/mtb.conf")
        .fails(1, &["No space left"]);
    assert_eq!(world.ok("cat /var/lib/subhosts/userns"), ledger);
    world.ok(&format!("overlay-boot {conf} && overlay-stop mta"));
    world.assert_same(&before);
}

/// What stands in the place of the name of a network namespace is neither followed nor written to.
#[test]
fn c11_name_of_a_network_namespace_is_not_followed() {
    let (world, conf) = world("CABLES==");
    world.ok("echo kept >victim; mkdir -p /run/netns");
    let mine = world.ok("readlink /proc/self/ns/net");
    for plant in [
        "ln -s $W/victim",
        "ln -s /proc/1/ns/net",
        "ln -s nowhere",
        "ln -s /",
        "mkdir",
        "mkfifo",
        "ln victim",
    ] {
        world.run(&format!("{plant} /run/netns/mta"));
        let booted = world.run(&format!("overlay-boot {conf}"));
        if booted.status == 0 {
            assert_ne!(
                world.ok("overlay-go mta readlink /proc/self/ns/net"),
                mine,
                "{plant}"
            );
            world.ok("overlay-stop mta");
        }
        assert_eq!(world.read("victim"), "kept\n", "{plant}");
        world.run("rm -rf /run/netns/mta; overlay-stop mta");
        assert!(!world.has("/run/overlay-boot/mta"), "{plant}");
    }
}

/// A user plants what the log is moved to when it is full.
#[test]
fn c12_full_log_is_moved_over_nothing_of_another() {
    if !is_root_or_tell("another user") {
        return;
    }
    let (world, conf) = world("LOG_MAX=4K\nINIT=./init");
    world.script(
        "mta/init",
        "echo 'until [ -e /go ]; do sleep .05; done; seq 3000; exec sleep 1000'",
    );
    world.ok("mkdir -m 700 victims; echo kept >victims/file; echo kept >/tmp/victim; chmod 600 /tmp/victim");
    let state =
        "find victims /tmp/victim -printf '%p %y %m %u %s\\n'; cat victims/file /tmp/victim";
    let before = world.ok(state);
    for plant in [
        as_user("ln -s $W/victims/file /tmp/overlay-mta.log.1"),
        as_user("ln -s $W/victims /tmp/overlay-mta.log.1"),
        as_user("mkdir /tmp/overlay-mta.log.1"),
        as_user("mkdir -p /tmp/overlay-mta.log.1/full"),
        as_user("mkfifo -m 666 /tmp/overlay-mta.log.1"),
        as_user("touch /tmp/overlay-mta.log.1"),
        "ln /tmp/victim /tmp/overlay-mta.log.1".to_owned(),
    ] {
        world.ok(&plant);
        world.ok(&format!("overlay-boot {conf} && overlay-go mta touch /go"));
        until("the log to be full", || {
            log(&world, "/tmp/overlay-mta.log").contains(" 3000\n")
        });
        assert!(log(&world, "/tmp/overlay-mta.log").len() <= 4096, "{plant}");
        assert_eq!(
            world.ok("stat -c '%F %a %u %h' /tmp/overlay-mta.log"),
            "regular file 640 0 1",
            "{plant}"
        );
        let all = world.ok("timeout 60 overlay-log -a mta");
        assert!(!all.contains("kept"), "{plant}");
        world.ok("overlay-stop mta");
        assert_eq!(world.ok(state), before, "{plant}");
        world.ok("rm -rf /tmp/overlay-mta.log* mta/root/go");
    }
}

/// A log that was moved away, by logrotate(8) without `create`, keeps what it has, and a new one
/// begins in its place.
#[test]
fn r15_moved_log_is_kept_and_begins_anew() {
    let (world, conf) = world("LOG_MAX=4K\nLOG=$W/log/mta\nINIT=./init");
    let text = world.read("mta/mta.conf").replace("$W", world.directory());
    world.write("mta/mta.conf", &text);
    world.script(
        "mta/init",
        "echo 'for n in 1 2; do until [ -e /go$n ]; do sleep .05; done; seq $((n * 1000)); echo end $n; done; exec sleep 1000'",
    );
    world.ok(&format!(
        "mkdir log; overlay-boot {conf}; mv log/mta log/moved; ob-enter mta touch /go1"
    ));
    until("a new log", || log(&world, "log/mta").contains("end 1\n"));
    let moved = world.read("log/moved");
    assert!(
        moved.contains("pid 1 has started") && moved.contains(" 1\n"),
        "{moved}"
    );
    // Once more, and another begins while the subhost runs.
    world.ok("mv log/mta log/moved2; : >log/mta; ob-enter mta touch /go2");
    until("the end", || log(&world, "log/mta").contains("end 2\n"));
    assert!(world.read("log/moved2").contains("end 1\n"));
    world.ok("overlay-stop mta");
}

#[test]
fn c13_state_directory_of_another_is_refused() {
    if !is_root_or_tell("another user") {
        return;
    }
    let (world, conf) = world("");
    for plant in [
        "mkdir -m 777 /run/overlay-boot",
        "mkdir -m 755 /run/overlay-boot; chown 65534 /run/overlay-boot",
        "mkdir -m 775 /run/overlay-boot",
        "mkdir -p theirs; ln -s $W/theirs /run/overlay-boot",
        "echo file >/run/overlay-boot",
    ] {
        world.ok(plant);
        let done = world.run(&format!("overlay-boot {conf}"));
        done.fails(1, &["mta", "/run/overlay-boot"]);
        assert_eq!(
            world.ok("ls -A theirs /run/overlay-boot/ 2>/dev/null | grep -v : || :"),
            "",
            "{plant}"
        );
        world.ok("rm -rf /run/overlay-boot");
    }
}

/// Names and files whose names are code for a shell. The tests of bash are elsewhere.
#[test]
fn c14_zsh_and_fish_evaluate_no_name() {
    let (world, conf) = world("");
    for name in ["_overlay", "overlay.fish"] {
        let text = scripts().join("../etc/completions").join(name);
        let Ok(text) = std::fs::read_to_string(text) else {
            return not_done("completion", end_to_end::NO_SOURCE);
        };
        world.write(name, &text);
    }
    world.write("zsh-test", ZSH);
    world.write(
        "mta/mta.conf",
        "NAME=$(touch${IFS}fell)\nLOG=/tmp/log\nBASE=.\nLOWER=../busybox\nSTART=none\n",
    );
    world.ok(&format!("cd mta && overlay-boot {conf}"));
    world.ok("touch '$(touch fell).conf' '`touch fell`.conf' ';touch fell;.conf' \"'\\$(touch fell).conf\" '-x$(touch fell).conf'; mkdir '$(touch fell)d'");
    for (shell, command) in [
        ("zsh", "TERM=dumb zsh -f zsh-test \"$LINE\" \"$PWD\""),
        (
            "fish",
            "fish --no-config -c 'source overlay.fish; complete -C \"$LINE\"'",
        ),
    ] {
        if world.run(&format!("command -v {shell}")).status != 0 {
            not_done("completion", NOT_INSTALLED);
            continue;
        }
        let mut offered = String::new();
        for line in [
            "overlay-stop ",
            "overlay-go ",
            "overlay-boot ",
            "overlay-share x ",
            "overlay-log $",
            "overlay-list '",
            "overlay-boot `",
            "overlay-boot -",
        ] {
            offered += &world
                .line(command)
                .env("LINE", line)
                .env("TERM", "dumb")
                .run()
                .out;
        }
        assert!(offered.contains("touch"), "{shell}: {offered}");
        assert!(!world.has("fell"), "{shell}");
    }
    world.ok("overlay-stop --all");
}

/// Runs zsh on a terminal, types a line and TAB, and prints the screen.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; unset zle_bracketed_paste; fpath=($2 \$fpath); autoload -U compinit; compinit -u -D"
zpty -w shell "LISTMAX=1000; setopt nobeep nolistambiguous; finish() { zle -I; print END-OF-'LIST' }; zle -N finish; bindkey '^X' finish; print READ'Y'"
zpty -r shell out '*READY*'
zpty -w -n shell "$1"$'\t\x18'
zpty -r shell out '*END-OF-LIST*'
print -r -- "$out"
zpty -d shell
"#;

/// In a chroot, the root of a process is not the root of its mount namespace, which setns(2) gives.
#[test]
fn c15_subhost_of_a_chroot_has_another_root() {
    if !is_root_or_tell("a chroot") {
        return;
    }
    for level in ["no", "yes"] {
        let (world, conf) = world(&format!("PROTECT={level}"));
        world.ok("echo lower >busybox/marker; mkdir jail; mount --rbind / jail");
        let look = "cat /marker; cut -d ' ' -f 5 /proc/self/mountinfo | grep -e jail -e netns";
        for boot in [
            format!("overlay-boot {conf}"),
            format!("d=$(ob-conf {conf} | ob-mount | ob-cable | ob-unshare &)"),
        ] {
            world.script("boot", &boot);
            let done = world.run("chroot jail $W/boot");
            if level == "yes" {
                // The kernel creates no user namespace in a chroot, user_namespaces(7).
                let refused = "create a user namespace: Operation not permitted, as in a chroot";
                assert!(done.err.contains(refused), "{done:#?}");
                continue;
            }
            assert_eq!(done.status, 0, "{done:#?}");
            for go in ["overlay-go", "chroot jail overlay-go"] {
                let done = world.run(&format!("{go} mta sh -c \"{look}\""));
                assert_eq!(done.out.trim_end(), "lower", "{level}: {boot}: {done:#?}");
            }
            world.ok("chroot jail overlay-stop mta; [ ! -e /run/overlay-boot/mta ]");
        }
    }
    let world = World::new();
    world.ok("mkdir -p busybox/run && cp $(command -v ob-room) busybox/ && mount -t proc proc busybox/proc");
    world
        .run("chroot busybox /ob-room true")
        .fails(125, &["ob-room: / is not a mount point"]);
}
