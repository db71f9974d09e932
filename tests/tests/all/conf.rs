//! ob-conf: how a configuration is read and checked.

use end_to_end::World;

#[test]
fn hazard_01_values_are_never_run() {
    let world = World::new();
    world.ok("mkdir -p '$(touch made)' ");
    let conf = world.subhost("mta", "MINE=$(touch made) `touch made`; touch made '\nPREMOUNT=./pre $(touch made) `touch made` ; touch made ' \"\nLOG=$(touch made)/it's.log\nINIT=./init");
    world.script("mta/pre", "printf '<%s>' \"$@\" >args");
    world.script("mta/init", "ob-unshare --init");
    world.boot_and_stop(
        "mta",
        &format!("overlay-boot {conf}"),
        &format!("overlay-stop {conf}"),
    );
    world.ok(&format!("ob-conf --check {conf}; ob-conf --env {conf}"));
    assert!(world.has("$(touch made)/it's.log"));
    assert_eq!(world.ok("find . -name made"), "");
    assert!(
        world
            .read("mta/args")
            .starts_with("<$(touch><made)><`touch><made`><;><touch><made><'><\">"),
        "{}",
        world.read("mta/args")
    );
}

#[test]
fn value_commands_run_once_in_the_documented_directory() {
    let world = World::new();
    world.script(
        "mta/value",
        "echo \"$1 $ACTION $(pwd) $CONFIG\" >>$W/calls; echo \"  $2  \"; echo more; exit 1",
    );
    let conf = world.subhost(
        "mta",
        "NAME=!./value NAME named\nLOG=!./value LOG /tmp/x.log\nSTART=!./value START none\nRAM_SIZE=! ./value RAM_SIZE 3M\nCABLES=!./value CABLES =\nSTOP_TIMEOUT=!./value STOP 4",
    );
    world.boot(&conf);
    let w = world.directory();
    let mut calls: Vec<String> = world.read("calls").lines().map(str::to_owned).collect();
    calls.sort();
    let call = |name: &str, directory: &str| format!("{name} overlay-boot {w}{directory} {conf}");
    assert_eq!(
        calls,
        [
            call("CABLES", "/mta"),
            call("LOG", "/mta"),
            call("NAME", "/mta"),
            call("RAM_SIZE", "/mta"),
            call("START", "/mta"),
            call("STOP", "/mta")
        ]
    );
    assert_eq!(world.document("named")["RAM_SIZE"], "3M");
    world.ok("rm calls; cd /; overlay-stop named");
    assert!(
        !world.has("calls"),
        "overlay-stop runs no command of the configuration"
    );
}

#[test]
fn ob_conf_prints_the_document_on_one_line() {
    let world = World::new();
    let conf = world.subhost("mta", "SHARE=rel:/x\nSHARE = /abs\nUNKNOWN=x");
    let w = world.directory();
    let line = world.run(&format!("ob-conf {conf}")).out;
    assert_eq!(line.matches('\n').count(), 1);
    let document: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let expected = serde_json::json!({
        "BASE": format!("{w}/mta"), "CABLES": [], "CONFIG": conf, "LIVE": format!("{w}/mta/live"), "LOG": "/tmp/overlay-mta.log", "LOG_MAX": "10M",
        "LOWER": format!("{w}/mta/../busybox"), "NAME": "mta", "RAM_SIZE": "50M", "SHARE": [format!("{w}/mta/rel:/x"), "/abs"], "START": ["none"],
        "STOP_TIMEOUT": "10", "UPPER": format!("{w}/mta/root"), "WORK": format!("{w}/mta/work"),
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&document[key], value, "{key}");
    }
    assert!(document.get("UNKNOWN").is_none() && document.get("PREMOUNT").is_none());
    assert_eq!(
        world.ok(&format!("ob-conf {conf} NAME RAM_SIZE")),
        "{\"NAME\":\"mta\",\"RAM_SIZE\":\"50M\"}"
    );
    assert_eq!(
        world.ok(&format!(
            "ob-conf {conf} RAM_SIZE=1M 'LIVE=a b' RAM_SIZE LIVE"
        )),
        format!("{{\"LIVE\":\"{w}/mta/a b\",\"RAM_SIZE\":\"1M\"}}")
    );
    assert_eq!(
        world.ok(&format!("ob-conf --env {conf} NAME START")),
        "NAME='mta'\nSTART='none'"
    );
    assert_eq!(
        world.ok(&format!(
            "ob-conf {conf} -- sh -c 'echo $NAME $RAM_SIZE; exit 0'"
        )),
        "mta 50M"
    );
    assert_eq!(
        world
            .run(&format!("ob-conf {conf} -- sh -c 'exit 6'"))
            .status,
        6
    );
    assert_eq!(world.run(&format!("ob-conf {conf} -- no-such")).status, 127);
    // Status 125 separates an error of ob-conf from an error of the command.
    world.write("bad.conf", "BASE=/nowhere\n");
    world
        .run("ob-conf bad.conf -- true")
        .fails(125, &["bad.conf:1", "/nowhere"]);
    assert_eq!(world.run("ob-conf bad.conf").status, 1);
}

#[test]
fn ob_conf_evaluates_only_requested_variables() {
    let world = World::new();
    let conf = world.subhost("mta", "PREMOUNT=!touch ran\nRAM_SIZE=!sh size");
    world.write("mta/size", "echo 7M; echo size >>$W/ran-size");
    assert_eq!(
        world.ok(&format!("ob-conf --env {conf} RAM_SIZE")),
        "RAM_SIZE='7M'"
    );
    assert!(!world.has("mta/ran") && world.read("ran-size") == "size\n");
}

#[test]
fn files_from_other_systems_are_read() {
    let world = World::new();
    let conf = world.conf("mta", "\u{feff}RAM_SIZE=lost to the mark\r\nBASE=.\t\r\n LIVE=indented\r\nexport UPPER=x\r\n#WORK=y\r\nNAME = z\r\nSTART=a  b\r\nSTART=second\r\nRAM_SIZE=\r\nRAM_SIZE=9M\r\nLOG=/a\\tb");
    let document: serde_json::Value =
        serde_json::from_str(&world.ok(&format!("ob-conf {conf}"))).expect("JSON");
    let w = world.directory();
    assert_eq!(document["LIVE"], format!("{w}/mta/live"));
    assert_eq!(document["UPPER"], format!("{w}/mta/root"));
    assert_eq!(document["NAME"], "mta");
    assert_eq!(document["START"], serde_json::json!(["a", "b"]));
    assert_eq!(
        document["RAM_SIZE"], "50M",
        "an empty first assignment means the default"
    );
    assert_eq!(document["LOG"], "/atb");
}

#[test]
fn check_reports_each_problem_with_its_line() {
    let world = World::new();
    let conf = world.conf(
        "mta",
        "BASE=.\nLOWRE=/x\nNAME=thirteen-char\nNAME=other\n LIVE=live\nCABLES=nobridge= =zz =.5000\nUPPER=gone\nPREMOUNT=./no\nSHARE=missing\nRAM_SIZE=\"1M\"\nfoo\nBASE =x\n",
    );
    let before = world.snapshot();
    let done = world.run(&format!(
        "chmod go-w mta mta/mta.conf; ob-conf --check {conf}"
    ));
    assert_eq!((done.status, done.err.as_str()), (1, ""), "{done:#?}");
    for (line, words) in [
        (2, "LOWRE is not a variable; did you mean LOWER?"),
        (3, "has 13 characters"),
        (4, "NAME is assigned on line 3 already"),
        (5, "LIVE= must stand at the first column"),
        (6, "there is no bridge nobridge"),
        (6, "'zz' is not a MAC address"),
        (6, "VLAN tag '5000'"),
        (7, "does not exist; mkdir "),
        (8, "'./no' is not an executable file"),
        (9, "missing does not exist on the host"),
        (10, "the quotes are part of the value"),
        (11, "is no assignment"),
        (12, "BASE= must stand at the first column"),
    ] {
        let place = format!("{conf}:{line}:");
        assert!(
            done.out
                .lines()
                .any(|report| report.starts_with(&place) && report.contains(words)),
            "no '{place} {words}' in {}",
            done.out
        );
    }
    world.assert_same(&before);
    let good = world.subhost("good", "");
    let done = world.run(&format!(
        "chmod go-w good good/good.conf; ob-conf --check {good}"
    ));
    assert_eq!((done.status, done.out.as_str()), (0, ""), "{done:#?}");
}

#[test]
fn x_variables_reach_the_document_and_the_hooks() {
    let world = World::new();
    let lines = "X_LINK=eno1\nX_note = no\nX_note=\"a b\" $c # d\nX_ADDRESS=!./address 7\nX_LINK=late\nX_EMPTY=\nPREMOUNT=./pre";
    world.script("mta/address", "echo 10.9.0.$1");
    world.script(
        "mta/pre",
        "printf '<%s>' \"$X_LINK\" \"$X_note\" \"$X_ADDRESS\" \"${X_EMPTY-unset}\" >env",
    );
    let conf = world.subhost("mta", lines);
    world.boot(&conf);
    assert_eq!(
        world.read("mta/env"),
        "<eno1><\"a b\" $c # d><10.9.0.7><unset>"
    );
    assert_eq!(world.document("mta")["X_ADDRESS"], "10.9.0.7");
    let inside = world.inside("mta", "env; tr '\\0' '\\n' </proc/1/environ");
    assert!(!inside.contains("X_"), "{inside}");
    world.ok("overlay-stop mta");
    let printed = |words: &str| world.ok(&format!("ob-conf --env {conf} {words}"));
    assert_eq!(
        printed("X_LINK=eno2 X_NEW=1 X_LINK X_NEW"),
        "X_LINK='eno2'\nX_NEW='1'"
    );
    assert_eq!(printed("X_ADDRESS"), "X_ADDRESS='10.9.0.7'");
    assert_eq!(printed("NAME"), "NAME='mta'");
    // Only the later assignment of X_LINK has no effect; a command that does not exist is one more.
    let check = |text: &str| {
        let conf = world.subhost("mta", text);
        let check = world.run(&format!("ob-conf --check {conf}"));
        (check.status, check.out)
    };
    let (status, out) = check("X_A=1\nX_a=2\nX_PROTCT=3");
    assert_eq!((status, out.as_str()), (0, ""));
    let (_, out) = check("X_A=1\nX_A=2\nX_B=! ./gone x");
    assert!(
        out.contains(":2:1: is ignored: X_A is assigned on line 1"),
        "{out}"
    );
    assert!(out.contains(":3:5: './gone' is not an executable"), "{out}");
}

#[test]
fn d_unknown_assignment_of_a_command_line_is_refused() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    for (word, remedy) in [
        (
            "STARTT=cron",
            "STARTT is not a variable; did you mean START?",
        ),
        (
            "MINE=1",
            "begin the name of a variable for other programs with X_",
        ),
        ("net=/run/netns/x", "net is not a variable"),
    ] {
        for end in ["", "NAME", "-- true"] {
            let done = world.run(&format!("ob-conf {conf} {word} {end}"));
            assert_eq!(done.out, "", "{done:#?}");
            done.fails(2, &["ob-conf: ", remedy]);
        }
    }
    world.ok(&format!("ob-conf {conf} | ob-conf - net=/x MINE=1"));
}

#[test]
fn d_absolute_conf_needs_no_current_directory() {
    let world = World::new();
    let conf = world.subhost("mta", "LOG=/tmp/mta.log");
    let gone = |command: &str| world.run(&format!("mkdir gone; cd gone; rmdir ../gone; {command}"));
    gone(&format!(
        "overlay-boot {conf} && overlay-go mta true && overlay-stop {conf}"
    ))
    .ok();
    gone(&format!("overlay-boot -n {conf}")).ok();
    gone(&format!("ob-conf --check {conf}")).ok();
    gone("ob-conf mta.conf").fails(1, &["mta.conf: No such file"]);
    gone(&format!("ob-conf {conf} LOG=x")).fails(1, &["LOG=x: No such file"]);
}
