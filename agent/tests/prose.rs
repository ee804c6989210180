//! The part of the house's English that a program can check; CONTRIBUTING.md has the rest.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/walk.rs"]
mod walk;

use std::fs;
use std::path::{Path, PathBuf};

/// A doc comment names its subject; a question word in front of it makes a riddle.
const RIDDLES: [&str; 8] = ["What", "Why", "Where", "Which", "Whether", "How", "Who", "Whose"];

/// A named part of the system stands in place of these.
const NOBODIES: [&str; 3] = ["whoever", "somebody", "nobody"];

/// In an error message, "nobody answered" is what a user would say as well.
const NOBODIES_ALLOWED: usize = 9;

fn lines(found: &[PathBuf], wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for file in found {
        let text = fs::read_to_string(file).unwrap();
        let numbered = text.lines().enumerate().filter(|(_, line)| wrong(line));
        lines.extend(numbered.map(|(number, line)| format!("{}:{}: {line}", file.display(), number + 1)));
    }
    lines
}

/// No line of a doc comment begins with a question word.
#[test]
fn doc_comments_name_their_subject() {
    let sources = walk::files("src", "rs");
    assert!(sources.len() > 30, "the sources were not found");
    let wrong = lines(&sources, |line| {
        let first = line.trim_start().strip_prefix("/// ").and_then(|text| text.split([' ', ',']).next());
        first.is_some_and(|word| RIDDLES.contains(&word))
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sources and pages name the part that acts.
#[test]
fn sentences_name_who_acts() {
    let mut texts = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")];
    texts.extend(walk::files("src", "rs"));
    texts.extend(walk::files("docs", "md"));
    let found = lines(&texts, |line| {
        let line = line.to_lowercase();
        line.split(|c: char| !c.is_alphanumeric()).any(|word| NOBODIES.contains(&word))
    });
    assert!(found.len() <= NOBODIES_ALLOWED, "{}", found.join("\n"));
}
