//! Configurations and words of the command line that try to run a command, to hide a protection or
//! to write to a terminal.

use end_to_end::{Done, World, is_root_or_tell, not_done, until};

/// What a line prints on a terminal.
fn on_terminal(world: &World, line: &str) -> String {
    let script = "script -qec \"$LINE\" /dev/null </dev/null | tr -d '\\r'";
    let done = world.line(script).env("LINE", line).env("TERM", "xterm");
    done.run().ok()
}

/// A way down that is deeper than the limit of open files and than `PATH_MAX`.
const DEEP: &str = "import os
for i in range(5000):
    os.mkdir('d'); os.chdir('d')
open('end', 'w')";

#[test]
fn f17_deep_tree_is_compared_measured_and_left() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}"));
    let files = || -> u64 {
        let list = world.ok("ulimit -n 128; ob-list -l --json mta | jq '.[0].upper_files'");
        list.parse().expect("a number")
    };
    let before = files();
    let made = world.line("mkdir mta/root/zz; cd mta/root/zz; exec python3 -c \"$DEEP\"");
    made.env("DEEP", DEEP).run().ok();
    let diff = world.ok(
        "ulimit -n 128; overlay-diff mta >diff; grep -c '^A /zz' diff; tail -c 9 diff; overlay-diff --json mta | jq length; wc -l <diff",
    );
    let diff: Vec<&str> = diff.lines().collect();
    assert_eq!(diff[..2], ["5002", "/d/d/end"], "{diff:?}");
    assert_eq!(diff[2], diff[3], "{diff:?}");
    assert_eq!(files(), before + 1);
    world.ok("overlay-stop mta; rm -rf mta/root/zz");
}

#[test]
fn f17_deep_control_groups_are_removed() {
    let world = World::new();
    if !world.has_cgroup() {
        return not_done("control groups", end_to_end::NO_CGROUP);
    }
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}"));
    let group = world.document("mta")["cgroup"].to_string();
    let deep = DEEP.replace("5000", "3000").replace("open('end', 'w')", "");
    let made = world.line(&format!("cd {group} && exec python3 -c \"$DEEP\""));
    made.env("DEEP", &deep).run().ok();
    world.ok("overlay-stop mta");
    world.ok(&format!("[ ! -e {group} ]"));
}

#[test]
fn f13_terminal_shows_no_control_character() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==\nBAD=\u{1b}[31m\u{9b}31m\u{202e}");
    world.ok(&format!("overlay-boot {conf}"));
    world.inside("mta", "ip link set eth0 name \"$(printf 'a\\033[2J')\"; ip addr add 10.9.0.2/24 dev \"$(printf 'a\\033[2J')\"; ip link set lo up; touch /root/$(printf '\\302\\2332J\\342\\200\\256x') /root/$(printf '\\2332J')");
    world.ok(
        "printf 'x\\033[31m\\302\\23331m\\2332J\\342\\200\\256y\\tz\\n' >>/tmp/overlay-mta.log",
    );
    let clean = |line: &str| {
        let shown = on_terminal(&world, line);
        let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
        let bad = |c: char| bad(c) || c == '\u{202e}';
        assert!(!shown.contains(bad), "{line}: {shown:?}");
        shown
    };
    assert!(clean("overlay-list -l mta | cat").contains("a?[2J 10.9.0.2/24"));
    clean(&format!("ob-conf --check {conf} || :"));
    clean(&format!("ob-conf --check {conf} | cat || :"));
    assert!(clean("overlay-log mta").contains("x?[31m?31m?2J?y\tz"));
    let diff = clean("overlay-diff mta");
    assert!(
        diff.contains("/root/\\302\\2332J\\342\\200\\256x"),
        "{diff}"
    );
    assert!(diff.contains("/root/\\2332J"), "{diff}");
    let json = clean("overlay-diff --json mta");
    assert!(json.contains("\\u009b2J\\u202ex"), "{json}");
    // A pipe gets every byte.
    let log = world.ok("overlay-log mta | tail -n 1 | od -An -tx1 | tr -d ' \n'");
    assert_eq!(log, "781b5b33316dc29b33316d9b324ae280ae79097a0a");
    world.ok("overlay-stop mta");
    // Names, paths and words of the command line in messages.
    let name = "n\u{9b}\u{202e}";
    world.ok(&format!(
        "mkdir -p '{name}' && touch '{name}/a\u{1b}[2J.conf'"
    ));
    for line in [
        format!("overlay-boot '{name}/a\u{1b}[2J.conf' 2>&1 || :"),
        format!("overlay-stop '{name}/a\u{1b}[2J.conf' 2>&1 || :"),
        format!("ob-list '{name}' 2>&1 || :"),
        format!("ob-conf '--{name}' 2>&1 || :"),
        format!("overlay-boot '--{name}' 2>&1 || :"),
    ] {
        clean(&line);
    }
    assert_eq!(
        world.ok("printf 'a\\033b\\nc' | ob-conf --printable 'web: '"),
        "web: a?b\nweb: c"
    );
}

/// Runs a line and asserts that the file `ran` was not made by it.
#[track_caller]
fn runs_nothing(world: &World, line: &str) -> Done {
    let done = world.run(line);
    assert!(!world.has("ran"), "{done:#?}");
    done
}

#[test]
fn f02_word_is_no_file_and_looking_runs_nothing() {
    let world = World::new();
    world.script("evil/run", "touch $W/ran; echo web");
    let command =
        "NAME=!./run\nBASE=!./run\nLOG=!./run\nLOWER=!./run\nUPPER=!./run\nCABLES=!./run\n";
    world.write("evil/web", command);
    world.write("evil/web.conf", command);
    world.write(
        "subhosts.conf",
        &format!("{0}/evil/web {0}/evil/web.conf", world.directory()),
    );
    world.ok("mkdir evil/web.d; ln -s ../evil/web.conf evil/link.conf");
    for command in [
        "overlay-list",
        "overlay-list -l",
        "overlay-stop",
        "overlay-log",
        "overlay-log -a",
        "overlay-diff",
        "overlay-diff --json",
        "overlay-go",
        "overlay-share /tmp",
        "ob-list --documents",
        "ob-enter",
    ] {
        for operand in [
            "web",
            "web.conf",
            "./web",
            "./web.conf",
            "../evil/web.conf",
            "link.conf",
            "./link.conf",
            "web.d",
        ] {
            let done = runs_nothing(&world, &format!("cd evil; {command} {operand}"));
            assert_ne!(done.status, 0, "{done:#?}");
            assert_eq!(done.err.lines().count(), 1, "{done:#?}");
        }
    }
    for line in [
        "SUBHOSTS_CONF=$W/subhosts.conf overlay-subhosts status",
        "SUBHOSTS_CONF=$W/subhosts.conf overlay-subhosts stop",
        "SUBHOSTS_CONF=$W/subhosts.conf overlay-subhosts end web",
        "CONFIG=$W/evil/web.conf; . $(command -v functions); is_live",
        "cd evil; CONFIG=web.conf; . $(command -v functions); is_live",
    ] {
        runs_nothing(&world, line);
    }
    runs_nothing(&world, "cd evil; overlay-log ./web.conf").fails(
        1,
        &["web.conf:1: NAME=!./run is a command, which only a boot runs"],
    );
    runs_nothing(&world, "cd evil; overlay-diff ./web.conf")
        .fails(1, &["web.conf:1: NAME=!./run is a command"]);
    runs_nothing(&world, "cd evil; overlay-stop web.conf").fails(1, &["web: not running"]);
}

#[test]
fn f02_running_subhost_is_found_by_its_configuration() {
    let world = World::new();
    let conf = world.subhost("web", "NAME=www");
    world.ok(&format!("overlay-boot {conf}"));
    let status = world.ok(&format!("stat -c %d:%i {conf}"));
    assert_eq!(world.document("www")["confid"], status);
    world.ok("mkdir other; ln -s ../web/web.conf other/web.conf; ln -s web linked; echo BASE=. >other/mta.conf");
    let found = |line: &str| assert_eq!(world.ok(&format!("{line} | tail -n 1")), "www", "{line}");
    let all = || {
        found("cd web; ob-list --names web.conf");
        found("cd web; ob-list --names ./web.conf");
        found("cd web/root; ob-list --names ../web.conf");
        found("ob-list --names linked/web.conf");
        found("ob-list --names other/web.conf");
        found(&format!("ob-list --names {conf}"));
    };
    all();
    // Moved, it is still the file that was read.
    world.ok("mv web/web.conf web/moved");
    found("ob-list --names web/moved");
    found(&format!("ob-list --names {conf}"));
    world
        .run("cd web; ob-list moved")
        .fails(1, &["moved: not running"]);
    world.ok("mv web/moved web/web.conf");
    // What an editor puts in its place.
    world.ok("cp web/web.conf web/new; mv web/new web/web.conf");
    all();
    // A word is not looked up through a link, and only under the name that the file has.
    for (line, words) in [
        ("cd other; overlay-stop web.conf", "web: not running"),
        ("cd other; overlay-stop mta.conf", "mta: not running"),
        ("cd other; overlay-stop ./mta.conf", "mta: not running"),
        (
            "cd web; ln web.conf x.conf; overlay-stop x.conf",
            "x: not running",
        ),
        ("overlay-stop web.conf", "web: not running"),
        ("overlay-stop web", "web: not running"),
    ] {
        world.run(line).fails(1, &[words]);
    }
    // Another configuration has the default name.
    let other = world.subhost("a", "NAME=web");
    world.ok(&format!(
        "overlay-boot {other}; mkdir b; cp {other} b/web.conf"
    ));
    let words = ["web: running, but from ", "/a/a.conf, not "];
    world.run("overlay-stop b/web.conf").fails(1, &words);
    world.run("cd b; overlay-stop web.conf").fails(1, &words);
    world.ok("overlay-stop --all");
}

#[test]
fn f02_starting_subhost_is_found_by_its_configuration() {
    let world = World::new();
    world.script("web/wait", "mkfifo $BASE/fifo; read -r go <$BASE/fifo");
    let conf = world.subhost("web", "NAME=www\nPREMOUNT=./wait");
    let boot = world.line(&format!("overlay-boot {conf}")).start();
    until("the hook", || world.has("web/fifo"));
    assert_eq!(
        world.ok("cd web/root; ob-list --state starting --names ../web.conf || :"),
        "www"
    );
    world.ok("echo go >web/fifo");
    boot.wait().ok();
    world.ok(&format!("overlay-stop {conf}"));
}

#[test]
fn f03_file_of_another_user_decides_nothing() {
    if !is_root_or_tell("files of another user") {
        return;
    }
    let world = World::new();
    world.ok("mkdir -p secret/in user/root user/work user/live good/root good/work good/live; echo hidden >secret/file; touch secret/in/hidden; echo log >good/log; chmod 700 secret");
    let w = world.directory();
    let text = format!("BASE=.\nLOWER=../busybox\nLOG={w}/secret/file\nUPPER={w}/secret/in\n");
    world.write("user/web.conf", &text);
    world.write(
        "good/web.conf",
        &format!("BASE=.\nLOWER=../busybox\nLOG={w}/good/log\n"),
    );
    let shown = |line: &str| {
        let done = world.run(line);
        assert!(
            !done.out.contains("hidden") && !done.err.contains("hidden"),
            "{done:#?}"
        );
        done
    };
    for (change, undo) in [
        ("chown 1000 user", "chown 0 user"),
        ("chown 1000 user/web.conf", "chown 0 user/web.conf"),
        ("chmod 777 user", "chmod 755 user"),
        ("chmod 666 user/web.conf", "chmod 644 user/web.conf"),
        ("chown 1000 .", "chown 0 ."),
    ] {
        world.ok(change);
        for command in [
            "overlay-log",
            "overlay-log -a",
            "overlay-diff",
            "overlay-diff --json",
        ] {
            let done = shown(&format!("{command} user/web.conf"));
            done.fails(1, &["user/web.conf: is not trusted: ", "; ch"]);
        }
        world.ok(undo);
    }
    // Only regular files are read.
    world.ok("mkfifo user/fifo");
    for file in ["user/fifo", "/dev/zero", "/dev/null", "./user", "./nowhere"] {
        for command in ["overlay-log", "overlay-diff"] {
            let done = shown(&format!("timeout 20 {command} {file}"));
            assert_eq!((done.status, done.err.lines().count()), (1, 1), "{done:#?}");
        }
    }
    // Where root alone decides, both work.
    assert_eq!(
        world.ok("overlay-log good/web.conf; overlay-log user/web.conf"),
        "log\nhidden"
    );
    assert!(world.ok("overlay-diff user/web.conf").contains("A /hidden"));
    // A layer that another user can replace.
    world.ok("chown 1000 user; rmdir user/root; ln -s ../secret/in user/root");
    for upper in [
        "BASE=../user",
        "BASE=.\nUPPER=../user/root",
        "BASE=.\nUPPER=../user/root/..",
    ] {
        world.write("good/web.conf", &format!("{upper}\nLOWER={w}/busybox\n"));
        shown("overlay-diff good/web.conf")
            .fails(1, &["is not trusted: ", "/user belongs to uid 1000"]);
    }
    // A link in a directory where users can create files is no log, even if its subhost runs.
    world.ok("mkdir -m 1777 shared; chown 1000 shared; ln -s ../secret/file shared/log; chown -h 1000 shared/log; ln -s $W/secret/file /tmp/overlay-web.log");
    world.write("good/web.conf", &format!("BASE=.\nLOG={w}/shared/log\n"));
    shown("overlay-log good/web.conf").fails(1, &["there is no log"]);
    shown("overlay-log web").fails(1, &["there is no log"]);
    world.ok("rm shared/log; ln secret/file shared/log");
    shown("overlay-log good/web.conf").fails(1, &["there is no log"]);
    let conf = world.subhost("mta", "LOG=shared/mta.log");
    world.ok(&format!("overlay-boot {conf}; overlay-log mta | grep -q 'pid 1 has started'; ln -sf ../secret/file shared/mta.log"));
    shown("overlay-log mta").fails(1, &["there is no log"]);
    world.ok("overlay-stop mta");
}

#[test]
fn f03_commands_run_in_the_directory_of_their_file() {
    let world = World::new();
    let conf = world.subhost(
        "mta",
        "NAME=!./value www\nLOG=!./value www.log\nBASE=!./value .",
    );
    world.ok("sed -i /^BASE=.$/d mta/mta.conf; mkdir evil");
    world.script("mta/value", "echo \"$1\"");
    for name in ["value", "echo"] {
        world.script(format!("evil/{name}"), "touch $W/ran; echo evil");
    }
    world.ok(&format!("cd evil; overlay-boot {conf}"));
    assert!(!world.has("ran"));
    assert!(world.has("evil/www.log"), "a relative LOG is the caller's");
    world.ok("overlay-stop www");
}

#[test]
fn f08_near_miss_of_a_protection_is_refused() {
    let world = World::new();
    let before = world.snapshot();
    world.write("/tmp/overlay-mta.log", "kept");
    for line in [
        "PROTCT=strict",
        " PROTECT=strict",
        "\tPROTECT=strict",
        "PROTECT =strict",
        "export PROTECT=strict",
        "\u{feff}PROTECT=strict",
        "protect=strict",
        "PROTECT=",
        "PROTECT=no\nPROTECT=strict",
        "SHARE_R0=/tmp",
        "MASKS=/etc",
        "USER_NS=auto",
        "READ_ONLY=yes",
        "PIDSMAX=5",
        "MEMROY_MAX=1G",
    ] {
        let conf = world.subhost("mta", line);
        for boot in [
            "overlay-boot",
            "overlay-boot -n",
            "ob-conf",
            "ob-conf --env",
        ] {
            let done = world.run(&format!("{boot} {conf}"));
            let number = line.lines().count();
            done.fails(1, &[&format!("ob-conf: {conf}:{number}: ")]);
            assert_eq!(done.out, "");
        }
        let check = world.run(&format!("ob-conf --check {conf}"));
        assert_eq!(check.status, 1, "{check:#?}");
    }
    assert_eq!(world.read("/tmp/overlay-mta.log"), "kept");
    world.ok("rm /tmp/overlay-mta.log");
    world.assert_same(&before);
    let free = "PORT=1\nMASTER=a\nPROJECT=b\nX_PROTCT=c\n#PROTECT=\nPROTECT=yes\nPROTECT=yes";
    let conf = world.subhost("mta", free);
    world.ok(&format!("overlay-boot {conf}; overlay-stop mta"));
}

#[test]
fn f08_boot_reports_lines_that_have_no_effect() {
    let world = World::new();
    let conf = world.subhost(
        "mta",
        "LOWRE=/x\n LIVE=live\nMINE=1\nX_MINE=\"2\"\nSTART=!echo \"x\"\nremark\nRAM_SIZE=5M\nRAM_SIZE=6M",
    );
    let boot = world.run(&format!("overlay-boot {conf}"));
    assert_eq!((boot.status, boot.out.as_str()), (0, ""), "{boot:#?}");
    let warnings = [
        "1: LOWRE is not a variable; did you mean LOWER?",
        "2: is ignored: LIVE= must stand at the first column",
        "3: MINE is not a variable; begin the name of a variable for other programs with X_",
        "5: the quotes are part of the value",
        "6: is no assignment",
    ];
    let lines: Vec<&str> = boot.err.lines().collect();
    assert_eq!(lines.len(), warnings.len(), "{boot:#?}");
    let log = world.ok("overlay-log mta");
    for (line, warning) in lines.iter().zip(warnings) {
        let expected = format!("ob-conf: warning: {conf}:{warning}");
        assert!(line.starts_with(&expected), "{line} and {expected}");
        assert!(log.contains(&format!("Z {line}\n")), "{line} in {log}");
    }
    // What the manual says of two assignments is what happens.
    let twice = format!("ob-conf: warning: {conf}:8: is ignored: RAM_SIZE is assigned on line 7");
    assert!(log.contains(&twice), "{log}");
    world.ok("overlay-stop mta");
    // An error comes last.
    let conf = world.subhost("mta", "LOWRE=/x\nUPPER=gone");
    let boot = world.run(&format!("overlay-boot {conf}"));
    let lines: Vec<&str> = boot.err.lines().collect();
    assert_eq!((boot.status, lines.len()), (1, 2), "{boot:#?}");
    assert!(lines[0].contains("warning: ") && lines[1].starts_with("ob-mount: mta: UPPER="));
    let conf = world.subhost("mta", "");
    assert_eq!(world.run(&format!("overlay-boot {conf}")).err, "");
    world.ok("overlay-stop mta");
}

#[test]
fn f18_files_that_decide_what_root_runs_are_judged() {
    if !is_root_or_tell("files of another user") {
        return;
    }
    let world = World::new();
    world.script("a/hooks/pre", ":");
    world.script("a/hooks/name", "echo mta");
    world.ok("mkdir -p a/logs b; echo '{\"defaultAction\":\"SCMP_ACT_ALLOW\"}' >a/profile.json");
    let conf = world.subhost(
        "a/mta",
        "NAME=!../hooks/name\nPREMOUNT=../../b/link/pre\nLOG=../../w/logs/log\nSECCOMP=../profile.json",
    );
    let w = world.directory();
    world.ok(&format!("sed -i 's,^LOG=.*,LOG={w}/a/logs/log,; s,^LOWER=.*,LOWER={w}/busybox,' {conf}; mv a/mta/a/mta.conf a/mta/mta.conf 2>/dev/null || mv {conf} a/mta/mta.conf; ln -s ../a/hooks b/link; ls a/mta >&2"));
    let conf = format!("{w}/a/mta/mta.conf");
    world.ok(&format!(
        "chmod -R go-w . ; overlay-boot {conf}; overlay-stop mta"
    ));
    assert_eq!(world.ok(&format!("ob-conf --check {conf}")), "");
    for (path, line) in [
        ("a/mta/mta.conf", 0),
        ("a/mta", 0),
        ("a", 0),
        ("a/hooks", 1),
        ("a/hooks/name", 1),
        ("a/hooks/pre", 2),
        ("b", 2),
        ("a/logs", 3),
        ("a/profile.json", 4),
    ] {
        for (change, undo, doubt) in [
            (
                "chmod g+w",
                "chmod g-w",
                format!(
                    "{w}/{path} can be written by users other than its owner; chmod go-w {w}/{path}"
                ),
            ),
            (
                "chown 1000",
                "chown 0",
                format!(
                    "{w}/{path} belongs to uid 1000, which so decides what root runs; chown root {w}/{path}"
                ),
            ),
        ] {
            world.ok(&format!("{change} {path}"));
            let place = if line == 0 {
                conf.clone()
            } else {
                format!("{conf}:{line}")
            };
            let check = world.run(&format!("ob-conf --check {conf}"));
            assert!(
                check
                    .out
                    .lines()
                    .any(|line| line.starts_with(&place) && line.ends_with(&doubt)),
                "{place} {doubt} in {check:#?}"
            );
            let boot = world.run(&format!("overlay-boot {conf}; overlay-stop mta"));
            let warning = format!("ob-conf: warning: {place}: {doubt}");
            assert_eq!((boot.status, boot.err.trim_end()), (0, warning.as_str()));
            assert!(
                world
                    .ok("cat a/logs/log")
                    .contains(&format!("Z {warning}\n"))
            );
            world.ok(&format!("{undo} {path}"));
        }
    }
    // In a sticky directory files of root are safe, and files of other users are not.
    world.ok("mkdir -m 1777 t; cp -r a/mta t/mta; cp -r a/hooks t/hooks; cp a/profile.json t");
    let conf = format!("{w}/t/mta/mta.conf");
    assert_eq!(world.ok(&format!("ob-conf --check {conf}")), "");
    let check = world.run(&format!("chown 1000 t/mta; ob-conf --check {conf}"));
    assert!(
        check.out.contains("/t/mta belongs to uid 1000"),
        "{check:#?}"
    );
    // A link that leads to the configuration, and what it leads through.
    world.ok("chown 0 t/mta; mkdir c; ln -s ../t/mta/mta.conf c/mta.conf; chmod 777 c");
    let check = world.run("ob-conf --check c/mta.conf");
    assert!(
        check.out.contains("/c can be written by users other than"),
        "{check:#?}"
    );
}

#[test]
fn f19_working_directory_is_no_place_for_programs() {
    let world = World::new();
    let conf = world.subhost(
        "mta",
        "HOSTNAME=!uname -n\nSTART=/bin/true\nCABLES==\nPREMOUNT=true",
    );
    for program in [
        "ob-conf",
        "ob-mount",
        "ob-cable",
        "ob-unshare",
        "ob-enter",
        "ob-list",
        "ob-diff",
        "ob-room",
        "uname",
        "true",
        "ifup",
        "ifdown",
        "cat",
        "tail",
        "tr",
        "sed",
        "find",
        "id",
        "timeout",
        "mkfifo",
        "rm",
        "sudo",
        "sh",
        "env",
        "mount",
        "overlay-boot",
        "overlay-stop",
        "overlay-go",
    ] {
        world.script(
            format!("evil/{program}"),
            "PATH=/bin:/usr/bin; touch $W/ran; exit 1",
        );
    }
    world.ok("ln -s . evil/bin");
    let commands = [
        format!("overlay-boot {conf}"),
        "overlay-list".to_owned(),
        "overlay-go mta true".to_owned(),
        "overlay-log mta".to_owned(),
        "overlay-diff mta".to_owned(),
        "overlay-share /srv mta".to_owned(),
        "overlay-subhosts status".to_owned(),
        "overlay-stop mta".to_owned(),
        format!("overlay-boot -n {conf}"),
        "overlay-diskfile /x".to_owned(),
    ];
    let scripts = end_to_end::scripts().display();
    for path in [
        ".:$PATH",
        ":$PATH",
        "$PATH:",
        "bin:$PATH",
        "./bin:$PATH",
        "/nowhere::$PATH",
        "../evil:.:$PATH:.",
    ] {
        for command in &commands {
            let done = runs_nothing(
                &world,
                &format!(
                    "cd evil; env PATH=\"{path}\" {}",
                    in_sh(&format!("{scripts}/{command}"))
                ),
            );
            assert_eq!(done.status, 0, "{path}: {done:#?}");
        }
        let pipeline = format!("ob-conf {conf} | ob-room true");
        let line = format!(
            "cd evil; {}",
            pipeline.replace(
                "ob-",
                &format!("PATH=\"{path}\" {}/ob-", end_to_end::bin().display())
            )
        );
        assert_eq!(runs_nothing(&world, &line).status, 0, "{path}");
    }
    // With nothing but the working directory the usual directories are left, which need not have
    // the tools.
    for path in ["", ".", ":", "bin"] {
        for command in &commands {
            runs_nothing(
                &world,
                &format!(
                    "cd evil; env PATH=\"{path}\" {}",
                    in_sh(&format!("{scripts}/{command}"))
                ),
            );
        }
    }
}

/// The line as arguments of env(1), which looks for no shell on PATH.
fn in_sh(line: &str) -> String {
    format!("/bin/sh -c '{line}'")
}

#[test]
fn f20_completion_evaluates_no_name() {
    let world = World::new();
    let name = "m$(touch${IFS}ran)`touch${IFS}ran`;*&";
    let conf = world.subhost("odd", &format!("NAME={}", name.replace('\\', "")));
    world.ok(&format!("overlay-boot {conf}; mkdir 'x$(touch ran)'; touch '$(touch ran).conf' 'x$(touch ran)/a.conf'"));
    world.script("evil/overlay-stop", "touch $W/ran");
    for (file, text) in [
        (
            "overlay.bash",
            include_str!("../../../../etc/completions/overlay.bash"),
        ),
        (
            "_overlay",
            include_str!("../../../../etc/completions/_overlay"),
        ),
        (
            "overlay.fish",
            include_str!("../../../../etc/completions/overlay.fish"),
        ),
    ] {
        world.write(file, text);
    }
    world.write("zsh-test", crate::prompt::ZSH);
    // The line is completed, and what it then is printed instead of run.
    world.write(
        "bash-test",
        r#"
. ./overlay.bash
overlay-stop() { printf '<%s>\n' "$@"; }
overlay-go() { printf '<%s>\n' "$@"; }
bind 'set bell-style none'
"#,
    );
    for line in [
        "overlay-stop \\$",
        "overlay-stop $",
        "overlay-go m",
        "overlay-stop x",
        "overlay-stop ",
        "$W/evil/overlay-stop --",
        "./evil/overlay-stop --",
    ] {
        for (shell, command) in [
            (
                "bash",
                "{ cat bash-test; printf '%s\\t'\"$END\" \"$LINE\"; echo exit; } | script -qec 'bash --norc --noprofile -i' /dev/null",
            ),
            (
                "fish",
                "fish --no-config -c 'source overlay.fish; complete -C \"$LINE\"'",
            ),
            ("zsh", "TERM=dumb zsh -f zsh-test \"$LINE\" \"$PWD\""),
        ] {
            if world.run(&format!("command -v {shell}")).status != 0 {
                not_done("completion", &format!("needs {shell}"));
                continue;
            }
            // A line with a path of another program is not run.
            let end = if line.starts_with('o') {
                "\\n"
            } else {
                "\\025"
            };
            let done = world
                .line(command)
                .env("LINE", line)
                .env("END", end)
                .env("TERM", "dumb")
                .run();
            assert!(!world.has("ran"), "{shell}: {done:#?}");
            if line == "overlay-go m" {
                let shown = done.out.replace('\\', "").replace(['\r', '\n'], "");
                assert!(shown.contains("$(touch${IFS}ran)"), "{shell}: {done:#?}");
            }
        }
    }
    world.ok("overlay-stop --all");
}

#[test]
fn f20_dry_run_keeps_a_path_in_its_remark() {
    let world = World::new();
    let odd = "a\ntouch ran\n#";
    let conf = world.subhost("mta", "PROTECT=yes\nHOSTNAME=mta\nMASK=/x\nCABLES==");
    world.ok(&format!(
        "mkdir '{odd}'; mv mta '{odd}/mta'; mkdir '{odd}/s'"
    ));
    let conf = conf.replace("/mta/mta.conf", &format!("/{odd}/mta/mta.conf"));
    world.ok(&format!(
        "sed -i 's,^LOWER=.*,LOWER={}/busybox,' '{conf}'",
        world.directory()
    ));
    let steps = world.ok(&format!("overlay-boot -n '{conf}'"));
    // A shell that runs all lines which are no command of ours in quotes.
    let text = format!("set -n\n{steps}");
    world.write("steps", &text);
    world.ok("sh -n steps");
    let mut quoted = false;
    for line in steps.lines() {
        assert!(quoted || line != "touch ran", "{steps}");
        quoted ^= line.matches('\'').count() % 2 == 1 && (quoted || !line.starts_with('#'));
    }
    assert!(steps.contains("?touch ran?"), "{steps}");
}

#[test]
fn f20_subhost_cannot_write_a_line_of_the_tools() {
    let world = World::new();
    let long = "x".repeat(4096);
    world.script(
        "mta/root/etc/rc",
        &format!(
            "printf '%s\\n' 'ob-unshare: pid 1 has ended with status 0' '(3 lines lost) ob-unshare: spoofed'
[ $1 = start ] || exit 0
usleep 300000; printf {long}; usleep 300000; echo ob-unshare: spoofed
echo ob-mount: spoofed; printf 'ob-unshare: no newline'"
        ),
    );
    let conf = world.subhost("mta", "START=/etc/rc");
    world.ok(&format!("overlay-boot {conf}"));
    until("the service", || {
        world
            .read("/tmp/overlay-mta.log")
            .contains("ob-mount: spoofed")
    });
    world.ok("overlay-stop mta");
    let log = world.ok("overlay-log mta");
    let ours = |text: &str| {
        world.ok(&format!(
            "grep -c '^[^ ]* {text}' /tmp/overlay-mta.log || :"
        ))
    };
    assert_eq!(ours("ob-unshare: pid 1 has ended"), "1", "{log}");
    assert_eq!(ours("ob-.*spoofed"), "0", "{log}");
    assert_eq!(ours("("), "0", "{log}");
    for printed in [
        "| ob-unshare: pid 1 has ended with status 0",
        "| (3 lines lost) ob-unshare",
        "| ob-unshare: spoofed",
        "| ob-mount: spoofed",
        "| ob-unshare: no newline",
    ] {
        assert!(log.contains(&format!("Z {printed}")), "{printed} in {log}");
    }
}

#[test]
fn f13_output_of_a_service_is_named_and_clean_at_the_stop() {
    let world = World::new();
    let confs = ["one", "two"].map(|name| {
        world.script(
            format!("{name}/root/etc/rc"),
            "[ $1 = start ] || { printf 'stop\\033[2J\\n\\302\\233\\tend'; echo bad >&2; sleep 1000 & exit 3; }",
        );
        world.subhost(name, "START=/etc/rc\nSTOP_TIMEOUT=2")
    });
    for conf in confs {
        world.ok(&format!("overlay-boot {conf}"));
    }
    // What a stop leaves running holds its output open.
    let stop = world.run("overlay-stop one two");
    assert_eq!(stop.status, 0, "{stop:#?}");
    let mut lines: Vec<&str> = stop.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "one: ?\tendbad",
            "one: stop?[2J",
            "two: ?\tendbad",
            "two: stop?[2J"
        ],
        "{stop:#?}"
    );
    assert_eq!(stop.err.lines().count(), 2, "{stop:#?}");
    assert!(
        stop.err
            .contains("overlay-stop: one: /etc/rc: its stop has ended with status 3"),
        "{stop:#?}"
    );
}
