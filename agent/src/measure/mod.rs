//! Step 7: what is measured.

use crate::config::Config;
use crate::formats::handoff::Handoff;
use crate::formats::index::Place;
use crate::formats::recipe::Recipe;
use crate::formats::statement::{BYTES, Statement, Sum, WORDS, What};
use crate::machine::ledger::Agent;
use crate::miniroot::payload::{Hypervisor, Payload};
use crate::source::images::Images;

/// Something about which there is something to say before it is used.
pub trait Evidence {
    /// All there is to say of it, in order.
    fn statements(&self) -> Vec<Statement>;
}

impl Evidence for Config {
    fn statements(&self) -> Vec<Statement> {
        vec![Statement::words(What::Arguments, self.understood.join(" "))]
    }
}

/// What is known of an image before it is read.
pub fn of_recipe(recipe: &Recipe) -> Vec<Statement> {
    let version = match (&recipe.index, recipe.mirrors.first()) {
        (Some((_, index)), _) => Statement::bytes(What::Index, "", Sum::of(index)),
        (None, Some((_, Some(version)))) => Statement::words(What::Version, version.to_string()),
        (None, _) => Statement::words(What::Version, format!("{} bytes", recipe.length)),
    };
    vec![Statement::words(What::Image, identity(recipe)), version]
}

/// The image that the second life is about to serve.
pub fn of_serving(recipe: &Recipe) -> Statement {
    Statement::words(What::Serving, identity(recipe))
}

/// Whether the log accounts for what our PCRs hold; or what it does not account for.
pub fn of_ledger(unaccounted: Option<&str>) -> Statement {
    let says = match unaccounted {
        None => format!("accounts for PCR {WORDS} and {BYTES}"),
        Some(what) => format!("does not account for {what}"),
    };
    Statement::words(What::Ledger, says)
}

/// Which image, and who vouches for it.
fn identity(recipe: &Recipe) -> String {
    let places = recipe.mirrors.iter().map(|(place, _)| match place {
        Place::File(url) => url.clone(),
        Place::Store { url, .. } => url.clone(),
    });
    format!("{}, {}", places.collect::<Vec<_>>().join(" "), recipe.trust)
}

impl Evidence for Agent {
    fn statements(&self) -> Vec<Statement> {
        vec![Statement::bytes(What::Agent, env!("CARGO_PKG_VERSION"), Sum::of(self.bytes()))]
    }
}

impl Evidence for Images {
    fn statements(&self) -> Vec<Statement> {
        self.iter().flat_map(|image| of_recipe(&image.recipe())).collect()
    }
}

impl Evidence for Handoff {
    fn statements(&self) -> Vec<Statement> {
        vec![of_serving(&self.recipe)]
    }
}

impl Evidence for Payload {
    fn statements(&self) -> Vec<Statement> {
        let mut statements = Vec::new();
        if let Some(Hypervisor { path, file, words, .. }) = &self.hypervisor {
            statements.push(Statement::bytes(What::Hypervisor, path, Sum::of(file)));
            statements.push(Statement::words(What::Options, words.as_str()));
        }
        statements.extend_from_slice(&self.parts);
        statements.push(Statement::words(What::Target, self.cmdline.to_string_lossy()));
        statements
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::trust::Trust;
    use crate::formats::version::Version;

    #[test]
    fn an_image_is_known_by_its_index_or_by_what_the_server_says() {
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
