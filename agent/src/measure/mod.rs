//! Step 7, and the measurements before it: the one page that says which value ends in which event.
//!
//! The values are in the order of the boot. Each becomes rows of the event table
//! ([`TABLE`](crate::formats::statement::TABLE)), which names the PCR; the
//! [ledger](crate::machine::ledger) extends it. Arguments and decisions go to PCR 8, bytes to PCR 9.

use crate::config::Config;
use crate::formats::cmdline;
use crate::formats::handoff::Handoff;
use crate::formats::index::Place;
use crate::formats::recipe::Recipe;
use crate::formats::statement::{Statement, Sum, Topic};
use crate::machine::ledger::{Evidence, MeasureError};
use crate::miniroot::payload::{Hypervisor, Payload};
use crate::source::images::Images;
use std::fs;

/// This program, as it was loaded.
#[derive(Debug)]
pub struct Agent(Vec<u8>);

impl Agent {
    /// The program that is running.
    pub fn running() -> Result<Self, MeasureError> {
        fs::read("/proc/self/exe").map(Self).map_err(MeasureError::Digest)
    }

    /// The program in `bytes`.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `agent` 9
impl Evidence for Agent {
    fn statements(&self) -> Vec<Statement> {
        vec![Statement::bytes(Topic::Agent, env!("CARGO_PKG_VERSION"), Sum::of(self.bytes()))]
    }
}

/// `arguments` 8
impl Evidence for Config {
    fn statements(&self) -> Vec<Statement> {
        vec![Statement::words(Topic::Arguments, cmdline::line(&self.understood))]
    }
}

/// `image` 8, `index` or `version` 9; each twice for a plain kernel and its initrd
impl Evidence for Images {
    fn statements(&self) -> Vec<Statement> {
        self.iter().flat_map(|image| of_recipe(&image.recipe())).collect()
    }
}

/// `hypervisor` 9, `options` 8, `kernel`, `initrd` and `overlay` 9, `target` 8
impl Evidence for Payload {
    fn statements(&self) -> Vec<Statement> {
        let mut statements = Vec::new();
        if let Some(Hypervisor { path, file, words, .. }) = &self.hypervisor {
            statements.push(Statement::bytes(Topic::Hypervisor, path, Sum::of(file)));
            statements.push(Statement::words(Topic::Options, words.as_str()));
        }
        statements.extend_from_slice(&self.parts);
        statements.push(Statement::words(Topic::Target, self.cmdline.to_string_lossy()));
        statements
    }
}

/// `serving` 8: the second life's, before it serves. `ledger` 8 follows when the record is
/// [closed](crate::machine::ledger::Ledger::close).
impl Evidence for Handoff {
    fn statements(&self) -> Vec<Statement> {
        vec![of_serving(&self.recipe)]
    }
}

/// The statements about an image before any of it is read.
pub fn of_recipe(recipe: &Recipe) -> Vec<Statement> {
    let version = match (&recipe.index, recipe.mirrors.first()) {
        (Some((_, index)), _) => Statement::bytes(Topic::Index, "", Sum::of(index)),
        (None, Some((_, Some(version)))) => Statement::words(Topic::Version, version.to_string()),
        (None, _) => Statement::words(Topic::Version, format!("{} bytes", recipe.length)),
    };
    vec![Statement::words(Topic::Image, identity(recipe)), version]
}

/// The statement about the image that the second life serves.
pub fn of_serving(recipe: &Recipe) -> Statement {
    Statement::words(Topic::Serving, identity(recipe))
}

/// The image's addresses, and the trust in it.
fn identity(recipe: &Recipe) -> String {
    let places = recipe.mirrors.iter().map(|(place, _)| match place {
        Place::File(url) => url.clone(),
        Place::Store { url, .. } => url.clone(),
    });
    format!("{}, {}", places.collect::<Vec<_>>().join(" "), recipe.trust)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::trust::Trust;
    use crate::formats::version::Version;

    /// An image is measured by its index, or else by its version on the server.
    #[test]
    fn images_by_index_or_version() {
        let version = Version { length: 5, etag: Some("\"e\"".into()), modified: None };
        let mut recipe = Recipe {
            length: 5,
            mirrors: vec![(Place::File("http://h/x.iso".into()), Some(version))],
            wrong: Vec::new(),
            index: None,
            trust: Trust::Unverified,
            profile: None,
        };
        let lines =
            |recipe: &Recipe| -> Vec<String> { of_recipe(recipe).iter().map(Statement::line).collect() };
        assert_eq!(
            lines(&recipe),
            ["inetboot image: http://h/x.iso, unverified", "inetboot version: 5 bytes, ETag \"e\""]
        );
        recipe.index = Some(("http://h/x.idx".into(), b"abc"[..].into()));
        recipe.trust = Trust::Pinned;
        assert_eq!(lines(&recipe)[0], "inetboot image: http://h/x.iso, verified, pinned");
        assert!(lines(&recipe)[1].starts_with("inetboot index: 3 bytes, sha256:ba7816bf"));
    }
}
