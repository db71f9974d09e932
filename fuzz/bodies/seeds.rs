//! The seeds of a target and their neighbours, for tests that do a little of the work of the
//! fuzzer.

use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;

/// Returns all seeds of `target`, which are real inputs.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let directory = format!("{}/../../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(directory).expect("read the directory of the seeds");
    let seeds: Vec<_> = files
        .map(|file| fs::read(file.expect("read an entry").path()).expect("read a seed"))
        .collect();
    assert!(!seeds.is_empty());
    seeds
}

/// Generates any bytes, or a seed with some bytes replaced, inserted or removed, or truncated.
pub fn near(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seed = prop::sample::select(of(target));
    let bytes = prop::collection::vec(any::<u8>(), 0..9);
    let edit = (any::<Index>(), 0..9_usize, bytes);
    let edits = prop::collection::vec(edit, 0..4);
    let near = (seed, edits, any::<Index>(), any::<bool>());
    let near = near.prop_map(|(mut bytes, edits, end, is_cut)| {
        for (place, length, with) in edits {
            let start = place.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, with);
        }
        if is_cut {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        bytes
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..200), 4 => near]
}
