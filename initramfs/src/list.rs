//! The members of the archive, as `initramfs.list` and `--add` name them.

use anyhow::{Context, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One member of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// A path without a leading slash.
    pub name: String,
    /// Permission bits.
    pub mode: u32,
    pub kind: Kind,
    /// The row of the printed table that counts it.
    pub part: String,
}

/// The kind of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// A character device.
    Device {
        major: u32,
        minor: u32,
    },
    /// A regular file, by its contents.
    File(Vec<u8>),
}

/// Reads a list in the notation of the kernel's gen_init_cpio.
pub fn parse(list: &str, agent: &Path) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    for (number, line) in (1..).zip(list.lines()) {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let item = match words[..] {
            [] => continue,

            ["dir", name, mode, "0", "0"] => {
                Item { name: relative(name)?, mode: octal(mode)?, kind: Kind::Directory, part: String::new() }
            }
            ["nod", name, mode, "0", "0", "c", major, minor] => Item {
                name: relative(name)?,
                mode: octal(mode)?,
                kind: Kind::Device { major: major.parse()?, minor: minor.parse()? },
                part: String::new(),
            },
            ["file", name, source, mode, "0", "0"] => {
                let source = if source == "${AGENT}" { agent } else { Path::new(source) };
                file(&relative(name)?, source, octal(mode)?)?
            }
            _ => bail!("initramfs.list, line {number} is not understood: {line}"),
        };
        items.push(item);
    }
    Ok(items)
}

/// Reads `--add FILE=/NAME`.
pub fn added(argument: &str) -> anyhow::Result<Vec<Item>> {
    let (source, name) =
        argument.rsplit_once('=').with_context(|| format!("--add {argument}: write --add FILE=/NAME"))?;
    let source = Path::new(source);
    let executable = {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(source).with_context(|| format!("reading {}", source.display()))?.permissions().mode()
            & 0o111
            != 0
    };
    Ok(vec![file(&relative(name)?, source, if executable { 0o755 } else { 0o644 })?])
}

fn file(name: &str, source: &Path, mode: u32) -> anyhow::Result<Item> {
    let contents = fs::read(source).with_context(|| format!("reading {} for /{name}", source.display()))?;
    Ok(Item { name: name.to_owned(), mode, kind: Kind::File(contents), part: format!("/{name}") })
}

fn relative(name: &str) -> anyhow::Result<String> {
    let inside = name.strip_prefix('/').with_context(|| format!("{name} does not begin with /"))?;
    ensure!(
        !inside.is_empty() && !inside.split('/').any(|part| part == ".."),
        "{name} is not a path in the initramfs"
    );
    Ok(inside.to_owned())
}

fn octal(mode: &str) -> anyhow::Result<u32> {
    u32::from_str_radix(mode, 8).with_context(|| format!("{mode} is not an octal mode"))
}

/// Adds the directories that are not listed, since the kernel does not make them by itself, and puts every item after
/// its directory.
pub fn with_parents(items: &mut Vec<Item>) {
    let mut known: BTreeSet<String> = items.iter().map(|item| item.name.clone()).collect();
    let mut missing = Vec::new();
    for item in &*items {
        let mut name = item.name.as_str();
        while let Some((parent, _)) = name.rsplit_once('/') {
            if known.insert(parent.to_owned()) {
                let kind = Kind::Directory;
                missing.push(Item { name: parent.to_owned(), mode: 0o755, kind, part: String::new() });
            }
            name = parent;
        }
    }
    items.extend(missing);
    items.sort_by(|a, b| a.name.cmp(&b.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them() {
        let agent = tempfile::NamedTempFile::new().unwrap();
        let mut items = parse("file /a/b/c ${AGENT} 0755 0 0\ndir /a 0700 0 0\n", agent.path()).unwrap();
        with_parents(&mut items);
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c"]);
        assert_eq!(items[0].mode, 0o700, "what was listed is kept");
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let error = parse("dir /x 0755 0 0\nslink /a /b\n", Path::new("/")).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("slink"), "{error}");
        assert!(parse("dir /../x 0755 0 0\n", Path::new("/")).is_err());
    }

    #[test]
    fn the_list_in_the_tree_is_understood() {
        let agent = tempfile::NamedTempFile::new().unwrap();
        let items = parse(include_str!("../initramfs.list"), agent.path()).unwrap();
        assert!(items.iter().any(|item| item.name == "init"));
    }
}
