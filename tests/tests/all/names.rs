//! Names of subhosts: which subhost a name or a file denotes, and which names and directories are
//! refused while a subhost runs.

use end_to_end::{World, booted, until};

#[test]
fn hazard_03_files_of_the_same_name_are_not_confused() {
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
    assert!(world.has("/run/netns/web"));
    assert_eq!(world.inside("web", "echo lives"), "lives");
    world.ok("overlay-stop A/web.conf");
}

#[test]
fn hazard_04_names_are_not_patterns() {
    let world = World::new();
    let conf = world.subhost("axd", "");
    world.boot(&conf);
    world.run("overlay-stop a.d").fails(1, &["a.d"]);
    world.run("overlay-go a.. true").fails(125, &["a.."]);
    assert_eq!(world.ok("overlay-go axd echo lives"), "lives");
}

#[test]
fn hazard_05_command_lines_of_processes_are_not_trusted() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    // A process tree that resembles a booting shell.
    let look_alike = format!("sh -c 'sh -c \"sleep 1000; :\"; : overlay-boot {conf}'");
    let mut other = world.line(&look_alike).start();
    until("the grandchild of the look-alike", || {
        world
            .processes()
            .iter()
            .any(|process| process.starts_with("sleep: sleep 1000"))
    });
    world
        .run("overlay-stop mta")
        .fails(1, &["mta: not running"]);
    world.boot(&conf);
    assert_eq!(world.ok("overlay-go mta echo inside"), "inside");
    world.ok("overlay-stop mta");
    assert!(!world.has("/run/netns/mta"));
    assert!(other.is_running());
}

#[test]
fn hazard_06_name_live_or_upper_in_use_is_refused() {
    let (world, conf) = booted("CABLES==");
    let before = world.snapshot_of_idle("mta");
    let pid = world.document("mta")["pid"].to_string();
    let namesake = world.subhost("namesake", "NAME=mta");
    let live = world.subhost("live", "LIVE=../mta/live");
    let upper = world.subhost("upper", "UPPER=../mta/root\nWORK=../mta/work");
    let bound = world.subhost("bound", "UPPER=../mta/root\nLOWER=../mta/root");
    world.ok("ln -s mta/root elsewhere");
    let link = world.subhost("link", "UPPER=../elsewhere\nWORK=../mta/work");
    for other in [&conf, &namesake] {
        let pid = format!("pid {pid}");
        let refused = world.run(&format!("overlay-boot {other}"));
        refused.fails(1, &["mta: it runs already", &pid, &conf]);
    }
    for (other, variable) in [
        (live, "LIVE="),
        (upper, "UPPER="),
        (bound, "UPPER="),
        (link, "UPPER="),
    ] {
        let refused = world.run(&format!("overlay-boot {other}"));
        refused.fails(1, &[variable, "is in use by the subhost mta"]);
    }
    world.assert_same(&before);
    assert_eq!(world.ok("overlay-go mta echo lives"), "lives");
    world.ok("overlay-stop mta");
    world.boot(&namesake);
    // A subhost is not stopped by the configuration of another with the same name.
    world
        .run(&format!("overlay-stop {conf}"))
        .fails(1, &["mta", &namesake]);
    world.ok(&format!("overlay-stop {namesake}"));
}

#[test]
fn similar_names_are_different_subhosts() {
    let world = World::new();
    let before = world.snapshot();
    let confs = [
        ("one", "one/web.conf", "NAME=web-one"),
        ("two", "two/web.conf", "NAME=web-two"),
        ("dots", "dots/a.d", ""),
        ("letters", "letters/axd", ""),
        ("suffix", "suffix/a.conf.old", ""),
        ("plain", "plain/mta", ""),
        ("unlike", "unlike/mta.conf", "NAME=other"),
        ("plus", "plus/c+.conf", "NAME=c+"),
    ];
    let mut expected = Vec::new();
    for (directory, path, more) in confs {
        let conf = world.subhost(directory, more);
        let path = format!("{}/{path}", world.directory());
        world.ok(&format!("[ -e {path} ] || mv {conf} {path}"));
        let name = match more.strip_prefix("NAME=") {
            Some(name) => name.to_owned(),
            None => world.ok(&format!(
                "ob-conf --env {path} NAME | cut -d= -f2 | tr -d \\'"
            )),
        };
        world.boot(&path);
        expected.push((name, path));
    }
    // A process that only mentions subhosts in its command line is not a subhost.
    let talk =
        "echo $$ >/run/talk; sh -c 'sleep 100000; : overlay-boot dots/a.d /plain/mta one/web.conf'";
    let _talk = world.line(talk).start();
    until("the process that mentions subhosts", || {
        world.has("/run/talk")
    });
    let mut running: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    running.sort_unstable();
    assert_eq!(
        world.names().split_whitespace().collect::<Vec<_>>(),
        running
    );
    world
        .run("overlay-go a.. true")
        .fails(125, &["a..", "not running"]);
    while let Some((name, path)) = expected.pop() {
        world.ok(&format!("overlay-go {name} true"));
        // By name, or by file, also by a relative path.
        match expected.len() % 3 {
            0 => world.ok(&format!("overlay-stop {name}")),
            1 => world.ok(&format!("overlay-stop {path}")),
            _ => world.ok(&format!(
                "cd $(dirname {path}); overlay-stop ./$(basename {path})"
            )),
        };
        for (name, _) in &expected {
            assert_eq!(
                world.run(&format!("overlay-go {name} true")).status,
                0,
                "{name}"
            );
        }
        assert_eq!(world.names().split_whitespace().count(), expected.len());
    }
    world.ok("pkill -9 -P $(cat /run/talk); pkill -9 -x sleep; rm /run/talk");
    world.until_same(&before);
}

#[test]
fn hazard_07_subhost_is_found_by_its_name_or_its_file() {
    let world = World::new();
    let conf = world.subhost("file", "NAME=other");
    world.boot(&conf);
    assert!(
        world.has("/run/netns/other")
            && !world.has("/run/netns/file")
            && world.has("/tmp/overlay-other.log")
    );
    assert_eq!(
        world.ok("overlay-go other true && cd / && overlay-stop other && ls /run/netns"),
        ""
    );
    world.boot_and_stop(
        "other",
        &format!("overlay-boot {conf}"),
        &format!("overlay-stop {conf}"),
    );
    // The file needs no suffix.
    let before = world.snapshot();
    world.ok("mv file/file.conf file/plain; cd file; overlay-boot plain; overlay-go other true; overlay-stop plain");
    world.ok("cd file; overlay-boot plain; cd /; overlay-stop other");
    world.assert_same(&before);
}
