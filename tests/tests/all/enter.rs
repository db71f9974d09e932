//! overlay-go: runs a command or a shell in a running subhost.

use end_to_end::{NO_CGROUP, World, booted, not_done, until};

fn world() -> World {
    let (world, _) = booted("");
    world
}

#[test]
fn hazard_17_overlay_go_returns_the_status_of_the_command() {
    let world = world();
    world.ok("echo text >mta/root/plain");
    for (command, status) in [
        ("true", 0),
        ("sh -c 'exit 3'", 3),
        ("-- sh -c 'exit 4'", 4),
        ("/plain", 126),
        ("no-such-command", 127),
        ("/no/such/command", 127),
        ("sh -c 'kill -TERM $$'", 128 + 15),
        ("sh -c 'kill -KILL $$'", 128 + 9),
    ] {
        let done = world.run(&format!("overlay-go mta {command}"));
        assert_eq!(done.status, status, "{done:#?}");
        assert_eq!(
            done.err.lines().count(),
            usize::from(status == 126 || status == 127),
            "{done:#?}"
        );
    }
    // A shell needs no bash inside, and gets neither the environment nor the time namespace of the
    // caller.
    assert!(!world.has("busybox/bin/bash"));
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
fn arguments_reach_the_command_unchanged() {
    let world = world();
    let arguments = r#""a b" "" '$HOME' '*' "it's" -x -- "new
line""#;
    let expected = world.ok(&format!("printf '<%s>' {arguments}"));
    for separator in ["", "--"] {
        assert_eq!(
            world.ok(&format!(
                "overlay-go mta {separator} printf '<%s>' {arguments}"
            )),
            expected,
            "{separator}"
        );
    }
    // Options after the name belong to the command.
    assert_eq!(world.ok("overlay-go mta echo --help -h"), "--help -h");
}

#[test]
fn stdin_stdout_and_stderr_stay_separate() {
    let world = world();
    let done = world
        .line("overlay-go mta sh -c 'cat; echo error >&2'")
        .input("in\nput")
        .run();
    assert_eq!(
        (done.status, done.out.as_str(), done.err.as_str()),
        (0, "in\nput", "error\n")
    );
    let bytes = world.ok(
        "head -c 1000000 /dev/urandom >bytes; overlay-go mta cat <bytes | cmp - bytes && echo same",
    );
    assert_eq!(bytes, "same");
    // Without a command, overlay-go runs a shell, which reads standard input here.
    let done = world
        .line("overlay-go mta")
        .input("echo $((6 * 7)); exit 5\n")
        .run();
    assert_eq!((done.status, done.out.as_str()), (5, "42\n"));
    // SIGPIPE ends the command when its reader exits.
    assert_eq!(world.ok("overlay-go mta yes | head -n 1"), "y");
}

#[test]
fn overlay_go_of_unknown_subhost_exits_125() {
    let world = world();
    world.run("overlay-go nobody true").fails(125, &["nobody"]);
    world.run("overlay-go m..").fails(125, &["m.."]);
    world.ok("cd /; overlay-stop mta");
    world
        .run("overlay-go mta true")
        .fails(125, &["mta", "not running"]);
    assert_eq!(world.run("overlay-go --bogus").status, 2);
}

#[test]
fn overlay_go_joins_all_namespaces_with_clean_environment() {
    let world = world();
    let pid = &world.document("mta")["pid"];
    for namespace in ["mnt", "net", "pid", "ipc", "uts", "user", "time", "cgroup"] {
        let theirs = world.ok(&format!("readlink /proc/{pid}/ns/{namespace}"));
        assert_eq!(
            world.ok(&format!(
                "overlay-go mta readlink /proc/self/ns/{namespace}"
            )),
            theirs,
            "{namespace}"
        );
    }
    let environment = world
        .line("overlay-go mta env")
        .env("SECRET_TOKEN", "x")
        .run()
        .ok();
    assert!(
        !environment.contains("SECRET") && !environment.contains(world.directory()),
        "{environment}"
    );
    assert!(
        environment.contains("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        "{environment}"
    );
    assert!(
        environment.contains("container=overlay-boot"),
        "{environment}"
    );
    // The shell expands the wildcard before the loop, so its directory is closed by then.
    let files = "cd /proc/$$/fd; for f in [0-9]; do [ ! -h $f ] || echo $f; done";
    assert_eq!(
        world.ok(&format!("exec 7</etc; overlay-go mta sh -c '{files}'")),
        "0\n1\n2"
    );
    if world.has_cgroup() {
        let group = |of: &str| world.ok(&format!("grep ^0: {of} | cut -d/ -f2"));
        assert_eq!(group(&format!("/proc/{pid}/cgroup")), "mta");
        let sleeper = world.line("exec overlay-go mta sleep 1000").start();
        until("the process in the subhost", || {
            world
                .processes()
                .iter()
                .any(|process| process.starts_with("sleep: sleep 1000"))
        });
        assert_eq!(world.ok("for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" != sleep ] || grep ^0: $p/cgroup; done"), "0::/mta");
        drop(sleeper);
    }
}

#[test]
fn overlay_go_without_arguments_lists_subhosts() {
    let world = world();
    let conf = format!("{}/mta/mta.conf", world.directory());
    let other = world.subhost("other", "");
    world.boot(&other);
    assert_eq!(
        world.ok("overlay-go"),
        format!("Running subhosts:\n{conf}\n{other}")
    );
    world.ok("cd /; overlay-stop mta");
    assert_eq!(
        world.ok("overlay-go"),
        format!("Running subhosts:\n{other}")
    );
}

#[test]
fn control_group_takes_entering_commands_and_is_removed() {
    let world = World::new();
    if !world.has_cgroup() {
        return not_done("the control group of an entering command", NO_CGROUP);
    }
    let conf = world.subhost("mta", "");
    let before = world.snapshot();
    world.boot(&conf);
    let group = "/sys/fs/cgroup/mta/cgroup.procs";
    let count = || world.ok(&format!("cat {group}")).lines().count();
    until("the reaper and the placeholder", || count() == 2);
    let entered = world
        .line("exec overlay-go mta sh -c 'sleep 100000 & exec sleep 100000'")
        .start();
    until("the commands in the group", || count() == 4);
    // Nested groups are removed too.
    world.ok("mkdir /sys/fs/cgroup/mta/below /sys/fs/cgroup/mta/below/below");
    world.ok("overlay-stop mta");
    assert_ne!(entered.wait().status, 0);
    world.assert_same(&before);
    // A group that another process uses is refused, and the process survives.
    world.ok("mkdir /sys/fs/cgroup/mta; sleep 100000 >/dev/null 2>&1 </dev/null & echo $! >/run/other; echo $! >/sys/fs/cgroup/mta/cgroup.procs");
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["control group", "in use"]);
    world.ok("kill $(cat /run/other); rm /run/other; until rmdir /sys/fs/cgroup/mta; do sleep 0.01; done 2>/dev/null");
    world.until_same(&before);
}
