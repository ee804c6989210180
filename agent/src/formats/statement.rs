//! The event table: what is said of this boot, and into which PCR. Pure.
//!
//! Every event of ours is one line of text, written as GRUB writes its own: the type is `EV_IPL`, the
//! data are `inetboot WORD: …` and a NUL, and what is extended is the digest of what stands behind the
//! first blank, without the NUL; nothing else, so that anybody can check it with `sha256sum`, and
//! `tpm2_eventlog` does. Where the line is about bytes it holds their SHA-256.
//!
//! The PCRs are GRUB's too: 8 for what was asked for and decided, 9 for bytes that run or are trusted;
//! TCG's profile leaves both to the operating system and its loader. Nothing of an argument is in a
//! line of PCR 9 and nothing of the bytes in one of PCR 8, so that a change shows in one of them only.

use crate::config::Config;
use crate::formats::bank::Bank;
use crate::formats::eventlog::{Event, IPL};
use crate::formats::pieces::hex;
use crate::formats::recipe::{MirrorRecord, Recipe};
use sha2::{Digest, Sha256};

/// What was asked for and decided.
pub const WORDS: u32 = 8;

/// Bytes that run or are trusted.
pub const BYTES: u32 = 9;

/// What an event of ours begins with; not digested.
const PREFIX: &str = "inetboot ";

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// This program.
    Agent,
    /// The kernel arguments.
    Arguments,
    /// The image and who vouches for it.
    Image,
    /// Its index.
    Index,
    /// Its version, where it has no index.
    Version,
    /// What starts the target's kernel in our place.
    Hypervisor,
    /// Its arguments.
    Options,
    /// The target's kernel.
    Kernel,
    /// The target's initrd.
    Initrd,
    /// What we add to it.
    Overlay,
    /// The target's kernel arguments.
    Target,
    /// The second life begins.
    Serving,
    /// The second life hands over.
    Ledger,
}

impl What {
    /// The row about it.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// One row of the event table.
#[derive(Debug)]
pub struct Row {
    /// What the row is about.
    pub what: What,
    /// How the event calls it.
    pub word: &'static str,
    /// The PCR that is extended.
    pub pcr: u32,
    /// What the line holds.
    pub holds: &'static str,
}

/// The event table, in the order in which it happens.
#[rustfmt::skip] // a table
pub const TABLE: [Row; 13] = [
    row(What::Agent, "agent", BYTES, "version, size and SHA-256 of the program that runs"),
    row(What::Arguments, "arguments", WORDS, "the kernel arguments that were understood, in order"),
    row(What::Image, "image", WORDS, "the image's addresses, and who vouches for it"),
    row(What::Index, "index", BYTES, "size and SHA-256 of the image's index: it stands for every byte of the image"),
    row(What::Version, "version", BYTES, "of an image without an index: its length, and its version on the server"),
    row(What::Hypervisor, "hypervisor", BYTES, "path, size and SHA-256 of the hypervisor, where one was asked for"),
    row(What::Options, "options", WORDS, "the hypervisor's arguments"),
    row(What::Kernel, "kernel", BYTES, "path, size and SHA-256 of the target's kernel"),
    row(What::Initrd, "initrd", BYTES, "path, size and SHA-256 of each of the target's initrds"),
    row(What::Overlay, "overlay", BYTES, "path, size and SHA-256 of each file added to the initrd"),
    row(What::Target, "target", WORDS, "the target's kernel arguments"),
    row(What::Serving, "serving", WORDS, "second life: the image it is about to serve, and who vouches for it"),
    row(What::Ledger, "ledger", WORDS, "second life, at its end: whether this log accounts for PCR 8 and 9"),
];

const fn row(what: What, word: &'static str, pcr: u32, holds: &'static str) -> Row {
    Row { what, word, pcr, holds }
}

/// What there is to say of bytes, taken as they come.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    length: u64,
    sha256: Sha256,
}

impl Sum {
    /// Of `bytes` alone.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.add(bytes);
        sum
    }

    /// And of `bytes`.
    pub fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.sha256.update(bytes);
    }
}

/// A line of ours: what it is about, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it is about.
    pub what: What,
    /// The line, without what every line of its kind begins with.
    pub says: String,
}

impl Statement {
    /// A statement in words.
    pub fn words(what: What, says: impl Into<String>) -> Self {
        // A line is one line, and readers of logs put it into quotes.
        let says: String = says.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { what, says }
    }

    /// A statement about bytes. What is known of them beside their sum is in `name`.
    pub fn bytes(what: What, name: &str, sum: Sum) -> Self {
        let separator = if name.is_empty() { "" } else { ", " };
        let sha256 = hex(&sum.sha256.finalize());
        Self::words(what, format!("{name}{separator}{} bytes, sha256:{sha256}", sum.length))
    }

    /// The row it belongs to.
    pub fn row(&self) -> &'static Row {
        self.what.row()
    }

    /// What is digested and extended.
    pub fn extended(&self) -> String {
        format!("{}: {}", self.row().word, self.says)
    }

    /// The line that logs and policies show.
    pub fn line(&self) -> String {
        format!("{PREFIX}{}", self.extended())
    }

    /// What is extended into each of `banks`.
    pub fn digests(&self, banks: &[Bank]) -> Vec<(Bank, Vec<u8>)> {
        let extended = self.extended();
        banks.iter().map(|bank| (*bank, bank.digest(extended.as_bytes()))).collect()
    }

    /// The event that says it, in a log of `banks`.
    pub fn event(&self, banks: &[Bank]) -> Event {
        let digests = self.digests(banks).into_iter().map(|(bank, digest)| (bank.id(), digest)).collect();
        Event { pcr: self.row().pcr, kind: IPL, digests, data: (self.line() + "\0").into_bytes() }
    }

    /// The statement that an event of ours makes.
    pub fn of_event(event: &Event) -> Option<Self> {
        Self::of_line(event.text()?)
    }

    /// The statement in a line of a log or a policy.
    pub fn of_line(line: &str) -> Option<Self> {
        let (word, says) = line.strip_prefix(PREFIX)?.split_once(": ")?;
        let row = TABLE.iter().find(|row| row.word == word)?;
        Some(Self { what: row.what, says: says.to_owned() })
    }
}

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
        (Some(index), _) => Statement::bytes(What::Index, "", Sum::of(&index.bytes)),
        (None, Some(MirrorRecord { version: Some(version), .. })) => {
            Statement::words(What::Version, version.to_string())
        }
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
    let places = recipe.mirrors.iter().map(|record| record.place.address().as_str());
    format!("{}, {}", places.collect::<Vec<_>>().join(" "), recipe.trust)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::index::Place;
    use crate::formats::recipe::IndexFile;
    use crate::formats::trust::Trust;
    use crate::formats::version::Version;

    #[test]
    fn rows_stand_where_their_numbers_say() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.what as usize, place, "{}", row.word);
        }
    }

    #[test]
    fn the_readme_shows_the_table() {
        let readme = include_str!("../../../README.md");
        for row in &TABLE {
            let line = format!("| `{}` | {} | {} |", row.word, row.pcr, row.holds);
            assert!(readme.contains(&line), "README.md lacks: {line}");
        }
    }

    #[test]
    fn a_statement_is_one_line_that_is_understood_again() {
        let kernel = Statement::bytes(What::Kernel, "live/vmlinuz", Sum::of(b"abc"));
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            kernel.line(),
            "inetboot kernel: live/vmlinuz, 3 bytes, sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Statement::of_line(&kernel.line()), Some(kernel));
        assert_eq!(Statement::words(What::Target, "a\nb").says, "a b");
        assert_eq!(Statement::of_line("grub_cmd: linux /vmlinuz"), None);
        assert_eq!(Statement::of_line("inetboot lunch: soup"), None);
    }

    #[test]
    fn an_image_is_known_by_its_index_or_by_what_the_server_says() {
        let version = Version { length: 5, etag: Some("\"e\"".into()), modified: None };
        let mut recipe = Recipe {
            length: 5,
            mirrors: vec![MirrorRecord {
                place: Place::File("http://h/x.iso".parse().unwrap()),
                version: Some(version),
            }],
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
        let url = "http://h/x.idx".parse().unwrap();
        recipe.index = Some(IndexFile { url, bytes: b"abc"[..].into() });
        recipe.trust = Trust::Pinned;
        assert_eq!(lines(&recipe)[0], "inetboot image: http://h/x.iso, verified, pinned");
        assert!(lines(&recipe)[1].starts_with("inetboot index: 3 bytes, sha256:ba7816bf"));
    }
}
