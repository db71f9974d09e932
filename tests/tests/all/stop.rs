//! overlay-stop: how running and starting subhosts are stopped.

use end_to_end::{World, until};

#[test]
fn hazard_31_stop_ends_a_boot_that_is_under_way() {
    let world = World::new();
    world.script("mta/pre", "touch begun; exec sleep 1000");
    let conf = world.subhost("mta", "PREMOUNT=./pre\nCABLES==");
    let before = world.snapshot();
    let boot = world.line(&format!("overlay-boot {conf}")).start();
    until("the hook", || world.has("mta/begun"));
    world.ok("overlay-stop mta");
    let boot = boot.wait();
    assert!(boot.status != 0, "{boot:#?}");
    world.until_same(&before);

    // So does whoever ends overlay-boot itself meanwhile.
    for (option, signal) in [("", "INT"), ("-f", "TERM"), ("", "HUP")] {
        world.ok("rm mta/begun");
        let line = format!(
            "trap : INT; overlay-boot {option} {conf} & boot=$!; until [ -e mta/begun ]; do sleep 0.02; done; kill -{signal} $boot; wait $boot"
        );
        let done = world.run(&line);
        assert!(
            done.status == 1 && done.err.contains("told to end"),
            "{done:#?}"
        );
        world.until_same(&before);
    }
}
