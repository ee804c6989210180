//! Errors as a verb prints them: every cause, and the hint that the boot would show.
//!
//! Verbs return [`anyhow::Error`], whose type no longer tells that a cause implements [`Explain`]. [`sentence`]
//! looks for such causes, so that no verb can lose a hint by adding context.

use crate::base::failure::Explain;
use crate::config::arguments::ConfigError;
use crate::distro::DistroError;
use crate::kexec::KexecError;
use crate::machine::ledger::MeasureError;
use crate::medium::MediumError;
use crate::miniroot::MinirootError;
use crate::source::fault::SourceError;
use std::error::Error;

/// The hint of `E`, if a cause is one.
type Hint = fn(&(dyn Error + 'static)) -> Option<String>;

/// The errors of the steps that verbs share with the boot.
const HINTS: [(&str, Hint); 7] = [
    ("ConfigError", hint::<ConfigError>),
    ("DistroError", hint::<DistroError>),
    ("KexecError", hint::<KexecError>),
    ("MeasureError", hint::<MeasureError>),
    ("MediumError", hint::<MediumError>),
    ("MinirootError", hint::<MinirootError>),
    ("SourceError", hint::<SourceError>),
];

fn hint<E: Explain>(cause: &(dyn Error + 'static)) -> Option<String> {
    cause.downcast_ref::<E>().map(Explain::hint)
}

/// The error and its causes, outermost first, and the outermost hint.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut hints = error.chain().flat_map(|cause| HINTS.iter().filter_map(move |(_, hint)| hint(cause)));
    match hints.next() {
        Some(hint) => format!("{error:#}. {hint}"),
        None => format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use anyhow::Context;
    use std::fs;
    use std::path::Path;

    /// Context around an error does not hide its hint.
    #[test]
    fn the_hint_survives_context() {
        let error = Config::parse(&crate::formats::cmdline::words("quiet"))
            .context("one")
            .context("two")
            .unwrap_err();
        let sentence = sentence(&error);
        assert!(sentence.starts_with("two: one: there is no netdir="), "{sentence}");
        assert!(sentence.contains(". Add netdir=URL of a live ISO"), "{sentence}");
        assert_eq!(super::sentence(&anyhow::anyhow!("no cause")), "no cause");
    }

    fn explained(dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.path().is_dir() {
                explained(&entry.path(), found);
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap();
            let names = text.lines().filter_map(|line| line.strip_prefix("impl Explain for "));
            found.extend(names.map(|name| name.trim_end_matches(" {").to_owned()));
        }
    }

    /// Every error with a hint, of the steps that verbs use, is in the table.
    #[test]
    fn no_step_is_forgotten() {
        let without_verbs = ["base", "lives", "net", "person"];
        let mut found = Vec::new();
        for folder in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().flatten() {
            let is_used = without_verbs.iter().all(|name| folder.file_name() != **name);
            if folder.path().is_dir() && is_used {
                explained(&folder.path(), &mut found);
            }
        }
        found.sort();
        assert_eq!(found, HINTS.map(|(name, _)| name));
    }
}
