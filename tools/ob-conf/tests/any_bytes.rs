//! The properties that fuzz/ tests, with few inputs.

#[path = "../../../fuzz/bodies/conf.rs"]
mod conf;
#[path = "../../../fuzz/bodies/document.rs"]
mod document;
#[path = "../../../fuzz/bodies/profile.rs"]
mod profile;
#[path = "../../../fuzz/bodies/seeds.rs"]
mod seeds;

use ob_document::{Document, VARIABLES};
use proptest::prelude::*;

#[test]
fn readers_hold_on_all_seeds() {
    seeds::of("conf").iter().for_each(|seed| conf::holds(seed));
    seeds::of("profile")
        .iter()
        .for_each(|seed| profile::holds(seed));
    for seed in seeds::of("document") {
        document::holds(&seed);
        Document::parse(std::str::from_utf8(&seed).unwrap()).unwrap();
    }
}

/// Returns lines that look like assignments, most of them with a known name and a valid value.
fn lines() -> impl Strategy<Value = String> {
    let known: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
    let name = prop_oneof![
        9 => prop::sample::select(known),
        1 => Just("X"),
        1 => Just("# "),
        1 => Just(""),
    ];
    let value = prop_oneof![
        "\\PC{0,12}",
        "[a-z0-9/=:.,% ]{0,12}",
        "[\\\\\t\r\"'$! -~]{0,12}"
    ];
    let line = (prop_oneof![9 => Just(""), 1 => Just(" ")], name, value);
    let line = line.prop_map(|(before, name, value)| format!("{before}{name}={value}\n"));
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn configuration_reader_holds_near_the_seeds(bytes in seeds::near("conf")) {
        conf::holds(&bytes);
    }

    #[test]
    fn configuration_reader_holds_on_odd_assignments(text in lines()) {
        conf::holds(text.as_bytes());
    }

    #[test]
    fn document_reader_holds_near_the_seeds(bytes in seeds::near("document")) {
        document::holds(&bytes);
    }

    #[test]
    fn profile_reader_holds_near_the_seeds(bytes in seeds::near("profile")) {
        profile::holds(&bytes);
    }
}
