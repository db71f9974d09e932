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
