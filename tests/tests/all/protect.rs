//! Protection and limits: the effect of each variable on pid 1 and on a command that enters.

use end_to_end::{NO_CGROUP, NO_CONTROLLER, World, is_root_or_tell, not_done, until};

/// Boots a subhost with these variables; `None` unless root runs the tests.
fn boot(variables: &str) -> Option<World> {
    if !is_root_or_tell("protection") {
        return None;
    }
    let world = World::new();
    let conf = world.subhost("a", &format!("CABLES==\n{variables}"));
    world.ok("chmod 700 a; mkdir -p lib && mount --bind lib /var/lib");
    world.boot(&conf);
    Some(world)
}

/// Returns the value of `key` in /proc/PID/status, which must be the same for pid 1 and for a
/// command that enters.
fn status(world: &World, key: &str) -> String {
    let field = |of: &str| {
        let status = go(world, &format!("cat /proc/{of}/status"));
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {key} in {status}"))
            .to_owned()
    };
    let (first, entered) = (field("1"), field("self"));
    assert_eq!(
        first, entered,
        "{key} of pid 1 and of a command that enters"
    );
    first
}

/// Returns whether the bounding set of the subhost has this capability.
fn may_have(world: &World, capability: u32) -> bool {
    let set = u64::from_str_radix(&status(world, "CapBnd"), 16).expect("a capability set");
    assert_eq!(u64::from_str_radix(&status(world, "CapEff"), 16), Ok(set));
    set & (1 << capability) != 0
}

const CHOWN: u32 = 0;
const KILL: u32 = 5;
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const MKNOD: u32 = 27;

/// Runs a line inside; returns its output.
#[track_caller]
fn go(world: &World, line: &str) -> String {
    let enter = world.line("overlay-go a -- sh -c \"$LINE\"");
    enter.env("LINE", line).run().ok()
}

/// Checks that a line fails inside, with `why` in its message.
#[track_caller]
fn refused(world: &World, line: &str, why: &str) {
    let done = world.run(&format!("overlay-go a -- sh -c '{line}'"));
    assert!(done.status != 0 && done.err.contains(why), "{done:#?}");
}

#[test]
fn defaults_restrict_nothing() {
    let Some(world) = boot("") else { return };
    assert_eq!(status(&world, "Seccomp"), "0");
    assert_eq!(status(&world, "NoNewPrivs"), "0");
    let all = world.ok("grep CapBnd /proc/self/status");
    assert_eq!(format!("CapBnd:\t{}", status(&world, "CapBnd")), all);
    go(
        &world,
        "mount -t tmpfs none /tmp && echo 1 >/proc/sys/net/ipv4/ip_forward",
    );
}

#[test]
fn protect_yes_closes_the_interfaces_of_the_host() {
    let Some(world) = boot("PROTECT=yes") else {
        return;
    };
    for (capability, expected) in [
        (CHOWN, true),
        (NET_ADMIN, false),
        (SYS_ADMIN, false),
        (MKNOD, false),
    ] {
        assert_eq!(
            may_have(&world, capability),
            expected,
            "capability {capability}"
        );
    }
    assert_eq!(status(&world, "Seccomp"), "2");
    assert_eq!(status(&world, "NoNewPrivs"), "0");
    for (line, why) in [
        ("mount -t tmpfs none /tmp", "denied"),
        ("mount -o remount,rw /proc/sys", "denied"),
        ("umount /proc/sys", "permitted"),
        ("mknod /tmp/disk b 8 0", "permitted"),
        ("unshare -U true", "permitted"),
        ("echo core >/proc/sys/kernel/core_pattern", "Read-only"),
        ("echo 1 >/proc/sys/vm/drop_caches", "Read-only"),
        ("cat /proc/sys/kernel/sysrq >/proc/sys/kernel/sysrq", ""),
        ("dmesg", "permitted"),
        ("echo x >/sys/kernel/uevent_helper", ""),
        ("date -s 2000-01-01; false", "permitted"),
        ("hostname other", "permitted"),
    ] {
        refused(&world, line, why);
    }
    for path in ["keys", "timer_list", "kpageflags", "vmallocinfo"] {
        assert_eq!(go(&world, &format!("cat /proc/{path} || :")), "");
    }
    assert_eq!(go(&world, "stat -c %t:%T /dev/console"), "1:3");
    // Ordinary administration still works.
    go(
        &world,
        "touch /x && chown 33:33 /x && chmod 4755 /x && chroot / true && ip link set lo up && ip addr add 10.9.8.7/24 dev lo && mkfifo /f",
    );
    world.ok("overlay-stop a");
}

#[test]
fn userns_keeps_capabilities_inside() {
    let Some(world) = boot("PROTECT=strict") else {
        return;
    };
    assert!(may_have(&world, SYS_ADMIN));
    assert_eq!(status(&world, "Seccomp"), "2");
    go(
        &world,
        "mount -t tmpfs none /tmp && chown 33:33 /root && ip link set lo up && echo 1 >/proc/sys/net/ipv4/ip_forward",
    );
    refused(&world, "echo core >/proc/sys/kernel/core_pattern", "");
    refused(&world, "mknod /root/disk b 8 0", "permitted");
    world.ok("overlay-stop a");
}

#[test]
fn single_variables_override_protect() {
    let Some(world) = boot(
        "PROTECT=yes\nCAPS=default sys_admin\nDROP_CAPS=CAP_KILL\nSECCOMP=none\nNO_NEW_PRIVS=yes",
    ) else {
        return;
    };
    assert!(may_have(&world, SYS_ADMIN) && may_have(&world, CHOWN));
    assert!(!may_have(&world, KILL) && !may_have(&world, NET_ADMIN));
    assert_eq!(status(&world, "Seccomp"), "0");
    assert_eq!(status(&world, "NoNewPrivs"), "1");
    go(&world, "mount -t tmpfs none /tmp");
    // Another user has an empty effective set, but the same bounding set.
    world.ok("echo ann:x:1000:1000::/:/bin/sh >>busybox/etc/passwd");
    let ann = world.ok("overlay-go a grep CapBnd /proc/self/status; ob-enter -u ann a grep -E 'Cap(Bnd|Eff)|NoNew' /proc/self/status");
    let lines: Vec<&str> = ann.lines().collect();
    assert_eq!(lines[1], "CapEff:\t0000000000000000");
    assert_eq!(lines[0], lines[2]);
    assert_eq!(lines[3], "NoNewPrivs:\t1");
}

#[test]
fn custom_seccomp_profile_is_loaded() {
    if !is_root_or_tell("SECCOMP") {
        return;
    }
    let world = World::new();
    let conf = world.subhost("a", "SECCOMP=calls.json");
    let profile = |rule: &str| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{rule}]}}"#
        )
    };
    world.write(
        "a/calls.json",
        &profile(
            r#"{"names":["mkdir","mkdirat","of_another_machine"],"action":"SCMP_ACT_ERRNO","errnoRet":28},
               {"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}"#,
        ),
    );
    world.boot(&conf);
    assert_eq!(status(&world, "Seccomp"), "2");
    refused(&world, "mkdir /new", "No space left");
    refused(&world, "kill -USR1 1", "permitted");
    go(&world, "touch /new; kill -0 1");
    // An entering command gets the filter of pid 1, even if the file has changed since.
    world.write("a/calls.json", "{}");
    refused(&world, "mkdir /new2", "No space left");
    world.ok("overlay-stop a");

    let before = world.snapshot();
    for (text, why) in [
        ("{}", "defaultAction"),
        ("nonsense", "not JSON"),
        (
            &profile(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#),
            "SCMP_ACT_NOTIFY",
        ),
    ] {
        world.write("a/calls.json", text);
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &[&format!("{conf}:1: SECCOMP="), why]);
        world.assert_same(&before);
    }
}

#[test]
fn default_seccomp_filter_refuses_user_namespaces() {
    let Some(world) = boot("SECCOMP=default\nDROP_CAPS=sys_admin") else {
        return;
    };
    // User and network namespaces, by clone(2) and unshare(2).
    refused(&world, "unshare -U true", "permitted");
    refused(&world, "unshare -n true", "permitted");
    assert_eq!(status(&world, "Seccomp"), "2");
    go(&world, "sh -c 'true | cat' && sleep 0 & wait");
}

#[test]
fn readonly_root_refuses_writes_and_volatile_forgets_them() {
    if !is_root_or_tell("READONLY") {
        return;
    }
    for userns in ["", "USERNS=auto\n"] {
        let world = World::new();
        world.ok("mkdir -p lib && mount --bind lib /var/lib; mkdir shared; echo s >shared/file");
        let conf = world.subhost(
            "a",
            &format!(
                "{userns}READONLY=yes\nSHARE_RO=../shared:/srv/shared\nSHARE=../shared:/srv/own"
            ),
        );
        world.ok("chmod 700 a");
        let before = world.snapshot();
        world.boot(&conf);
        refused(&world, "echo x >/etc/new", "Read-only");
        refused(&world, "rm /etc/passwd", "Read-only");
        go(&world, "echo x >/run/new && cat /srv/shared/file");
        refused(&world, "echo x >/srv/shared/new", "Read-only");
        world.ok("overlay-stop a; test ! -e a/root/etc/new");
        world.assert_same(&before);

        world.ok("sed -i s/READONLY=yes/READONLY=volatile/ a/a.conf; rm -rf a/root; mkdir a/root; echo kept >a/root/mine");
        world.boot(&conf);
        go(
            &world,
            "echo x >/etc/new; rm /etc/group /mine; mkdir /srv/shared/.. /deep; test -s /etc/network/interfaces",
        );
        go(
            &world,
            "test -e /etc/new && test ! -e /mine && chown 5:6 /deep",
        );
        world.ok("overlay-stop a");
        assert_eq!(
            world.ok("cd a/root; find . | sort; cat mine"),
            ".\n./mine\nkept"
        );
        world.boot(&conf);
        go(
            &world,
            "test ! -e /etc/new && test -e /mine && test -e /etc/group",
        );
        world.ok("overlay-stop a");
        world.assert_same(&before);
    }
}

#[test]
fn rlimits_hostname_environment_and_masks_apply() {
    let Some(world) = boot(
        "RLIMITS=nofile=300:400 core=0\nHOSTNAME=mail.example\nSETENV=GREETING=good day\nSETENV=HOME=/srv\nMASK=/etc/passwd /bin/../var /missing",
    ) else {
        return;
    };
    let limits = "ulimit -Sn; ulimit -Hn; ulimit -c; hostname; echo \"$GREETING, $HOME\"";
    assert_eq!(
        go(&world, limits),
        "300\n400\n0\nmail.example\ngood day, /srv"
    );
    assert_eq!(
        go(
            &world,
            "grep -E '^Max (open|core)' /proc/1/limits | tr -s ' '; tr '\\0' '\\n' </proc/1/environ | sort | grep -E '^(GREETING|HOME)'"
        ),
        "Max core file size 0 0 bytes \nMax open files 300 400 files \nGREETING=good day\nHOME=/srv"
    );
    assert_eq!(go(&world, "cat /etc/passwd; ls -A /var"), "");
    refused(&world, "echo x >/etc/passwd", "Read-only");
    refused(&world, "touch /var/x", "Read-only");
    assert_ne!(world.ok("hostname"), "mail.example");
    world.ok("overlay-stop a");
}

#[test]
fn invalid_protection_is_refused_without_side_effects() {
    let world = World::new();
    let before = world.snapshot();
    for (line, why) in [
        ("PROTECT=maybe", "none of no, yes, strict"),
        ("CAPS=CAP_SYS_ADMN", "did you mean SYS_ADMIN?"),
        ("RLIMITS=nofiles=3", "did you mean nofile?"),
        ("MEMORY_MAX=lots", "not a size"),
        ("CPU_MAX=50", "not a share"),
        ("SETENV=two words", "not of the form"),
        ("SECCOMP=missing.json", "No such file"),
    ] {
        let conf = world.subhost("a", line);
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &[&format!("{conf}:1: "), why]);
        let check = world.run(&format!("ob-conf --check {conf}"));
        assert!(check.status == 1 && check.out.contains(why), "{check:#?}");
        world.ok("rm -r a");
        world.assert_same(&before);
    }
}

#[test]
fn cgroup_limits_hold_and_are_logged() {
    if !is_root_or_tell("limits") {
        return;
    }
    let world = World::new();
    if !world.has_cgroup() {
        not_done("limits", NO_CGROUP);
        return;
    }
    let before = world.snapshot();
    let there = world.ok("cat /sys/fs/cgroup/cgroup.controllers");
    let has = |controller| there.split_whitespace().any(|word| word == controller);
    for (controller, line) in [
        ("pids", "PIDS_MAX=20"),
        ("memory", "MEMORY_MAX=32M\nSWAP_MAX=0"),
        ("cpu", "CPU_MAX=10%"),
    ] {
        let conf = world.subhost("a", line);
        if !has(controller) {
            let variable = line.split('=').next().unwrap_or_default();
            world.run(&format!("overlay-boot {conf}")).fails(
                1,
                &[
                    &format!("no {controller} controller"),
                    &format!("or remove {variable}"),
                ],
            );
            world.ok("rm -r a");
            world.assert_same(&before);
            not_done(variable, NO_CONTROLLER);
            continue;
        }
        world.boot(&conf);
        let (hog, message) = match controller {
            "pids" => (
                "for i in $(seq 40); do sleep 1000 >/dev/null 2>&1 & done",
                "PIDS_MAX=20 has refused",
            ),
            "memory" => ("x=$(tr '\\0' x </dev/zero)", "MEMORY_MAX=32M has killed"),
            _ => (
                "timeout 2 sh -c 'while :; do :; done'",
                "CPU_MAX=10% has made it wait",
            ),
        };
        let log = || world.ok("cat /tmp/overlay-a.log");
        let run = world
            .line("overlay-go a -- sh -c \"$LINE\"")
            .env("LINE", hog);
        let _ = run.run();
        if controller != "cpu" {
            until("the message in the log", || log().contains(message));
        }
        world.ok("overlay-stop a");
        assert!(log().contains(message), "{}", log());
        world.ok("rm -r a");
    }
}
