//! A subhost boots, is entered and is stopped.

use end_to_end::World;

#[test]
fn ten_lives_in_a_row_leave_nothing() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES=br0=");
    world.ok("ip link add br0 type bridge && ip link set br0 up");
    let before = world.snapshot();
    for _ in 0..10 {
        world.ok(&format!("overlay-boot {conf}"));
        assert!(world.has("/run/netns/mta"));
        world.ok("overlay-stop mta");
        world.assert_same(&before);
    }
}
