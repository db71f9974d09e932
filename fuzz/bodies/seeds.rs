//! The seeds of a target, and what lies near them: for tests that look in small for what the fuzzer looks for.

use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;

/// All seeds of `target`, real inputs.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let directory = format!("{}/../../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(directory).expect("the seeds");
    let seeds: Vec<_> = files
        .map(|file| fs::read(file.expect("a seed").path()).expect("a seed"))
        .collect();
    assert!(!seeds.is_empty());
    seeds
}

/// Bytes of any kind, or a seed with some of its bytes replaced, put in, taken away, and its end cut.
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
