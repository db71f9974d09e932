//! Tests of ob-enter without a terminal: statuses, environment, descriptors, verified subhosts.

#[allow(dead_code)] // each test program uses its part of it
mod rig;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{Done, World, code, is_root, run, until};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn assert_refused(done: &Done, status: i32, why: &str) {
    assert_eq!((done.status, done.err.as_str()), (status, why), "{done:?}");
    assert_eq!(done.out, "");
}

#[test]
fn exit_status_is_that_of_the_command() {
    let world = World::new();
    assert_eq!(run(world.enter(&["mta", "true"])).status, 0);
    assert_eq!(
        run(world.enter(&["--", "mta", "sh", "-c", "exit 7"])).status,
        7
    );
    assert_eq!(
        run(world.enter(&["mta", "sh", "-c", "kill -9 $$"])).status,
        137
    );
    assert_eq!(
        run(world.enter(&["mta", "sh", "-c", "kill -TERM $$"])).status,
        143
    );
    let words = run(world.enter(&["mta", "echo", "-u", " a  b", "--help"]));
    assert_eq!(words.out, "-u  a  b --help", "options are the command's");
}

#[test]
fn failing_exec_reports_the_reason() {
    let world = World::new();
    let enter = |command| run(world.enter(&["mta", command]));
    assert_refused(&enter("foo"), 127, "ob-enter: mta: run foo: not found");
    assert_refused(
        &enter("/bin/foo"),
        127,
        "ob-enter: mta: run /bin/foo: not found",
    );
    for command in ["/etc/passwd", "/etc"] {
        let why = format!("ob-enter: mta: run {command}: cannot be run: Permission denied");
        assert_refused(&enter(command), 126, &why);
    }
    let why = "ob-enter: mta: run orphan: cannot be run: there is no interpreter for it";
    assert_refused(&enter("orphan"), 126, why);
}

#[test]
fn security_1_only_a_verified_subhost_is_entered() {
    let world = World::new();
    let enter = |name: &str| run(world.enter(&[name, "true"]));
    assert_refused(&enter("nobody"), 125, "ob-enter: nobody: not running");
    assert_eq!(enter("../overlay-boot/mta").status, 125);
    // As if the number of pid 1 were reused: the start time or the namespace differs.
    for (name, change) in [
        ("late", r#"s/"start":/"start":1/"#),
        ("other", r#"s/"pidns":/"pidns":1/"#),
        ("gone", r#"s/"pid":[0-9]*/"pid":4194304/"#),
    ] {
        let home = "/run/overlay-boot";
        let change = format!("s/mta/{name}/;{change}");
        world.sh(&format!(
            "mkdir {home}/{name}; sed '{change}' {home}/mta/subhost >{home}/{name}/subhost"
        ));
        assert_refused(&enter(name), 125, &format!("ob-enter: {name}: not running"));
    }
    let starting =
        world.sh("mkdir /run/overlay-boot/new; flock /run/overlay-boot/new/lock $E new true");
    assert_refused(&starting, 125, "ob-enter: new: is starting");
}

#[test]
fn command_joins_all_namespaces_of_the_subhost() {
    let world = World::new();
    let list = |process: &str| -> Vec<String> {
        let done = run(world.enter(&["mta", "ls", "-l", &format!("/proc/{process}/ns")]));
        let names = done.out.lines().filter(|line| !line.contains("_for_"));
        let names = names.filter_map(|line| line.split(" -> ").nth(1));
        names.map(str::to_owned).collect()
    };
    let ours = list("self");
    assert_eq!(ours.len(), 8, "{ours:?}");
    assert_eq!(ours, list("1"));
}

#[test]
fn security_12_environment_of_the_command_is_clean() {
    let world = World::new();
    let mut enter = world.enter(&["mta", "env"]);
    enter
        .env_clear()
        .env("PATH", "/host/bin:/usr/bin:/bin")
        .env("SECRET", "token");
    enter
        .env("TERM", "vt100")
        .env("LC_TIME", "C")
        .env("NAME", "x");
    let mut variables: Vec<String> = run(enter).out.lines().map(str::to_owned).collect();
    variables.sort();
    let expected = [
        "HOME=/root",
        "LC_TIME=C",
        "LOGNAME=root",
        "NAME=mta",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL=/bin/sh",
        "TERM=vt100",
        "USER=root",
        "container=overlay-boot",
    ];
    assert_eq!(variables, expected);
    let umask = world.sh("umask 077; $E mta sh -c 'umask; pwd'");
    assert_eq!(umask.out, "0022\n/");
}

#[test]
fn security_12_environment_of_ob_enter_is_clean() {
    let world = World::new();
    let line = "SECRET=token $E mta sleep 100 & p=$!
        until [ \"$(cat /proc/$p/comm)\" = ob-enter ] && [ \"$(cat /proc/$p/task/$p/children)\" ]; do sleep .01; done
        tr '\\0' '\\n' </proc/$p/environ; kill $p";
    let done = world.sh(line);
    assert!(!done.out.contains("SECRET"), "{done:?}");
}

#[test]
fn security_13_command_inherits_no_descriptor() {
    let world = World::new();
    let done = world.sh("exec 7</ 8</etc/passwd; $E mta sh -c 'ls /proc/$$/fd; :' | tr '\\n' ' '");
    assert_eq!(done.out, "0 1 2");
    // While the command runs, ob-enter has no directory and no file of the host open.
    let line = "cd /usr; exec 7</ 8</etc/passwd; $E mta sleep 100 </dev/null 2>&1 | cat & sleep .3
        p=$(pidof ob-enter); ls -l /proc/$p/fd /proc/$p/cwd /proc/$p/exe /proc/$p/root; kill $p";
    let done = world.sh(line);
    assert!(
        !done.out.contains("-> /usr") && !done.out.contains("-> /etc"),
        "{done:?}"
    );
}

#[test]
fn security_2_program_of_ob_enter_exposes_no_host_file() {
    let world = World::new();
    // The interpreter is the copy of ob-enter in memory, which finds no state directory inside. If
    // it is not static, it does not find its loader.
    let done = run(world.enter(&["mta", "itself"]));
    let (status, words) = if cfg!(target_feature = "crt-static") {
        (
            125,
            "ob-enter: /bin/itself: NAME=/bin/itself cannot be a name",
        )
    } else {
        (
            126,
            "ob-enter: mta: run itself: cannot be run: there is no interpreter",
        )
    };
    assert_eq!(done.status, status, "{done:?}");
    assert!(done.err.starts_with(words), "{done:?}");
    let line = "mkfifo /run/pipe; cat /run/pipe & $E mta sleep 100 >/run/pipe & p=$!
        until [ \"$(cat /proc/$p/comm)\" = ob-enter ] && [ \"$(cat /proc/$p/task/$p/children)\" ]; do sleep .01; done
        readlink /proc/$p/exe; kill $p";
    let done = world.sh(line);
    assert!(done.out.starts_with("/memfd:ob-enter"), "{done:?}");
}

#[test]
fn security_13_host_files_are_not_passed_to_the_command() {
    let world = World::new();
    let done = world.sh("$E mta sh -c 'for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done; echo error >&2' </etc/passwd >/run/out 2>&1; cat /run/out");
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines.len(), 4, "{done:?}");
    assert!(
        lines[..3].iter().all(|link| link.starts_with("pipe:")),
        "{done:?}"
    );
    assert_eq!(lines[1], lines[2], "one file, one order");
    let modes =
        world.sh("$E mta sh -c 'chmod 4777 /proc/self/fd/1' >/run/file; stat -c %a /run/file");
    assert_eq!(modes.out, "644");
    // /dev/null is replaced by the device of the subhost.
    let null = world.sh("$E mta sh -c 'readlink /proc/$$/fd/0; read line || echo end' </dev/null");
    assert_eq!(null.out, "/dev/null\nend");
}

#[test]
fn stdin_file_is_read_only_as_far_as_the_command_reads() {
    let world = World::new();
    let line =
        "seq 100000 >/run/in; { $E mta sh -c 'read a; read b; echo $a $b'; head -n 1; } </run/in";
    assert_eq!(world.sh(line).out, "1 2\n3");
    let all = world.sh("$E mta cat </run/in >/run/out; cmp /run/in /run/out && echo same");
    assert_eq!(all.out, "same", "{all:?}");
}

#[test]
fn unwritable_output_is_reported() {
    let world = World::new();
    let done = world.sh("$E mta seq 100000 >/dev/full");
    let why = "ob-enter: mta: write its output: No space left on device";
    assert_eq!((done.status, done.err.as_str()), (125, why));
    let done = world.sh("($E mta seq 100000; echo $? >&2) | head -n 1");
    assert_eq!((done.out.as_str(), done.err.as_str()), ("1", "141"));
}

#[test]
fn option_u_runs_as_a_user_of_the_subhost() {
    let world = World::new();
    let enter = |words: &[&str]| run(world.enter(words));
    let done = enter(&["-u", "bob", "mta", "id"]);
    assert_refused(&done, 125, "ob-enter: mta: there is no user bob in it");
    let done = enter(&[
        "--user",
        "ann",
        "mta",
        "sh",
        "-c",
        "id -u; id -g; id -G; echo $HOME $USER",
    ]);
    if is_root() {
        assert_eq!(done.out, "1000\n100\n100 4\n/tmp ann", "{done:?}");
    } else {
        // The user namespace of this world maps only root.
        assert_eq!((done.status, done.out.as_str()), (125, ""), "{done:?}");
    }
}

#[test]
fn signals_are_forwarded_to_the_command() {
    let world = World::new();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGUSR1,
    ] {
        let name = signal.as_str().trim_start_matches("SIG");
        let script =
            format!("trap 'echo {name}; exit 9' {name}; echo ready; while :; do sleep .05; done");
        let mut enter = world.enter(&["mta", "sh", "-c", &script]);
        let mut child = enter
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        // nsenter(1) waits for it with the same number of a group.
        let group = i32::try_from(child.id()).unwrap();
        let children = std::fs::read_to_string(format!("/proc/{group}/task/{group}/children"));
        let ours: i32 = children.unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(ours), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), name);
        assert_eq!(code(child.wait().unwrap()), 9);
    }
}

#[test]
fn command_dies_with_ob_enter() {
    let world = World::new();
    let mut enter = world.enter(&["mta", "sleep", "54321"]);
    let mut child = enter.stdin(Stdio::null()).spawn().unwrap();
    let runs = || world.sh("pgrep -f '^sleep 54321' | wc -l").out == "1";
    until("the command to run", runs);
    world.sh("kill -9 $(pidof ob-enter)");
    assert_eq!(code(child.wait().unwrap()), 137);
    until("the command to end", || !runs());
}

#[test]
fn usage_errors_are_reported() {
    let world = World::new();
    assert_eq!(run(world.enter(&[])).status, 2);
    let done = run(world.enter(&["--no-tty", "mta"]));
    assert_eq!(
        done.err,
        "ob-enter: there is no option --no-tty; did you mean --no-pty?"
    );
    assert!(run(world.enter(&["--help"])).out.contains("Examples:"));
}
