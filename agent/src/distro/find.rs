//! Files of a medium, by pattern.

use crate::base::glob;
use crate::distro::DistroError;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The files and directories that match `pattern`, relative to `dir` and sorted. Each component of the
/// pattern is compared with the names of one directory.
pub(super) fn find(dir: &Path, pattern: &str) -> Result<Vec<PathBuf>, DistroError> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.split('/') {
        let mut deeper = Vec::new();
        for parent in found {
            deeper.extend(list(dir, &parent)?.into_iter().filter(|path| name_matches(path, component)));
        }
        found = deeper;
    }
    found.sort();
    Ok(found)
}

/// The first match of the first of `patterns` that has one.
pub(super) fn find_first(dir: &Path, patterns: &[&str]) -> Result<Option<PathBuf>, DistroError> {
    for pattern in patterns {
        if let Some(path) = find(dir, pattern)?.into_iter().next() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn name_matches(path: &Path, pattern: &str) -> bool {
    path.file_name().is_some_and(|name| glob::matches(pattern, &name.to_string_lossy()))
}

/// The entries of the directory `parent`, relative to `dir`. A path that is no directory has none.
fn list(dir: &Path, parent: &Path) -> Result<Vec<PathBuf>, DistroError> {
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

/// True if there is no such file. A server that went away gives other errors, and must not be reported as
/// a file that the image lacks.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The names in the medium's root, for an error message.
pub(super) fn list_root(dir: &Path) -> String {
    let mut names: Vec<String> =
        list(dir, Path::new("")).unwrap_or_default().iter().map(|path| path.display().to_string()).collect();
    names.sort();
    if names.is_empty() { "nothing".into() } else { names.join(" ") }
}
