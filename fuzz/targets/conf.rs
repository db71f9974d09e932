#![no_main]

#[path = "../bodies/conf.rs"]
mod conf;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conf::holds(bytes));
