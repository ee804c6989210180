//! The files of the package, for tests over its sources and pages.

use std::fs;
use std::path::{Path, PathBuf};

/// All files below `dir` of the package with this ending.
pub fn files(dir: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), ending, &mut found);
    found
}

fn collect(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of the package") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
}
