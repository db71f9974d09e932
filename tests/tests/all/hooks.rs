//! Hooks, and INIT scripts.

use end_to_end::World;

#[test]
fn hazard_08_hooks_read_the_configuration_that_was_given_by_a_relative_path() {
    let world = World::new();
    world.script("mta/pre", "grep MINE \"$CONFIG\" >seen");
    world.subhost("mta", "PREMOUNT=./pre\nMINE=yes");
    world.ok("mkdir -p a/b; cd a/b; overlay-boot ../../mta/mta.conf");
    assert_eq!(world.read("mta/seen"), "MINE=yes\n");
}

#[test]
fn hazard_26_postmounts_first_argument_is_live() {
    let world = World::new();
    world.script("mta/post", "echo \"$*\" >args; ob-mount --furnish \"$1\"");
    let conf = world.subhost("mta", "POSTMOUNT=./post word");
    world.boot(&conf);
    let w = world.directory();
    assert_eq!(
        world.read("mta/args"),
        format!("word {w}/mta/live {w}/mta/root\n")
    );
}
