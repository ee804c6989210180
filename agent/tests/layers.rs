//! Imports run one way. The table below is the architecture: a folder may import the folders above it,
//! and within a row the folders on its left. `docs/architecture.md` draws the same picture.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/walk.rs"]
mod walk;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The folders of `src`, lowest first.
const ROWS: [&[&str]; 8] = [
    // The steps' names, failures, the console; and the only unsafe code.
    &["base", "sys"],
    // Bytes to values and back. No I/O.
    &["formats"],
    // The running kernel: mounts, drivers, memory, clock, loop devices.
    &["machine"],
    // The eight steps, in boot order: none may import a later one.
    &["config", "net", "source", "medium", "distro", "miniroot", "measure", "kexec"],
    // The person at the console.
    &["person"],
    // The order in which things happen.
    &["lives"],
    // The host's tools.
    &["desk"],
    // The two programs.
    &["main", "bin"],
];

/// Folders that do no I/O, and the names by which I/O would begin.
const PURE: [&str; 1] = ["formats"];
const OUTSIDE: [&str; 6] = ["std::fs", "std::net::Tcp", "std::net::Udp", "std::process", "rustix::", "nix::"];

/// Where `folder` stands in [`ROWS`], counted through.
fn place(folder: &str) -> Option<usize> {
    ROWS.iter().flat_map(|row| row.iter()).position(|name| *name == folder)
}

/// `text` without comments, and without the modules that are compiled for tests alone: those may
/// import anything.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut code = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        code.push_str(before);
        // Whatever follows the attribute ends at its semicolon, or at the brace that closes its own.
        rest = match after.find(['{', ';']) {
            Some(start) if after[start..].starts_with('{') => skip_braces(&after[start..]),
            Some(end) => &after[end + 1..],
            None => "",
        };
    }
    code + rest
}

/// What follows the closing brace of `text`, which begins with an opening one.
fn skip_braces(text: &str) -> &str {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    ""
}

/// The folders that `code` names by `crate::…` or `inetboot::…`, in groups of any form as well.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ["crate::", "inetboot::"] {
        for rest in code.split(root).skip(1) {
            match rest.strip_prefix('{') {
                Some(group) => found.extend(heads(group)),
                None => found.extend(head(rest)),
            }
        }
    }
    found
}

fn head(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first names of the paths in a group, whose opening brace was read already.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut path) = (0, Vec::new(), String::new());
    for letter in group.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.extend(head(std::mem::take(&mut path).trim())),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 0 => path.push(letter),
            _ => {}
        }
    }
    names.extend(head(path.trim()));
    names
}

#[test]
fn imports_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walk::files("src", "rs");
    assert!(files.len() > 30, "the sources were not found");

    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let folder = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if folder == "lib" {
            continue;
        }
        let own = place(folder).unwrap_or_else(|| panic!("src/{folder} is in no row of ROWS"));
        let code = code(&fs::read_to_string(&file).unwrap());

        for import in imports(&code) {
            if place(&import).is_none_or(|theirs| theirs > own) {
                wrong.push(format!("{} imports {import}", inside.display()));
            }
        }
        for outside in OUTSIDE {
            if PURE.contains(&folder) && code.contains(outside) {
                wrong.push(format!("{} does I/O: it names {outside}", inside.display()));
            }
        }
        if code.contains("super::") {
            wrong.push(format!("{} names its neighbour by super::, not from the root", inside.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A group over several lines, a nested one, and a path in the middle of code are all seen.
#[test]
fn the_check_reads_every_form_of_import() {
    let text = "use crate::{\n    net::{dhcp, link},\n    medium,\n};\nuse crate::kexec::load;\n\
                fn f() { crate::distro::recognise() }\n// crate::desk is only mentioned\n\
                #[cfg(test)]\nmod tests { use crate::lives::first; }\nuse crate::source;";
    let found = imports(&code(text));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["distro", "kexec", "medium", "net", "source"]);
}

/// A step sees the steps before it and no other.
#[test]
fn the_table_is_in_boot_order() {
    assert!(place("net") < place("source") && place("measure") < place("kexec"));
    assert!(place("formats") < place("config"));
    assert_eq!(place("nowhere"), None);
}
