//! How to link a program that has no standard library: the C library is then ours to ask for.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let features = var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let fixed = features.split(',').any(|feature| feature == "crt-static");
    let glibc = var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu");

    let libraries: &[&str] = match (fixed, glibc) {
        // glibc's archive and the unwinder of gcc need each other, whoever comes first.
        (true, true) => &[
            "-Wl,-Bstatic",
            "-Wl,--start-group",
            "-lc",
            "-lgcc",
            "-lgcc_eh",
            "-Wl,--end-group",
        ],
        (true, false) => &["-Wl,-Bstatic", "-lc"],
        (false, _) => &["-lc"],
    };
    // Code and constants share their pages, which would be half empty otherwise.
    for argument in libraries.iter().chain(&["-Wl,-z,noseparate-code"]) {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
