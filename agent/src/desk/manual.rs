//! `inetbootctl manual` and `inetbootctl completions`: made of the definitions in `cli.rs`, so that neither can
//! tell of an option that does not exist.

use crate::desk::cli::Arguments;
use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs;
use std::path::Path;

/// Writes a page for the program and one for each of its verbs into `dir`, and returns their number. Pages of
/// the same names are replaced.
pub fn write_pages(dir: &Path) -> anyhow::Result<usize> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let pages = pages()?;
    for (name, page) in &pages {
        let path = dir.join(name);
        fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(pages.len())
}

/// The pages by file name: `inetbootctl-image-build.1` tells of `inetbootctl image build`.
fn pages() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut program = Arguments::command().disable_help_subcommand(true);
    // Gives each verb its full name, "inetbootctl-image-build".
    program.build();
    let mut pages = Vec::new();
    add_pages(&program, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    let source = concat!("InetBoot ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(name.to_uppercase()).source(source).manual("InetBoot's manual");
    man.render(&mut page).context("rendering a page")?;
    pages.push((format!("{name}.1"), page));
    command.get_subcommands().try_for_each(|verb| add_pages(verb, pages))
}

/// The completion script for `shell`.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "inetbootctl", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(command: &Command, prefix: &str, found: &mut Vec<String>) {
        let name = format!("{prefix}{}", command.get_name());
        command.get_subcommands().for_each(|verb| names(verb, &format!("{name}-"), found));
        found.push(format!("{name}.1"));
    }

    /// There is a page for every verb, and it names the verb's options.
    #[test]
    fn every_verb_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let mut wanted = Vec::new();
        names(&Arguments::command(), "", &mut wanted);
        assert_eq!(write_pages(dir.path()).unwrap(), wanted.len());
        for name in &wanted {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        let build = fs::read_to_string(dir.path().join("inetbootctl-image-build.1")).unwrap();
        assert!(build.contains("\\-\\-store") && build.contains("directory of the block files"), "{build}");
    }

    /// Completions name the verbs and their options, in every shell.
    #[test]
    fn every_shell_completes_the_verbs() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let script = completions(shell);
            for word in ["overlay", "classic"] {
                assert!(script.contains(word), "{shell} lacks {word}");
            }
        }
    }
}
