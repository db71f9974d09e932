//! Link arguments for a program without the standard library, which otherwise names the C library.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let features = var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let fixed = features.split(',').any(|feature| feature == "crt-static");
    let glibc = var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu");

    let libraries: &[&str] = match (fixed, glibc) {
        // libc.a of glibc and libgcc_eh.a refer to each other: the linker must search both again.
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
    // Code and read-only data share pages: two half-empty pages less in each pid 1.
    for argument in libraries.iter().chain(&["-Wl,-z,noseparate-code"]) {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
