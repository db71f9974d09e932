//! Names of subhosts: which subhost a name or a file stands for, and what is refused while one runs.

use end_to_end::{World, booted, until};

#[test]
fn hazard_03_stop_takes_no_other_subhost_whose_file_has_the_same_name() {
    let world = World::new();
    for directory in ["A", "B"] {
        world.ok(&format!("cd {} && mkdir -p {directory}/live {directory}/root {directory}/work && printf 'BASE=.\nLOWER=../busybox\nSTART=none\n' >{directory}/web.conf", world.directory()));
    }
    world.ok("overlay-boot A/web.conf");
    world
        .run("overlay-stop B/web.conf")
        .fails(1, &["web", "A/web.conf"]);
    assert!(world.has("/run/netns/web"));
    assert_eq!(world.inside("web", "echo lives"), "lives");
}

#[test]
fn hazard_04_names_are_no_patterns() {
    let world = World::new();
    let conf = world.subhost("axd", "");
    world.boot(&conf);
    world.run("overlay-stop a.d").fails(1, &["a.d"]);
    world.run("overlay-go a.. true").fails(125, &["a.."]);
    assert_eq!(world.ok("overlay-go axd echo lives"), "lives");
}

#[test]
fn hazard_05_running_is_not_read_from_the_command_lines_of_all_processes() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    // One that looks like a booting shell, with child and grandchild.
    let look_alike = format!("sh -c 'sh -c \"sleep 1000; :\"; : overlay-boot {conf}'");
    let mut other = world.line(&look_alike).start();
    until("the grandchild", || {
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
fn hazard_06_what_runs_is_not_booted_again_and_upper_not_shared() {
    let (world, conf) = booted("");
    let running = world.snapshot();
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["mta", "runs already"]);
    world.conf(
        "other",
        "BASE=.\nLOWER=../busybox\nSTART=none\nUPPER=../mta/root\nWORK=../mta/work",
    );
    world
        .run("overlay-boot other/other.conf")
        .fails(1, &["UPPER", "in use by the subhost mta"]);
    world.assert_same(&running);
    world.ok("overlay-go mta true && overlay-stop mta");
}

#[test]
fn hazard_07_any_name_and_suffix_can_be_stopped_and_entered() {
    let world = World::new();
    let before = world.snapshot();
    world.subhost("mta", "NAME=other");
    world.ok("mv mta/mta.conf mta/plain; cd mta; overlay-boot plain; overlay-go other true; overlay-stop plain");
    world.ok("cd mta; overlay-boot plain; cd /; overlay-stop other");
    world.assert_same(&before);
}

#[test]
fn hazard_6_a_second_boot_is_refused_and_names_the_one_that_runs() {
    let (world, conf) = booted("");
    let pid = world.document("mta")["pid"].to_string();
    let before = world.snapshot_of_idle("mta");
    let again = world.run(&format!("overlay-boot {conf}"));
    again.fails(1, &["mta", "it runs already", &format!("pid {pid}"), &conf]);
    world.assert_same(&before);
}

#[test]
fn another_conf_with_its_name_live_or_upper_is_refused_and_told_whose_it_is() {
    let (world, conf) = booted("");
    let before = world.snapshot_of_idle("mta");
    let namesake = world.subhost("namesake", "NAME=mta");
    let live = world.subhost("live", "LIVE=../mta/live");
    let upper = world.subhost("upper", "UPPER=../mta/root\nWORK=../mta/work");
    let bound = world.subhost("bound", "UPPER=../mta/root\nLOWER=../mta/root");
    world.ok("ln -s mta/root elsewhere");
    let link = world.subhost("link", "UPPER=../elsewhere\nWORK=../mta/work");
    let refused = world.run(&format!("overlay-boot {namesake}"));
    refused.fails(1, &["mta", "it runs already", &conf]);
    for (conf, variable) in [
        (live, "LIVE"),
        (upper, "UPPER"),
        (bound, "UPPER"),
        (link, "UPPER"),
    ] {
        let refused = world.run(&format!("overlay-boot {conf}"));
        refused.fails(1, &[variable, "mta"]);
    }
    world.assert_same(&before);
    world.ok("overlay-stop mta");
    world.boot(&namesake);
    // The conf that it was not started from is another's.
    world
        .run(&format!("overlay-stop {conf}"))
        .fails(1, &["mta", &namesake]);
    world.ok(&format!("overlay-stop {namesake}"));
}

#[test]
fn hazards_3_to_7_what_is_called_nearly_the_same_is_another() {
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
    // What only speaks of a subhost is none, and hides none.
    let talk =
        "echo $$ >/run/talk; sh -c 'sleep 100000; : overlay-boot dots/a.d /plain/mta one/web.conf'";
    let _talk = world.line(talk).start();
    until("it to be told", || world.has("/run/talk"));
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
        // By name or by conf, also one that is given without a slash.
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
fn hazard_7_name_is_what_it_says_and_not_the_files() {
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
