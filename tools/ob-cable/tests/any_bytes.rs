//! Checks the properties that fuzz/ checks for longer: the parser accepts any bytes.

#[path = "../../../fuzz/bodies/netlink.rs"]
mod netlink;
#[path = "../../../fuzz/bodies/seeds.rs"]
mod seeds;

use ob_cable::netlink::messages;
use proptest::prelude::*;

#[test]
fn netlink_reader_holds_on_recorded_messages() {
    for seed in seeds::of("netlink") {
        netlink::holds(&seed);
        assert!(messages(&seed).count() > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn netlink_reader_holds_near_recorded_messages(bytes in seeds::near("netlink")) {
        netlink::holds(&bytes);
    }
}
