//! A kernel's module tree, pruned to what `modules.list` names and what that needs.

use crate::list::{Item, Kind};
use anyhow::{Context, ensure};
use inetboot::glob;
use inetboot::miniroot::modules::{Index, name_of};
use inetboot::miniroot::pack;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// depmod's files whose lines are kept where they speak of a module that is.
const TEXTS: [&str; 3] = ["modules.dep", "modules.alias", "modules.softdep"];

/// depmod's files that are kept whole: what is built in.
const BUILTIN: [&str; 2] = ["modules.builtin", "modules.builtin.modinfo"];

/// The items for the modules below `dir` (…/lib/modules/RELEASE) that `list` takes.
pub fn pruned(dir: &Path, list: &str) -> anyhow::Result<Vec<Item>> {
    let release =
        dir.file_name().and_then(|name| name.to_str()).context("the module directory has no name")?;
    let read = |name: &str| fs::read(dir.join(name)).ok();
    let index = Index::parse(&read)
        .with_context(|| format!("{} lacks modules.dep: run depmod -b ROOT {release}", dir.display()))?;
    let dep = fs::read_to_string(dir.join("modules.dep"))?;
    let paths: Vec<&str> = dep.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let wanted = take(&paths, list);
    ensure!(!wanted.is_empty(), "modules.list takes nothing from {}", dir.display());
    let kept: BTreeSet<&str> = wanted.iter().flat_map(|path| index.load_order(&name_of(path))).collect();
    let names: BTreeSet<String> = kept.iter().map(|path| name_of(path)).collect();

    let inside = |name: &str| format!("lib/modules/{release}/{name}");
    let mut items = Vec::new();
    for path in &kept {
        let bytes = fs::read(dir.join(path)).with_context(|| format!("reading module {path}"))?;
        // Packed once, by us and with everything else: smaller, and quicker to unpack.
        let contents = pack::unpack(&bytes).with_context(|| format!("unpacking module {path}"))?;
        items.push(Item {
            name: inside(plain(path)),
            mode: 0o644,
            kind: Kind::File(contents),
            part: part(path),
        });
    }
    for name in TEXTS {
        let text =
            String::from_utf8(read(name).unwrap_or_default()).with_context(|| format!("reading {name}"))?;
        let lines =
            text.lines().filter(|line| subject(name, line).is_some_and(|module| names.contains(&module)));
        let text: String = lines.map(|line| plain_line(line) + "\n").collect();
        items.push(index_item(inside(name), text.into_bytes()));
    }
    for name in BUILTIN {
        items.push(index_item(inside(name), read(name).unwrap_or_default()));
    }
    Ok(items)
}

fn index_item(name: String, contents: Vec<u8>) -> Item {
    Item { name, mode: 0o644, kind: Kind::File(contents), part: "module index".into() }
}

/// The paths that the patterns take, later lines having the last word.
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

/// The module a line of one of depmod's files speaks of.
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

/// `kernel/drivers/net/ethernet/intel/e1000/e1000.ko` is counted with `drivers/net`.
fn part(path: &str) -> String {
    let mut parts = path.split('/').skip(1);
    format!("modules: {}/{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
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
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("6.1.0-test");
        fs::create_dir_all(dir.join("kernel/net")).unwrap();
        for module in ["a", "b", "c"] {
            fs::write(dir.join(format!("kernel/net/{module}.ko")), module).unwrap();
        }
        fs::write(
            dir.join("modules.dep"),
            "kernel/net/a.ko: kernel/net/b.ko\nkernel/net/b.ko:\nkernel/net/c.ko:\n",
        )
        .unwrap();
        fs::write(dir.join("modules.alias"), "alias pci:1 a\nalias pci:2 c\n").unwrap();
        let items = pruned(&dir, "kernel/net/a.ko\n").unwrap();
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        assert!(names.contains(&"lib/modules/6.1.0-test/kernel/net/b.ko"));
        assert!(!names.contains(&"lib/modules/6.1.0-test/kernel/net/c.ko"));
        let alias = items.iter().find(|item| item.name.ends_with("modules.alias")).unwrap();
        assert_eq!(alias.kind, Kind::File(b"alias pci:1 a\n".to_vec()));
    }

    #[test]
    fn a_tree_without_depmods_files_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let error = pruned(root.path(), "x").unwrap_err().to_string();
        assert!(error.contains("depmod"), "{error}");
    }
}
