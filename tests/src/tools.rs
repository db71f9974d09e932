//! Paths of the tools and the scripts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Returns the directory of the tools: `OB_BIN`, or the output of `make`, which runs once.
pub fn bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| match std::env::var_os("OB_BIN") {
        Some(directory) => PathBuf::from(directory),
        None => make_all(),
    })
}

/// Returns the directory of the scripts: `OB_SCRIPTS`, or `scripts` in the source tree.
pub fn scripts() -> &'static Path {
    static SCRIPTS: OnceLock<PathBuf> = OnceLock::new();
    SCRIPTS.get_or_init(|| match std::env::var_os("OB_SCRIPTS") {
        Some(directory) => PathBuf::from(directory),
        None => source().join("scripts"),
    })
}

/// Returns the path of the static program with the attacks: `OB_ATTACK`, or the output of `make
/// attack`, which runs once.
pub fn attack() -> &'static Path {
    static ATTACK: OnceLock<PathBuf> = OnceLock::new();
    ATTACK.get_or_init(|| match std::env::var_os("OB_ATTACK") {
        Some(program) => PathBuf::from(program),
        None => source().join(make(&["-s", "attack"]).trim()),
    })
}

fn source() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("a source tree above tests/")
}

/// Builds the tools. Cargo locks the target directory, so that two test programs do not build at
/// the same time.
fn make_all() -> PathBuf {
    make(&["-s"]);
    source().join(make(&["-s", "where"]).trim())
}

/// Runs make(1) and returns its output.
fn make(arguments: &[&str]) -> String {
    let output = Command::new("make")
        .args(arguments)
        .current_dir(source())
        .stderr(Stdio::inherit())
        .output()
        .expect("run make; without make, set OB_BIN and OB_SCRIPTS");
    assert!(output.status.success(), "make {arguments:?} failed");
    String::from_utf8(output.stdout).expect("a path")
}
