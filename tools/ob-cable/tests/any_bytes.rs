//! What fuzz/ looks for at length, in small: whatever the bytes are, it holds.

#[path = "../../../fuzz/bodies/netlink.rs"]
mod netlink;
#[path = "../../../fuzz/bodies/seeds.rs"]
mod seeds;

use ob_cable::netlink::messages;
use proptest::prelude::*;

#[test]
fn it_holds_for_what_the_kernel_has_sent() {
    for seed in seeds::of("netlink") {
        netlink::holds(&seed);
        assert!(messages(&seed).count() > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn it_holds_near_it(bytes in seeds::near("netlink")) {
        netlink::holds(&bytes);
    }
}
