//! A kernel's module tree, pruned to the modules that `drivers.list` names and those that they need. Our own
//! initramfs takes them from a stock kernel, and an overlay from the target's.

use crate::base::glob;
use crate::formats::compression;
use crate::formats::depmod::{FILES, Index, name_of};
use anyhow::{Context, ensure};
use std::collections::{BTreeSet, HashMap};
use std::io;

/// The list that belongs to this release.
pub const LIST: &str = include_str!("drivers.list");

/// depmod's files that lose the lines of modules that are left out.
const TEXTS: [&str; 3] = ["modules.dep", "modules.alias", "modules.softdep"];

/// depmod's files that are kept whole: they are about built-in modules.
const BUILTIN: [&str; 2] = ["modules.builtin", "modules.builtin.modinfo"];

/// The files that `list` takes from a module tree, by name and contents. `read` reads a file of the tree.
/// Modules are unpacked, and their names lose the suffix of the packing.
pub fn pruned(
    list: &str,
    read: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let depmods: HashMap<&str, Vec<u8>> =
        FILES.into_iter().filter_map(|name| Some((name, read(name).ok()?))).collect();
    let depmod = |name: &str| depmods.get(name).cloned();
    let index = Index::parse(&depmod).context("there is no modules.dep: run depmod -b ROOT")?;
    let text = |name: &str| {
        String::from_utf8(depmod(name).unwrap_or_default()).with_context(|| format!("reading {name}"))
    };

    // The modules that the list takes, and those that they need.
    let dep = text("modules.dep")?;
    let paths: Vec<&str> = dep.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let wanted = take(&paths, list);
    ensure!(!wanted.is_empty(), "the list takes none of its {} modules", paths.len());
    let kept: BTreeSet<&str> = wanted.iter().flat_map(|path| index.load_order(&name_of(path))).collect();
    let names: BTreeSet<String> = kept.iter().map(|path| name_of(path)).collect();

    let mut files = Vec::new();
    for path in &kept {
        let bytes = read(path).with_context(|| format!("reading module {path}"))?;
        // The whole archive is packed once: smaller, and quicker to unpack than packed modules in it.
        let contents = compression::unpack(&bytes).with_context(|| format!("unpacking module {path}"))?;
        files.push((plain(path).to_owned(), contents));
    }

    // depmod's files, with the lines of those modules alone.
    for name in TEXTS {
        let text = text(name)?;
        let lines =
            text.lines().filter(|line| subject(name, line).is_some_and(|module| names.contains(&module)));
        let text: String = lines.map(|line| plain_line(line) + "\n").collect();
        files.push((name.to_owned(), text.into_bytes()));
    }
    for name in BUILTIN {
        files.push((name.to_owned(), depmod(name).unwrap_or_default()));
    }
    Ok(files)
}

/// The paths that the lines of `list` take: a pattern adds paths, and one after `!` takes them away again.
fn take<'a>(paths: &[&'a str], list: &str) -> BTreeSet<&'a str> {
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('!') {
            Some(pattern) => taken.retain(|path| !glob::matches(pattern, path)),
            None => taken.extend(paths.iter().copied().filter(|path| glob::matches(line, path))),
        }
    }
    taken
}

/// The module that a line of one of depmod's files is about.
fn subject(file: &str, line: &str) -> Option<String> {
    match file {
        "modules.dep" => Some(name_of(line.split_once(':')?.0)),
        "modules.alias" => line.strip_prefix("alias ")?.split_whitespace().nth(1).map(name_of),
        _ => line.strip_prefix("softdep ")?.split_whitespace().next().map(name_of),
    }
}

/// A path without the suffix of a packed module.
fn plain(path: &str) -> &str {
    [".xz", ".zst", ".gz"].iter().find_map(|suffix| path.strip_suffix(suffix)).unwrap_or(path)
}

fn plain_line(line: &str) -> String {
    line.replace(".ko.xz", ".ko").replace(".ko.zst", ".ko").replace(".ko.gz", ".ko")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lines_have_the_last_word() {
        let paths = ["kernel/net/a.ko", "kernel/net/b/c.ko.xz", "kernel/fs/d.ko"];
        let list = "# comment\nkernel/net/*\n!kernel/net/b/*\nkernel/fs/d.ko*\n";
        assert_eq!(take(&paths, list).into_iter().collect::<Vec<_>>(), ["kernel/fs/d.ko", "kernel/net/a.ko"]);
    }

    #[test]
    fn a_pruned_tree_keeps_needs_and_only_its_own_lines() {
        let read = |name: &str| match name {
            "modules.dep" => {
                Ok(b"kernel/net/a.ko: kernel/net/b.ko\nkernel/net/b.ko:\nkernel/net/c.ko:\n".to_vec())
            }
            "modules.alias" => Ok(b"alias pci:1 a\nalias pci:2 c\n".to_vec()),
            name if name.ends_with(".ko") => Ok(name.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let files = pruned("kernel/net/a.ko\n", &read).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"kernel/net/b.ko") && !names.contains(&"kernel/net/c.ko"), "{names:?}");
        assert!(files.contains(&("modules.alias".into(), b"alias pci:1 a\n".to_vec())));
    }

    #[test]
    fn a_tree_without_depmods_files_says_what_to_do() {
        let error = pruned("x", &|_| Err(io::ErrorKind::NotFound.into())).unwrap_err().to_string();
        assert!(error.contains("depmod"), "{error}");
    }
}
