//! tests/stage-check: the test of a program that claims to be a stage.

use crate::pages::blocks;
use end_to_end::World;

/// Returns a world with stage-check on PATH.
fn world() -> World {
    let world = World::new();
    world.ok("mkdir bin");
    world.write("bin/stage-check", include_str!("../../stage-check"));
    world.ok("chmod +x bin/stage-check");
    world
}

/// Runs stage-check on `stage`; `before` prints the document.
fn check(world: &World, before: &str, stage: &str) -> String {
    let line = format!("PATH=$PATH:$W/bin; {before} >input; stage-check {stage} <input");
    let done = world.run(&line);
    assert_eq!(done.status == 0, done.out.is_empty(), "{done:#?}");
    done.out
}

#[test]
fn stages_of_the_project_pass_stage_check() {
    let world = world();
    let conf = world.subhost("mta", "CABLES==");
    let conf = format!("ob-conf {conf}");
    assert_eq!(check(&world, &conf, "ob-conf - net=/proc/self/ns/net"), "");
    assert_eq!(check(&world, &conf, "ob-mount"), "");
    assert_eq!(check(&world, &conf, "ob-cable"), "");
    let made = format!("{conf} | ob-mount | ob-cable");
    assert_eq!(check(&world, &made, "ob-unshare"), "");
    world.ok("ob-cable --undo <input | ob-mount --undo");
}

#[test]
fn stage_recipes_of_the_pages_pass_stage_check() {
    let world = world();
    let conf = world.subhost("mta", "");
    // Neither macvlan nor btrfs is in every kernel: the link is a veth, the snapshot is not made.
    world.script("bin/btrfs", ":");
    world.script(
        "bin/ip",
        "case \"$*\" in *macvlan*) set -- link add eth0 netns mta type veth peer name eno9 netns mta ;; esac\n\
         PATH=${PATH#*:} exec ip \"$@\"",
    );
    let pages = [
        include_str!("../../../man/ob.7"),
        include_str!("../../../man/ob-document.5"),
    ];
    let mut names = Vec::new();
    for block in pages.into_iter().flat_map(blocks) {
        let Some(name) = block.lines[1..]
            .first()
            .filter(|_| block.lines[0] == "#!/bin/sh")
        else {
            continue;
        };
        let Some(name) = name
            .strip_prefix("# ")
            .and_then(|line| line.split(' ').next())
        else {
            continue;
        };
        if name == "run" {
            continue; // a run script for runsv
        }
        world.script(format!("recipes/{name}"), &block.lines[1..].join("\n"));
        let before = format!("PATH=$W/bin:$PATH; ob-conf {conf}");
        let stage = format!("$W/recipes/{name} eno1");
        assert_eq!(check(&world, &before, &stage), "", "{name}");
        names.push(name.to_owned());
    }
    assert_eq!(names, ["my-macvlan", "my-snapshot", "my-netns"]);
}

#[test]
fn stage_check_reports_each_fault() {
    let world = world();
    let conf = format!("ob-conf {}", world.subhost("mta", ""));
    for (text, fault) in [
        ("cat", "exit with 1 on empty input"),
        (
            "read -r d || exit 1; ob-conf - a=1 <<E\n$d\nE\necho",
            "print one line",
        ),
        ("ob-conf - a=1 | ob-conf - NAME zz", "keep the keys"),
        (
            "read -r d || exit 1; echo \"$d\"",
            "exit with 1 on input that is no document",
        ),
        (
            "[ \"$1\" ] || exec ob-conf - a=1; exec cat",
            "remove its facts",
        ),
        (
            "[ \"$1\" ] || { ob-conf - a=1; ip netns add x; exit; }; ob-conf --undo - a=",
            "leave nothing",
        ),
        (
            "[ \"$1\" ] || { ip netns add x; ob-conf - a=1; exit; }; ip netns del x; ob-conf --undo - a=",
            "undo its changes if",
        ),
        (
            "[ \"$1\" ] || { ob-conf - a=1; exit; }; exit 3",
            "undo a first time without an error, not 3",
        ),
        (
            "case $1 in --help) echo x ;; --undo) ob-conf --undo - a= ;; *) ob-conf - a=1; esac",
            "exit with 2 for an unknown option",
        ),
    ] {
        world.script("bad", text);
        let faults = check(&world, &conf, "./bad");
        world.run("ip netns del x");
        assert!(faults.contains(fault), "{text}: {fault} is not in {faults}");
    }
}
