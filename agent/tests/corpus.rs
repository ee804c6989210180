//! What the fuzzer found worth keeping, again: no input makes a codec panic (`scripts/fuzz`).
#![allow(clippy::expect_used)] // a test

#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn every_codec_endures_its_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let corpus = fs::read_dir(corpora.join(name)).expect("each codec has a corpus");
        let inputs: Vec<_> = corpus.flatten().map(|entry| entry.path()).collect();
        assert!(!inputs.is_empty(), "the corpus of {name} is empty");
        for input in inputs {
            target(&fs::read(&input).expect("reading an input"));
        }
    }
}
