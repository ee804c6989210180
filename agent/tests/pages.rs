//! Pages that are made from tables in the code. `UPDATE_PAGES=1 cargo test --test pages` rewrites them.
#![allow(clippy::unwrap_used)]

use inetboot::config::arguments::ARGUMENTS;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- arguments: begin -->\n";
const END: &str = "<!-- arguments: end -->";

fn table() -> String {
    let mut table = "| argument | meaning |\n|---|---|\n".to_owned();
    for argument in &ARGUMENTS {
        let value = argument.value.replace('|', "\\|");
        let help = argument.help.replace('|', "\\|");
        writeln!(table, "| `{}={value}` | {help} |", argument.name).unwrap();
    }
    table
}

/// The reference page shows every kernel argument as the parser's table has it, and no other.
#[test]
fn arguments_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/arguments.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the begin mark");
    let (_, after) = rest.split_once(END).expect("the end mark");

    let wanted = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("UPDATE_PAGES").is_some() {
        fs::write(&path, wanted).unwrap();
    } else {
        assert!(
            page == wanted,
            "docs/arguments.md is not the table: run UPDATE_PAGES=1 cargo test --test pages"
        );
    }
}

/// Names are unique, and the help of each is a sentence.
#[test]
fn arguments_are_described() {
    for (place, argument) in ARGUMENTS.iter().enumerate() {
        assert!(ARGUMENTS[place + 1..].iter().all(|other| other.name != argument.name), "{}", argument.name);
        assert!(argument.help.len() > 20 && argument.help.ends_with(['.', ')']), "{}", argument.name);
    }
}
