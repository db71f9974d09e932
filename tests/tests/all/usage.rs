//! The command lines of all commands and tools: an invalid one is refused, and changes nothing.

use end_to_end::World;

/// Programs, and invalid operands and options for each; they are separated by `;`.
const INVALID: &[(&str, &str)] = &[
    ("overlay-boot", "; C -n; C C; C -f; --bad C; --json C"),
    ("overlay-go", "--bad; --bad mta"),
    (
        "overlay-stop",
        "; --bad; mta --bad; mta --all; --all mta; mta -a",
    ),
    (
        "overlay-list",
        "--bad; mta -l; -s no; -w 1; -w=x; -w 0.5 mta",
    ),
    ("overlay-log", "; --bad; mta C; mta -f"),
    ("overlay-diff", "; --bad; mta C; mta --json"),
    ("overlay-share", "; --bad; D mta mta; D mta -n; D:/x mta ro"),
    ("overlay-new", "; --bad; a b; --lower; a --bad"),
    ("overlay-diskfile", "; --bad; a b 1 x"),
    (
        "overlay-subhosts",
        "; --bad; bad; start C; list C; run; end; run a b",
    ),
    (
        "ob-conf",
        "; --bad; --check; --check C NAME; C --; --undo C; --undo - NAME; C BAD=1; C PROTCT=x",
    ),
    ("ob-mount", "--bad; x; --share; -n x; --undo x"),
    ("ob-cable", "--bad; x; -n x; --undo x"),
    ("ob-unshare", "--bad; -n x; --undo x; -n --undo"),
    (
        "ob-room",
        "; --bad; --undo x; --guard x; --guard x '|'; --cleanup x y; --foreground x",
    ),
    ("ob-enter", "; --bad; --bad mta"),
    ("ob-list", "--bad; mta -l; -s; -s no; -a mta; -w 2"),
    ("ob-diff", "--bad; x"),
];

#[test]
fn g_invalid_command_line_is_refused() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.boot(&conf);
    let other = world.subhost("other", "");
    world.ok("mkdir shared");
    let before = (world.snapshot(), world.ok("ls -A . /tmp"));
    for (program, lines) in INVALID {
        for words in lines.split(';') {
            let words = words.replace('C', &other).replace('D', "shared");
            let words = words.replace(&other.replace('D', "shared"), &other);
            let done = world.run(&format!("{program} {words} </dev/null"));
            assert_eq!(done.out, "", "{done:#?}");
            done.fails(2, &[&format!("{program}: ")]);
        }
    }
    world.assert_same(&before.0);
    assert_eq!(world.ok("ls -A . /tmp"), before.1);
    world.ok("overlay-stop mta");
}

#[test]
fn g_operand_of_the_wrong_kind_is_named() {
    let world = World::new();
    let conf = world.subhost("mta", "NAME=web");
    world.run("overlay-boot mta").fails(
        1,
        &["overlay-boot: mta is no configuration; did you mean mta/mta.conf?"],
    );
    world
        .run("overlay-boot mta/")
        .fails(1, &["did you mean mta/mta.conf?"]);
    world
        .run("cd mta && overlay-boot mta")
        .fails(1, &["did you mean mta.conf?"]);
    world
        .run("overlay-boot busybox")
        .fails(1, &["busybox: is a directory"]);
    world
        .run("overlay-boot none")
        .fails(1, &["none: No such file"]);
    world
        .run("overlay-go mta/mta.conf")
        .fails(125, &["cannot be a name"]);
    world.boot(&conf);
    let go = "mta/mta.conf is a configuration; did you mean overlay-go web?";
    world.run("overlay-go mta/mta.conf true").fails(125, &[go]);
    world
        .run("cd mta && overlay-go mta.conf")
        .fails(125, &["did you mean overlay-go web?"]);
    world.ok("overlay-go web true && overlay-stop web");
}

#[test]
fn g_refused_configuration_leaves_the_log() {
    let world = World::new();
    world
        .run("overlay-boot /etc/passwd")
        .fails(1, &["BASE is not set"]);
    assert_eq!(world.run("ls /tmp/overlay-*").out, "");
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf} && overlay-stop mta"));
    let log = world.read("/tmp/overlay-mta.log");
    let conf = world.subhost("mta", "STOP_TIMEOUT=soon");
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["mta.conf:1: "]);
    assert_eq!(world.read("/tmp/overlay-mta.log"), log);
}

#[test]
fn g_root_of_the_host_as_upper_is_reported() {
    let world = World::new();
    for upper in ["/", "/.", "../../../../../../../../../..", "slash"] {
        world.ok("ln -sfn / slash && mkdir -p mta && ln -sfn / mta/slash");
        let conf = world.conf("mta", &format!("BASE=.\nUPPER={upper}\n"));
        let check = world.run(&format!("ob-conf --check {conf}"));
        assert_eq!(check.status, 1);
        let problem = format!("{conf}:2:7: UPPER is the root of the host");
        assert!(check.out.contains(&problem), "{check:#?}");
    }
    let conf = world.conf("mta", "BASE=.\nLOWER=/no/such\n");
    let check = world.run(&format!("ob-conf --check {conf}"));
    assert!(
        check
            .out
            .contains("LOWER=/no/such does not exist; set LOWER to"),
        "{check:#?}"
    );
}

#[test]
fn g_share_stays_from_protect_yes_on() {
    let world = World::new();
    world.write("shared/file", "");
    for (level, leaves) in [("no", true), ("yes", false)] {
        let conf = world.subhost("mta", &format!("PROTECT={level}"));
        world.boot(&conf);
        world.ok("overlay-share shared:/mnt mta");
        assert_eq!(world.inside("mta", "ls /mnt"), "file");
        let done = world.run("overlay-go mta umount /mnt");
        assert_eq!(done.status == 0, leaves, "{done:#?}");
        world.ok("overlay-stop mta");
    }
}

#[test]
fn g_service_without_interpreter_is_logged() {
    let world = World::new();
    let conf = world.subhost("mta", "START=/bad /gone /good none");
    world.script("mta/root/good", "exit 3");
    world.ok("printf '#!/no/such\\n' >mta/root/bad; chmod 755 mta/root/bad mta/root/good");
    world.boot(&conf);
    end_to_end::until("the log", || {
        world.read("/tmp/overlay-mta.log").contains("/gone start")
    });
    let log = world.read("/tmp/overlay-mta.log");
    for service in ["/bad", "/gone"] {
        let line = format!("{service} start: status 127, as when the file or its interpreter");
        assert!(log.contains(&line), "{log}");
    }
    assert!(!log.contains("/good start:"), "{log}");
    world.ok("overlay-stop mta");
}
