#![no_main]

#[path = "../bodies/netlink.rs"]
mod netlink;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netlink::holds(bytes));
