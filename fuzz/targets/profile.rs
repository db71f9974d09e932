#![no_main]

#[path = "../bodies/profile.rs"]
mod profile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| profile::holds(bytes));
