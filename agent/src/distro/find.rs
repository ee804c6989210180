//! Files of a medium by pattern.

use crate::base::glob;
use crate::distro::DistroError;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The files that a pattern finds, relative to `dir` and sorted. Each part of it may have `*` and
/// its like.
pub(super) fn find(dir: &Path, pattern: &str) -> Result<Vec<PathBuf>, DistroError> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.split('/') {
        let mut deeper = Vec::new();
        for parent in found {
            deeper.extend(entries(dir, &parent)?.into_iter().filter(|path| is(path, part)));
        }
        found = deeper;
    }
    found.sort();
    Ok(found)
}

/// The first file that one of `patterns` finds.
pub(super) fn first(dir: &Path, patterns: &[&str]) -> Result<Option<PathBuf>, DistroError> {
    for pattern in patterns {
        if let Some(path) = find(dir, pattern)?.into_iter().next() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn is(path: &Path, pattern: &str) -> bool {
    path.file_name().is_some_and(|name| glob::matches(pattern, &name.to_string_lossy()))
}

fn entries(dir: &Path, parent: &Path) -> Result<Vec<PathBuf>, DistroError> {
    let unreadable = |error| DistroError::Unreadable { path: format!("/{}", parent.display()), error };
    match fs::read_dir(dir.join(parent)) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| parent.join(entry.file_name())))
            .collect::<Result<_, _>>()
            .map_err(unreadable),
        Err(error) if is_absence(&error) => Ok(Vec::new()),
        Err(error) => Err(unreadable(error)),
    }
}

/// A server that went away gives other errors, and must not be told as a hole in the image.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The names in the medium's root, for an error message.
pub(super) fn listing(dir: &Path) -> String {
    let mut names: Vec<String> = entries(dir, Path::new(""))
        .unwrap_or_default()
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.sort();
    if names.is_empty() { "nothing".into() } else { names.join(" ") }
}
