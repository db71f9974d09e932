//! The guard between the first and the second stage: the configuration is read once, and the guard
//! takes the lock before any stage creates an object.

use end_to_end::World;

#[test]
fn configuration_from_fifo_boots() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok(&format!(
        "mkfifo mta/pipe.conf && {{ cat {conf} >mta/pipe.conf & }} && overlay-boot mta/pipe.conf"
    ));
    assert_eq!(world.ok("overlay-list -n"), "pipe");
    world.ok("overlay-stop pipe");
}

#[test]
fn name_command_runs_once_per_boot() {
    let world = World::new();
    world.script("name", "echo run >>\"$W/runs\"; echo mta");
    let conf = world.subhost("mta", &format!("NAME=!{}/name", world.directory()));
    world.ok(&format!("overlay-boot {conf} && overlay-list mta"));
    assert_eq!(world.read("runs"), "run\n");
    world.ok("overlay-stop mta");
}

#[test]
fn running_subhost_keeps_log_of_first_boot() {
    let world = World::new();
    let conf = world.subhost("mta", "LOG=mta.log");
    world.ok(&format!("overlay-boot {conf}"));
    let log = world.read("mta.log");
    let done = world.run(&format!("overlay-boot {conf}"));
    done.fails(1, &["mta: it runs already, as pid ", &conf]);
    assert_eq!(world.read("mta.log"), log);
    world.ok("overlay-stop mta");
}

#[test]
fn refused_configuration_leaves_log_alone() {
    let world = World::new();
    let conf = world.subhost("mta", "LOG=mta.log\nCABLES=nothing");
    world.write("mta.log", "before\n");
    let done = world.run(&format!("overlay-boot {conf}"));
    done.fails(1, &["'nothing' is no cable"]);
    assert_eq!(world.read("mta.log"), "before\n");
}

#[test]
fn netns_made_before_boot_is_used() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    world.ok("ip netns add mta && ip -n mta link add mark type bridge");
    let names = world.ok("grep ' /run/netns/' /proc/self/mounts");
    world.ok(&format!("overlay-boot {conf}"));
    let links = world.ok("overlay-go mta ls /sys/class/net");
    assert!(links.contains("mark"), "{links}");
    assert_eq!(world.ok("grep ' /run/netns/' /proc/self/mounts"), names);
    world.ok("overlay-stop mta");
}

#[test]
fn term_ends_boot_whose_name_command_hangs() {
    let world = World::new();
    let conf = world.subhost("mta", "NAME=!sleep 1000");
    let before = world.snapshot();
    let done = world.run(&format!("timeout -k 60 1 overlay-boot {conf}"));
    done.fails(124, &["a signal ended it while it was starting"]);
    world.assert_same(&before);
}
