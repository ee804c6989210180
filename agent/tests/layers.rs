//! Imports run one way: the table in `lib.rs`, checked over the sources. A room may use rooms of
//! lower layers and its neighbours; pure codecs may use no room that touches the outside.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Longest prefix wins. Higher numbers may use lower and equal ones.
const LAYERS: [(&str, u8); 62] = [
    ("main", 4),
    ("bin", 4),
    ("serve", 4),
    ("desk", 4),
    ("alone", 4),
    ("rescue", 4),
    ("choose", 3),
    ("choose::keys", 1),
    ("choose::menu", 1),
    ("choose::screen", 2),
    ("ways_out", 2),
    ("catalogue", 1),
    ("distro", 3),
    ("distro::menu", 1),
    ("medium", 3),
    ("miniroot", 3),
    ("miniroot::bzimage", 1),
    ("miniroot::handoff", 1),
    ("miniroot::modules", 1),
    ("miniroot::newc", 1),
    ("miniroot::pack", 1),
    ("early", 2),
    ("kexec", 2),
    ("kexec::multiboot", 1),
    ("measure", 2),
    ("measure::bank", 1),
    ("measure::eventlog", 1),
    ("measure::evidence", 1),
    ("measure::tpm12", 1),
    ("measure::tpm2", 1),
    ("net", 2),
    ("net::datagram", 1),
    ("net::advert", 1),
    ("net::dhcp", 1),
    ("net::dhcp6", 1),
    ("net::rtnetlink", 1),
    ("net::dropins", 1),
    ("source", 2),
    ("config", 1),
    ("config::cmdline", 1),
    ("config::net", 1),
    ("config::url", 1),
    ("lease", 1),
    ("receipt", 1),
    ("console", 0),
    ("failure", 0),
    ("glob", 0),
    ("memory", 0),
    ("step", 0),
    ("sys", 0),
    ("lib", 5),
    ("source::ahead", 1),
    ("source::disk::layout", 1),
    ("source::index", 1),
    ("source::links", 1),
    ("source::pieces", 1),
    ("source::profile", 1),
    ("source::trust", 1),
    ("source::unpack", 1),
    ("source::recipe", 1),
    ("source::version", 1),
    ("source::wire", 1),
];

/// What a pure codec (layer 1) may not even name.
const OUTSIDE: [&str; 4] = ["std::fs", "std::net::Tcp", "std::net::Udp", "rustix::"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            sources(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// `src/net/dhcp.rs` is `net::dhcp`, `src/net/mod.rs` is `net`.
fn module(path: &Path, root: &Path) -> String {
    let name = path.strip_prefix(root).unwrap().with_extension("");
    let parts: Vec<&str> =
        name.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
    parts.join("::")
}

fn layer(module: &str) -> Option<u8> {
    let known = LAYERS.iter().filter(|(prefix, _)| {
        module == *prefix || module.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::"))
    });
    known.max_by_key(|(prefix, _)| prefix.len()).map(|(_, layer)| *layer)
}

/// `super::pack` in `miniroot::newc` is `crate::miniroot::pack`.
fn absolute(text: &str, module: &str) -> String {
    let parent = |module: &str| match module.rsplit_once("::") {
        Some((parent, _)) => format!("crate::{parent}::"),
        None => "crate::".to_owned(),
    };
    let grandparent = module.rsplit_once("::").map_or(String::new(), |(up, _)| parent(up));
    text.replace("super::super::", &grandparent).replace("super::", &parent(module))
}

/// The rooms that a source file imports by `use crate::…` or `crate::…`, braces expanded once.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let path: String =
            rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
        match path.strip_suffix("::") {
            None => found.push(path),
            Some(path) => {
                let inside = rest.split_once('{').map(|(_, inside)| inside).unwrap_or_default();
                let inside = inside.split('}').next().unwrap_or_default();
                found.extend(inside.split(',').map(|name| format!("{path}::{}", name.trim())));
            }
        }
    }
    found
}

#[test]
fn imports_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 30, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let name = module(&file, &root);
        let own = layer(&name).unwrap_or_else(|| panic!("{name} is in no layer; add it to LAYERS"));
        let text = fs::read_to_string(&file).unwrap();
        // Tests may look anywhere.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for import in imports(&absolute(text, &name)) {
            // Paths end in types and functions; what is in no layer is a re-export of a lower one.
            if let Some(theirs) = layer(&import).filter(|theirs| *theirs > own) {
                wrong.push(format!("{name} (layer {own}) uses {import} (layer {theirs})"));
            }
        }
        for outside in OUTSIDE {
            if own == 1 && text.contains(outside) {
                wrong.push(format!("{name} is a pure codec and names {outside}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_itself_sees_a_wrong_import() {
    assert_eq!(layer("net::dhcp"), Some(1));
    assert_eq!(layer("net::renew"), Some(2));
    assert_eq!(
        imports("use crate::net::{dhcp, link};\nuse crate::medium::Medium;"),
        ["net::dhcp", "net::link", "medium::Medium"]
    );
    assert!(layer("medium::Medium") > layer("net::dhcp"));
    assert_eq!(absolute("use super::pack;", "miniroot::newc"), "use crate::miniroot::pack;");
    assert_eq!(absolute("use super::super::x;", "source::index::ours"), "use crate::source::x;");
}
