//! Invalid input: one line that names the object, the reason and the remedy, the documented exit
//! status, and no side effect.

use end_to_end::World;

/// The lines of a configuration, the number of the line that the message names (0: none), and words
/// of the message.
type Bad = (&'static str, usize, &'static [&'static str]);

/// Configurations that ob-conf refuses.
const CONFIGURATIONS: &[Bad] = &[
    (
        "LIVE=live",
        0,
        &["bad.conf: BASE is not set; add the line BASE=."],
    ),
    ("BASE=", 0, &["BASE is not set; add the line BASE=."]),
    (
        "BASE=nowhere",
        1,
        &["BASE=", "nowhere", "No such file or directory"],
    ),
    (
        "\nBASE=bad.conf",
        2,
        &["BASE=", "bad.conf", "not a directory"],
    ),
    ("BASE=.\n\nNAME=a/b", 3, &["NAME=a/b cannot be a name"]),
    ("BASE=.\nNAME=a b", 2, &["NAME=a b cannot be a name"]),
    (
        "BASE=.\nNAME=.hidden",
        2,
        &["NAME=.hidden cannot be a name"],
    ),
    (
        "BASE=.\nNAME=-option",
        2,
        &["NAME=-option cannot be a name"],
    ),
    (
        "BASE=.\nNAME=!printf \\\\n",
        2,
        &["NAME=!printf", "printed nothing on its first line"],
    ),
    (
        "BASE=.\nNAME=fifteen-charact\nCABLES==",
        3,
        &["fifteen-charact0", "longer than 15", "set a shorter NAME"],
    ),
    (
        "BASE=.\nSTART=!true",
        2,
        &["START=!true", "printed nothing on its first line"],
    ),
    (
        "BASE=.\nRAM_SIZE=!false",
        2,
        &["RAM_SIZE=!false", "printed nothing on its first line"],
    ),
    (
        "BASE=.\nRAM_SIZE=!no-such-command x",
        2,
        &["RAM_SIZE=!no-such-command x: 'no-such-command' is not an executable file"],
    ),
    ("BASE=.\nRAM_SIZE=!", 2, &["there is no command"]),
    (
        "BASE=.\nSTOP_TIMEOUT=soon",
        2,
        &["STOP_TIMEOUT=soon is not a number of seconds"],
    ),
    (
        "BASE=.\nLOG_MAX=lots",
        2,
        &["LOG_MAX", "lots is not a size such as 10M"],
    ),
];

/// Cables that ob-conf refuses.
const CABLES: &[Bad] = &[
    (
        "BASE=.\nCABLES=br0",
        2,
        &["'br0' is no cable: write [bridge]=[MAC or .VLAN]"],
    ),
    (
        "BASE=.\nCABLES== =02:00:5e",
        2,
        &[
            "'02:00:5e' is not a MAC address",
            "such as 02:00:5e:10:00:01",
        ],
    ),
    (
        "BASE=.\nCABLES==01:00:5e:10:00:01",
        2,
        &["not a MAC address of one station"],
    ),
    (
        "BASE=.\nCABLES== =.4095",
        2,
        &["'4095' is not a number from 1 to 4094"],
    ),
    (
        "BASE=.\nCABLES==.5",
        2,
        &["the VLAN .5 has no cable before it"],
    ),
    (
        "BASE=.\nCABLES=sixteencharacter=",
        2,
        &["'sixteencharacter' cannot be the name of a bridge"],
    ),
    (
        "BASE=.\nCABLES=br0= br0=02:zz:5e:10:00:01",
        2,
        &["'02:zz:5e:10:00:01' is not a MAC address"],
    ),
];

/// Plans that a stage refuses, over the busybox root.
const PLANS: &[(&str, &[&str])] = &[
    (
        "LOG=/nowhere/log",
        &["open the log /nowhere/log", "No such file or directory"],
    ),
    ("LOG=.", &["log"]),
    (
        "UPPER=gone",
        &["ob-mount: bad: UPPER=", "/bad/gone does not exist; mkdir "],
    ),
    (
        "LOWER=gone",
        &[
            "ob-mount: bad: LOWER=",
            "/bad/gone does not exist; set LOWER to a directory that contains a root",
        ],
    ),
    (
        "LIVE=gone",
        &["ob-mount: bad: LIVE=", "/bad/gone does not exist; mkdir "],
    ),
    (
        "WORK=gone",
        &["ob-mount: bad: WORK=", "/bad/gone does not exist; mkdir "],
    ),
    (
        "UPPER=bad.conf",
        &["ob-mount: bad: UPPER=", "/bad/bad.conf is not a directory"],
    ),
    (
        "LOWER=bad.conf",
        &["ob-mount: bad: LOWER=", "/bad/bad.conf is not a directory"],
    ),
    (
        "LIVE=bad.conf",
        &["ob-mount: bad: LIVE=", "/bad/bad.conf is not a directory"],
    ),
    (
        "WORK=bad.conf",
        &["ob-mount: bad: WORK=", "/bad/bad.conf is not a directory"],
    ),
    ("LOWER=/bin:/usr", &["LOWER=/bin:/usr does not exist"]),
    (
        "WORK=/run/other",
        &["WORK=/run/other is not on the filesystem of UPPER="],
    ),
    (
        "WORK=root/in",
        &[
            "WORK=",
            "/root/in and UPPER=",
            "must not contain one another",
        ],
    ),
    ("UPPER=work/up", &["must not contain one another"]),
    ("WORK=root", &["must not contain one another"]),
    (
        "LIVE=mounted",
        &["LIVE=", "/mounted has a mount already; umount -R /"],
    ),
    (
        "PREMOUNT=./none a",
        &["PREMOUNT", "'./none' is not an executable file"],
    ),
    (
        "POSTMOUNT=./plain",
        &["POSTMOUNT", "'./plain' is not an executable file"],
    ),
    (
        "INIT=no-such-command",
        &["INIT", "'no-such-command' is not an executable file"],
    ),
    (
        "PREMOUNT=hook",
        &["'hook' is not on PATH; write ./hook for the file in BASE"],
    ),
    ("INIT=./silent", &["INIT printed nothing for pid 1 to do"]),
    ("LOWER=../shellless", &["ob-unshare: bad: ", "/bin/sh"]),
];

/// Cables that ob-cable refuses.
const BRIDGES: &[(&str, &[&str])] = &[
    (
        "CABLES== nobridge=",
        &["ob-cable: bad: CABLES: there is no bridge nobridge"],
    ),
    ("CABLES== lo=", &["lo is a link, but not a bridge"]),
    ("CABLES=wire= =", &["wire is a link, but not a bridge"]),
    (
        "NAME=taken\nCABLES==",
        &[
            "ob-cable: taken: make the link taken0",
            "there is one of that name already",
            "ip link del taken0",
        ],
    ),
];

/// Checks that neither overlay-boot nor ob-conf takes any of `rows`.
fn refused_by_ob_conf(world: &World, rows: &[Bad]) {
    let before = world.snapshot();
    for (text, line, words) in rows {
        let conf = world.conf("bad", text);
        for boot in ["overlay-boot", "ob-conf"] {
            let done = world.run(&format!("{boot} {conf}"));
            done.fails(1, words);
            assert_eq!(done.out, "", "{text}");
            let place = match line {
                0 => conf.clone(),
                line => format!("{conf}:{line}: "),
            };
            assert!(
                done.err.starts_with(&format!("ob-conf: {place}")),
                "{done:#?} instead of {place}"
            );
        }
        world.assert_same(&before);
    }
}

/// Checks that no subhost with any of `rows` boots, and that a subhost without them does.
fn refused_by_stages(world: &World, rows: &[(&str, &[&str])]) {
    let before = world.snapshot();
    for (text, words) in rows {
        let conf = world.subhost("bad", text);
        let done = world.run(&format!("overlay-boot {conf}"));
        assert_eq!(done.out, "", "{text}");
        done.fails(1, words);
        world.assert_same(&before);
    }
    let conf = world.subhost("bad", "");
    world.ok(&format!("overlay-boot {conf} && overlay-stop {conf}"));
    world.assert_same(&before);
}

#[test]
fn invalid_configurations_are_refused_with_their_line() {
    refused_by_ob_conf(&World::new(), CONFIGURATIONS);
}

#[test]
fn hazard_14_failing_boot_reports_why_and_leaves_nothing() {
    let world = World::new();
    world.ok("mkdir -p bad/root/in bad/work/up bad/mounted shellless; mount -t tmpfs tmpfs bad/mounted; mkdir /run/other");
    world.ok("touch bad/plain");
    world.script("bad/hook", ":");
    world.script("bad/silent", ":");
    refused_by_stages(&world, PLANS);
}

#[test]
fn hazard_34_invalid_bridge_or_mac_is_refused() {
    let world = World::new();
    refused_by_ob_conf(&world, CABLES);
    world.ok(
        "ip link add wire type veth peer name other; ip link add taken0 type veth peer name third",
    );
    refused_by_stages(&world, BRIDGES);
}

#[test]
fn invalid_files_are_rejected() {
    let world = World::new();
    world.ok("mkdir directory; printf 'BASE=.\\nLIVE=\\377\\n' >latin1.conf; printf 'BASE=.\\nLIVE=a\\0b\\n' >zero.conf; ln -s nowhere dangling.conf; echo BASE=. >.conf; echo BASE=. >'a b.conf'");
    world.ok("echo BASE=. >closed.conf; chmod 0 closed.conf");
    let before = world.snapshot();
    for (conf, words) in [
        (
            "nowhere.conf",
            &["ob-conf: nowhere.conf: No such file or directory"][..],
        ),
        ("''", &["overlay-boot: expects a configuration"]),
        (
            "dangling.conf",
            &["dangling.conf: No such file or directory"],
        ),
        ("directory", &["directory: is a directory"]),
        ("latin1.conf", &["latin1.conf:2: not UTF-8 text"]),
        ("zero.conf", &["zero.conf:2: not UTF-8 text"]),
        (".conf", &[".conf: NAME is empty"]),
        ("'a b.conf'", &["a b.conf: NAME=a b cannot be a name"]),
        ("bad.conf/below", &["bad.conf/below: "]),
    ] {
        let done = world.run(&format!("overlay-boot {conf}"));
        assert_eq!(done.err.lines().count(), 1, "{done:#?}");
        assert!(done.status == 1 || conf == "''", "{done:#?}");
        done.fails(done.status, words);
        assert_ne!(done.status, 0);
        world.assert_same(&before);
    }
    // CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH let root read any file.
    let line = "setpriv --bounding-set=-dac_override,-dac_read_search overlay-boot closed.conf";
    world
        .run(line)
        .fails(1, &["closed.conf: Permission denied"]);
    world.assert_same(&before);
}

#[test]
fn malformed_documents_are_rejected() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    let document = world.ok(&format!("ob-conf {conf}"));
    let before = world.snapshot();
    let half = &document[..document.len() / 2];
    let two = format!("{document}\n{document}\n");
    let no_name = document.replace("\"NAME\"", "\"name\"");
    let text = document.replace("[\"none\"]", "\"none\"");
    let list = document.replace("\"50M\"", "[\"50M\"]");
    let number = document.replace("\"50M\"", "50");
    let slash = document.replace("\"NAME\":\"mta\"", "\"NAME\":\"../mta\"");
    for (input, words) in [
        ("no JSON\n", "the input is no document"),
        ("[1,2]\n", "the input is no document"),
        ("\n", "the input is no document"),
        (half, "the input is no document"),
        (two.as_str(), "more than one line"),
        (&no_name, "has no NAME"),
        (&text, "START is \"none\"; it must be a list of texts"),
        (&list, "RAM_SIZE is [\"50M\"]; it must be a text"),
        (&number, "RAM_SIZE is 50; it must be a text"),
        (&slash, "NAME=../mta cannot be a name"),
    ] {
        for stage in ["ob-mount", "ob-cable", "ob-unshare", "ob-conf -"] {
            let done = world.line(stage).input(input).run();
            assert_eq!(done.out, "", "{done:#?}");
            done.fails(
                1,
                &[
                    stage.split(' ').next().expect("the name of the stage"),
                    words,
                ],
            );
        }
        world.assert_same(&before);
    }
    // ob-conf makes paths absolute; a stage refuses a relative one.
    let relative = document.replace(&format!("{}/mta/live", world.directory()), "live");
    world
        .line("ob-mount")
        .input(&relative)
        .run()
        .fails(1, &["LIVE=live is not an absolute path"]);
    // An empty input means that the failure has been reported already.
    for stage in [
        "ob-mount",
        "ob-cable",
        "ob-unshare",
        "ob-conf -",
        "ob-mount --undo",
        "ob-cable --undo",
        "ob-unshare --undo",
    ] {
        let done = world.run(&format!("{stage} </dev/null"));
        assert_eq!(
            (done.status, done.out.as_str(), done.err.as_str()),
            (1, "", ""),
            "{done:#?}"
        );
    }
    world.assert_same(&before);
}

#[test]
fn undo_continues_after_an_invalid_document() {
    let world = World::new();
    let before = world.snapshot();
    world.ok(
        "for n in a b; do echo '{\"NAME\":\"'$n'\",\"CABLES\":[\"=\"]}' | ob-cable; done >made",
    );
    let done = world.run("{ head -n 1 made; echo rubbish; tail -n 1 made; } | ob-cable --undo");
    assert_eq!(done.out.lines().count(), 2, "{done:#?}");
    done.fails(1, &["the input is no document"]);
    world.assert_same(&before);
}
