//! The inputs that the fuzzer kept, again: none makes a codec panic (`scripts/fuzz`).
#![allow(clippy::expect_used)] // a test

#[path = "../fuzz/src/targets.rs"]
mod targets;

#[path = "common/walk.rs"]
mod walk;

use std::fs;
use std::path::{Path, PathBuf};

/// Files of `src/formats` without a target of their own, and the target that reads their values; "" for a
/// format that is only written.
const READ_ELSEWHERE: [(&str, &str); 9] = [
    ("bank", "pcrs"),
    ("family", "cmdline"),
    ("lease", "handoff"),
    ("mac", "cmdline"),
    ("pcr", "pcrs"),
    ("receipt", ""),
    ("recipe", "handoff"),
    ("tpm_policy", "cmdline"),
    ("version", "handoff"),
];

/// The names of the files in `src/formats`.
fn formats() -> Vec<String> {
    let files = walk::files("src/formats", "rs").into_iter();
    let name = |path: PathBuf| path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
    files.map(name).filter(|name| name != "mod").collect()
}

/// Every codec is fuzzed: each file of `src/formats` has a target of its name, or a row that names one.
#[test]
fn targets_of_formats() {
    let files = formats();
    assert!(files.len() > 20, "the sources were not found");
    let is_target = |name: &str| targets::TARGETS.iter().any(|(known, _)| *known == name);

    for file in &files {
        let elsewhere = READ_ELSEWHERE.iter().find(|(name, _)| name == file);
        let is_read = elsewhere.is_some_and(|(_, target)| target.is_empty() || is_target(target));
        assert!(
            is_target(file) != is_read,
            "formats/{file}.rs needs a target in fuzz/src/targets.rs, or a row in READ_ELSEWHERE"
        );
    }
    for (file, _) in READ_ELSEWHERE {
        assert!(files.iter().any(|name| name == file), "there is no formats/{file}.rs any more");
    }
}

/// No input that the fuzzer kept makes a codec panic.
#[test]
fn corpora() {
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
