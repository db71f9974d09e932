//! Regression tests of ob-enter. The number in a name is that of the report.

use end_to_end::{World, booted, is_root_or_tell, until};

/// Boots a subhost with the users root and ann, and the group adm.
fn world_with_users() -> World {
    let (world, _) = booted("");
    world.inside(
        "mta",
        "printf 'root:x:0:0::/root:/bin/sh\\nann:x:1000:100::/tmp:/bin/sh\\n' >/etc/passwd
        printf 'root:x:0:\\nadm:x:4:ann\\nusers:x:100:\\n' >/etc/group",
    );
    world
}

#[test]
fn c02_numeric_user_and_group_are_accepted() {
    if !is_root_or_tell("a user other than root") {
        return;
    }
    let world = world_with_users();
    let script = "echo $(id -u) $(id -g) $(id -G) $HOME $USER";
    for (user, expected) in [
        ("ann", "1000 100 100 4 /tmp ann"),
        ("1000", "1000 100 100 4 /tmp ann"),
        ("0", "0 0 0 /root root"),
        // An id that /etc/passwd does not list.
        ("1234", "1234 1234 1234 / 1234"),
        ("1234:5", "1234 5 5 / 1234"),
        // With a group, the user is in no other.
        ("1000:5", "1000 5 5 /tmp ann"),
        ("ann:adm", "1000 4 4 /tmp ann"),
        (
            "4294967294:4294967294",
            "4294967294 4294967294 4294967294 / 4294967294",
        ),
    ] {
        let found = world.ok(&format!("ob-enter -u {user} mta sh -c '{script}'"));
        assert_eq!(found, expected, "{user}");
    }
}

#[test]
fn c02_invalid_user_or_group_is_refused() {
    let world = world_with_users();
    // 4294967295 is -1, with which setresuid(2) and setresgid(2) change nothing.
    for user in [
        "4294967295",
        "4294967296",
        "+1000",
        "-1",
        "''",
        "1e3",
        "bob",
        ":5",
        "' 1000'",
    ] {
        let done = world.run(&format!("ob-enter --user={user} mta id"));
        assert!(done.err.contains("there is no user"), "{user} {done:#?}");
        assert_eq!((done.status, &*done.out), (125, ""), "{user} {done:#?}");
    }
    for user in ["1000:", "1000:4294967295", "ann:bob", "0:+5", "ann:4:4"] {
        let done = world.run(&format!("ob-enter --user={user} mta id"));
        assert!(done.err.contains("there is no group"), "{user} {done:#?}");
        assert_eq!((done.status, &*done.out), (125, ""), "{user} {done:#?}");
    }
}

#[test]
fn c02_passwd_entry_with_id_minus_1_is_refused() {
    let world = world_with_users();
    world.inside(
        "mta",
        "printf 'eve:x:4294967295:4294967295::/:/bin/sh\\nbob:x:5:4294967295::/:/bin/sh\\n' \
            >>/etc/passwd",
    );
    for user in ["eve", "bob"] {
        let done = world.run(&format!("ob-enter -u {user} mta id"));
        assert_eq!((done.status, &*done.out), (125, ""), "{user} {done:#?}");
    }
}

#[test]
fn a04_limits_of_the_caller_do_not_end_ob_enter() {
    let (world, _) = booted("");
    // Needs CAP_SYS_RESOURCE in the first user namespace.
    let raises = world.run("ulimit -f 100; ulimit -f unlimited").status == 0;
    let enter = "ob-enter mta head -c 3000000 /dev/zero";
    for limit in ["-S -f 0", "-S -f 100", "-f 3000", "-f 100"] {
        let done = world.run(&format!("ulimit {limit}; {enter} >file"));
        if raises || limit.starts_with("-S") {
            assert_eq!((done.status, &*done.err), (0, ""), "{limit} {done:#?}");
            assert_eq!(world.ok("stat -c %s file"), "3000000", "{limit}");
        } else {
            // The file is too large, or already the copy of ob-enter in memory.
            assert_eq!(done.status, 125, "{limit} {done:#?}");
            assert!(done.err.contains("File too large"), "{limit} {done:#?}");
        }
        if limit != "-f 100" || raises {
            let piped = format!("(ulimit {limit}; {enter}) | wc -c");
            assert_eq!(world.ok(&piped), "3000000", "{limit}");
        }
    }
}

#[test]
fn a04_command_has_the_limits_of_the_caller_or_of_rlimits() {
    let limits = |world: &World| {
        let line = "ulimit -S -f 3000; ulimit -H -f 4000; ulimit -S -t 50; ulimit -H -t 60; \
            ob-enter mta grep -E 'cpu time|Max file size' /proc/self/limits";
        let found = world.ok(line);
        let words = found.split_whitespace();
        let numbers = words.filter(|word| word.parse::<u64>().is_ok());
        numbers.collect::<Vec<_>>().join(" ")
    };
    let (world, _) = booted("");
    assert_eq!(limits(&world), "50 60 1536000 2048000");
    let (world, _) = booted("RLIMITS=fsize=65536 cpu=40");
    assert_eq!(limits(&world), "40 40 65536 65536");
}

#[test]
fn c01_other_user_can_reopen_standard_descriptors() {
    if !is_root_or_tell("a user other than root") {
        return;
    }
    for level in ["", "PROTECT=yes\nCABLES=", "PROTECT=strict\nCABLES="] {
        let world = World::new();
        let conf = world.subhost("mta", &format!("{level}\nINIT=cat init"));
        world.ok("chmod 700 mta; printf 'ann:x:1000:100::/tmp:/bin/sh\\n' >>busybox/etc/passwd");
        // A service that changes its user, and logs to /dev/stdout.
        world.write(
            "mta/init",
            "su ann -c 'echo service >/dev/stdout; echo wrong >/dev/stderr'; sleep 100000 & exec \"$REAPER\" \"$NAME\"",
        );
        world.boot(&conf);
        let script = "cat /dev/stdin >/dev/stdout; echo err >/dev/stderr";
        for enter in [
            format!("ob-enter -u ann mta sh -c '{script}'"),
            format!("ob-enter -u 1234:5678 mta sh -c '{script}'"),
            format!("ob-enter mta su ann -c '{script}'"),
        ] {
            let done = world.run(&format!("echo text | {enter} | cat"));
            let found = (done.status, &*done.out, &*done.err);
            assert_eq!(found, (0, "text\n", "err\n"), "{level} {enter}");
        }
        until("the output of the service", || {
            let log = world.read("/tmp/overlay-mta.log");
            log.contains("Z service\n") && log.contains("Z wrong\n")
        });
        // A user cannot read the output of another user.
        let done = world.run("ob-enter mta su ann -c 'timeout 0.2 head -c 1 /dev/stdout' | cat");
        assert_eq!(done.out, "", "{level}");
        assert!(done.err.contains("Permission denied"), "{level} {done:#?}");
    }
}

#[test]
fn c01_command_as_pid_1_can_change_its_user() {
    if !is_root_or_tell("a user other than root") {
        return;
    }
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok("printf 'ann:x:1000:100::/tmp:/bin/sh\\n' >>busybox/etc/passwd");
    let boot = format!(
        "ob-room sh -c 'ob-conf {conf} | ob-mount | ob-unshare -- su ann -c \"echo x >/dev/stdout; echo y >/dev/stderr\"'"
    );
    let done = world.run(&boot);
    assert_eq!((done.status, &*done.out, &*done.err), (0, "x\n", "y\n"));
}
