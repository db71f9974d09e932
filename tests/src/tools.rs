//! Where the tools and the scripts are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The directory of the tools: `OB_BIN`, or where `make` puts them, which is run once.
pub fn bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| match std::env::var_os("OB_BIN") {
        Some(directory) => PathBuf::from(directory),
        None => make_all(),
    })
}

/// The directory of the scripts: `OB_SCRIPTS`, or the source tree's.
pub fn scripts() -> &'static Path {
    static SCRIPTS: OnceLock<PathBuf> = OnceLock::new();
    SCRIPTS.get_or_init(|| match std::env::var_os("OB_SCRIPTS") {
        Some(directory) => PathBuf::from(directory),
        None => source().join("scripts"),
    })
}

/// The program with the attacks: `OB_ATTACK`, or what `make attack` builds, static, which is run once.
pub fn attack() -> &'static Path {
    static ATTACK: OnceLock<PathBuf> = OnceLock::new();
    ATTACK.get_or_init(|| match std::env::var_os("OB_ATTACK") {
        Some(program) => PathBuf::from(program),
        None => source().join(make(&["-s", "attack"]).trim()),
    })
}

fn source() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ is in the source tree")
}

/// Builds what is shipped. Two at once, of two test programs, wait for each other by cargo's own lock.
fn make_all() -> PathBuf {
    make(&["-s"]);
    source().join(make(&["-s", "where"]).trim())
}

/// What make(1) says.
fn make(arguments: &[&str]) -> String {
    let output = Command::new("make")
        .args(arguments)
        .current_dir(source())
        .stderr(Stdio::inherit())
        .output()
        .expect("make is needed, or OB_BIN and OB_SCRIPTS");
    assert!(output.status.success(), "make {arguments:?} failed");
    String::from_utf8(output.stdout).expect("a path")
}
