//! Configurations and words of the command line that are meant to run something, to hide a protection or to write to a terminal.

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
    world.ok(&format!("overlay-boot {conf}; mkdir mta/root/deep"));
    let made = world.line("cd mta/root/deep; exec python3 -c \"$DEEP\"");
    made.env("DEEP", DEEP).run().ok();
    let diff = world.ok("overlay-diff mta | grep -c '^A /deep'; overlay-diff mta | grep '^A /deep' | tail -n 1 | tail -c 9; overlay-diff --json mta | jq length");
    let json = diff.lines().last().expect("a number").parse::<usize>();
    assert!(diff.starts_with("5002\n/d/d/end"), "{diff}");
    assert!(json.expect("a number") >= 5002, "{diff}");
    let list = world.ok("ob-list -l --json mta | jq '.[0].upper_files'");
    assert!(list.parse::<u64>().expect("a number") > 0, "{list}");
    world.ok("overlay-stop mta; rm -rf mta/root/deep");
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
    // The name by default is taken by another one.
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
    // A link where users can make files is no log, be it of a subhost that runs.
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
