//! Paths and names of configurations, and ob-conf as one meets it at the prompt.

use end_to_end::World;

/// Boots `line`, finds the subhost `name` running, and stops it by `stop`.
fn boots(world: &World, name: &str, boot: &str, stop: &str) {
    world.ok(boot);
    assert_eq!(
        world.inside(name, "echo $$ >/root/was-here; cat /etc/passwd | wc -l"),
        "1",
        "{boot}"
    );
    world.ok(stop);
    assert!(!world.has(format!("/run/netns/{name}")), "{stop}");
}

#[test]
fn hazards_7_and_8_a_configuration_boots_by_whatever_path() {
    let world = World::new();
    world.subhost("mta", "");
    world.ok("mkdir elsewhere; ln -s ../mta/mta.conf elsewhere/link.conf; ln -s mta linked; cp mta/mta.conf mta/plain");
    let w = world.directory();
    let before = world.snapshot();
    for (name, directory, path) in [
        ("mta", w, format!("{w}/mta/mta.conf")),
        ("mta", w, "mta/mta.conf".into()),
        ("mta", w, "./mta//../mta/./mta.conf".into()),
        ("mta", "mta", "mta.conf".into()),
        ("mta", "mta/root", "../mta.conf".into()),
        ("mta", "/", format!(".{w}/mta/mta.conf")),
        ("mta", w, "linked/mta.conf".into()),
        ("plain", "mta", "plain".into()),
    ] {
        let command = |command: &str| format!("cd {directory} && {command} {path}");
        boots(
            &world,
            name,
            &command("overlay-boot"),
            &command("overlay-stop"),
        );
        boots(
            &world,
            name,
            &command("overlay-boot"),
            &format!("cd /; overlay-stop {name}"),
        );
        world.assert_same(&before);
    }
    // A link elsewhere has another name, and a BASE=. of its own.
    world
        .run("overlay-boot elsewhere/link.conf")
        .fails(1, &["link", "UPPER", "elsewhere/root", "does not exist"]);
    world.assert_same(&before);
}

#[test]
fn hazard_33_blanks_commas_and_colons_in_paths() {
    let world = World::new();
    let before = world.snapshot();
    for directory in [
        "a blank",
        "a,comma",
        "a:colon",
        "a'quote",
        "a\"quote",
        "back\\slash",
        "star*",
        "dollar$HOME",
        "umlaut-ü",
        "new  blanks ",
    ] {
        world.script(
            format!("{directory}/hook"),
            "echo hook >>log2; ob-mount --furnish \"$LIVE\"",
        );
        world.ok(&format!(
            "mkdir -p {0}/live {0}/root {0}/work",
            quote(directory)
        ));
        world.write(
            format!("{directory}/odd.conf"),
            "BASE=.\nLOWER=../busybox\nSTART=none\nLOG=log\nPOSTMOUNT=./hook\n",
        );
        let conf = quote(&format!("{directory}/odd.conf"));
        boots(
            &world,
            "odd",
            &format!("overlay-boot {conf}"),
            &format!("overlay-stop {conf}"),
        );
        assert!(
            world.has(format!("{directory}/root/root/was-here")),
            "{directory}"
        );
        assert_eq!(world.read(format!("{directory}/log2")), "hook\n");
        world.assert_same(&before);
        world.ok("rm log"); // relative to the caller's directory
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn hazard_7_name_is_what_it_says_and_not_the_files() {
    let world = World::new();
    let conf = world.subhost("file", "NAME=other");
    world.ok(&format!("overlay-boot {conf}"));
    assert!(
        world.has("/run/netns/other")
            && !world.has("/run/netns/file")
            && world.has("/tmp/overlay-other.log")
    );
    assert_eq!(
        world.ok("overlay-go other true && cd / && overlay-stop other && ls /run/netns"),
        ""
    );
    boots(
        &world,
        "other",
        &format!("overlay-boot {conf}"),
        &format!("overlay-stop {conf}"),
    );
}

#[test]
fn hazard_3_two_files_of_one_name_are_two_subhosts_if_they_say_so_and_never_mixed_up() {
    let world = World::new();
    for directory in ["A", "B"] {
        world.ok(&format!(
            "mkdir -p {directory}/live {directory}/root {directory}/work"
        ));
        world.write(
            format!("{directory}/web.conf"),
            "BASE=.\nLOWER=../busybox\nSTART=none\n",
        );
    }
    world.ok("overlay-boot A/web.conf");
    let running = world.snapshot_of_idle("web");
    world
        .run("overlay-boot B/web.conf")
        .fails(1, &["web: it runs already", "A/web.conf"]);
    world
        .run("overlay-stop B/web.conf")
        .fails(1, &["web", "A/web.conf"]);
    world.assert_same(&running);
    assert_eq!(world.inside("web", "echo lives"), "lives");
    world.ok("overlay-stop A/web.conf");
}

#[test]
fn hazard_1_values_are_text_and_never_run() {
    let world = World::new();
    world.ok("mkdir -p '$(touch made)' ");
    let conf = world.subhost("mta", "MINE=$(touch made) `touch made`; touch made '\nPREMOUNT=./pre $(touch made) `touch made` ; touch made ' \"\nLOG=$(touch made)/it's.log\nINIT=./init");
    world.script("mta/pre", "printf '<%s>' \"$@\" >args");
    world.script("mta/init", "ob-unshare --init");
    boots(
        &world,
        "mta",
        &format!("overlay-boot {conf}"),
        &format!("overlay-stop {conf}"),
    );
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
fn commands_are_run_once_each_and_where_the_manual_says() {
    let world = World::new();
    world.script(
        "mta/value",
        "echo \"$1 $ACTION $(pwd) $CONFIG\" >>$W/calls; echo \"  $2  \"; echo more; exit 1",
    );
    let conf = world.subhost(
        "mta",
        "NAME=!./value NAME named\nLOG=!./value LOG /tmp/x.log\nSTART=!./value START none\nRAM_SIZE=! ./value RAM_SIZE 3M\nCABLES=!./value CABLES =\nSTOP_TIMEOUT=!./value STOP 4",
    );
    world.ok(&format!("overlay-boot {conf}"));
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
    assert!(!world.has("calls"), "the state knows all that a stop needs");
}

#[test]
fn ob_conf_prints_the_document_in_one_line() {
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
    // A failure of ob-conf's own is not to be taken for one of the command.
    world.write("bad.conf", "BASE=/nowhere\n");
    world
        .run("ob-conf bad.conf -- true")
        .fails(125, &["bad.conf:1", "/nowhere"]);
    assert_eq!(world.run("ob-conf bad.conf").status, 1);
}

#[test]
fn only_the_wanted_variables_are_evaluated() {
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
fn files_from_elsewhere_are_read() {
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
fn check_reports_every_problem_with_its_line_and_changes_nothing() {
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
fn every_tool_has_help_a_version_and_tells_the_nearest_option() {
    let world = World::new();
    for tool in [
        "ob-conf",
        "ob-mount",
        "ob-cable",
        "ob-unshare",
        "ob-enter",
        "ob-list",
        "ob-reaper",
        "overlay-boot",
        "overlay-stop",
        "overlay-go",
    ] {
        let help = world.ok(&format!("{tool} --help"));
        assert_eq!(help, world.ok(&format!("{tool} -h")));
        assert!(
            help.contains(tool) && help.contains("Example"),
            "{tool}: {help}"
        );
        assert!(
            world.ok(&format!("{tool} --version")).contains(' '),
            "{tool}"
        );
    }
    for (line, meant) in [
        ("ob-conf --chek x", "--check"),
        ("ob-mount --udno", "--undo"),
        ("ob-cable --udno", "--undo"),
        ("ob-unshare --rom x", "--room"),
    ] {
        world.run(line).fails(2, &["did you mean", meant]);
    }
    for line in [
        "ob-conf",
        "ob-conf --check",
        "ob-conf x --",
        "ob-unshare --room",
        "ob-unshare --then x",
        "ob-cable x",
        "ob-mount x",
        "overlay-boot",
        "overlay-boot --bogus",
        "overlay-stop",
        "overlay-stop --bogus",
    ] {
        let done = world.run(line);
        assert_eq!((done.status, done.err.lines().count()), (2, 1), "{done:#?}");
    }
}
