//! A caller that ignores SIGCHLD: the kernel then reaps the children of its descendants, and a
//! process that waits for a child never gets its status, `sigaction(2)`.
//!
//! The tests call the tools and not the commands: dash, a common /bin/sh, resets the signal.

use end_to_end::{World, is_root_or_tell, until};

/// Runs `line` for a caller that ignores SIGCHLD.
fn ignored(world: &World, line: &str) -> String {
    let run = "timeout -k 1 60 env --ignore-signal=CHLD bash -c \"$LINE\"";
    world.line(run).env("LINE", line).run().ok()
}

/// Boots `conf` as overlay-boot does.
fn boot(world: &World, conf: &str) {
    let pipeline = format!("ob-conf {conf} '|' ob-mount '|' ob-cable '|' ob-unshare");
    let line = format!("ob-room --guard --cleanup 'ob-cable --undo' {pipeline} >/dev/null");
    ignored(world, &line);
}

#[test]
fn r09_ignored_sigchld_boots_enters_and_stops() {
    if !is_root_or_tell("PROTECT=strict") {
        return;
    }
    let world = World::new();
    for level in ["no", "yes", "strict"] {
        let conf = world.subhost(level, &format!("PROTECT={level}\nCABLES=="));
        world.ok(&format!("chmod 700 {level}")); // strict refuses an UPPER that ordinary users can reach
        let before = world.snapshot();
        boot(&world, &conf);
        let status = ignored(&world, &format!("ob-enter {level} sh -c 'exit 7'; echo $?"));
        assert_eq!(status, "7", "PROTECT={level}");
        ignored(
            &world,
            &format!(
                "ob-list --documents {level} | ob-room --undo --cleanup 'ob-cable --undo' >/dev/null"
            ),
        );
        world.assert_same(&before);
    }
}

#[test]
fn r09_ignored_sigchld_guard_cleans_up() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    boot(&world, &conf);
    let pid = &world.document("mta")["pid"];
    world.ok(&format!("kill -KILL {pid}"));
    until("the guard has removed the state", || {
        !world.has("/run/overlay-boot/mta")
    });
    world.assert_same(&before);
}

#[test]
fn r09_ignored_sigchld_commands_and_hooks_run() {
    let world = World::new();
    world.script("mta/hook", "exit 3");
    let more = "NAME=!echo mta\nPREMOUNT=./hook\nINIT=echo exec sleep 1000\nLOG=mta.log";
    let conf = world.subhost("mta", more);
    boot(&world, &conf);
    let log = world.read("mta.log");
    assert!(log.contains("exit status: 3"), "{log}");
}
