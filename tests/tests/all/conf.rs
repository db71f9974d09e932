//! ob-conf: how a configuration is read and checked.

use end_to_end::World;

#[test]
fn hazard_01_values_are_not_run() {
    let world = World::new();
    let conf = world.subhost(
        "mta",
        "MINE=`touch made`'; touch made; '\nLOG=it's $(touch made).log",
    );
    world.ok(&format!(
        "overlay-boot {conf} && overlay-stop {conf} && ob-conf --check {conf}; ob-conf --env {conf}"
    ));
    assert!(world.has("it's $(touch made).log"));
    assert!(!world.has("made") && !world.has("mta/made"));
}
