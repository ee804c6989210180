//! The statements that InetBoot measures: a table of what each is about, and their text form.
//!
//! A statement is an event like those that GRUB writes. Its type is `EV_IPL`, its data are
//! `inetboot TOPIC: TEXT` and a NUL. Digested is `TOPIC: TEXT` alone, so that `sha256sum` can check it, and
//! `tpm2_eventlog` does. A statement about bytes has their SHA-256 in its text.
//!
//! The PCRs are GRUB's, too: TCG's PC Client profile leaves 8 and 9 to the operating system and its loader.
//! PCR 8 takes what was asked for and decided, PCR 9 the bytes that run or are trusted. No argument is in a
//! line for PCR 9, and no digest of bytes in one for PCR 8, so that a change of one shows in one PCR only.

use crate::formats::bank::Bank;
use crate::formats::eventlog::{Event, IPL, PcrField};
use crate::formats::pcr::Pcr;
use crate::formats::pieces::hex;
use sha2::{Digest, Sha256};

/// The PCR for arguments and decisions.
pub const WORDS: Pcr = Pcr::ALL[8];

/// The PCR for bytes that run or are trusted.
pub const BYTES: Pcr = Pcr::ALL[9];

/// The beginning of our events. It is not digested.
const PREFIX: &str = "inetboot ";

/// The subject of a statement, in the order of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Agent,
    Arguments,
    Image,
    Index,
    Version,
    Hypervisor,
    Options,
    Kernel,
    Initrd,
    Overlay,
    Target,
    Serving,
    Ledger,
}

impl Topic {
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// One row of the event table.
#[derive(Debug)]
pub struct Row {
    pub topic: Topic,
    /// The topic in the text of an event.
    pub word: &'static str,
    /// The PCR that is extended.
    pub pcr: Pcr,
    /// A description of the text, for the manual.
    pub holds: &'static str,
}

/// The event table, in the order of a boot. `docs/measuring.md` shows it.
#[rustfmt::skip] // a table
pub const TABLE: [Row; 13] = [
    row(Topic::Agent, "agent", BYTES, "version, size and SHA-256 of the program that runs"),
    row(Topic::Arguments, "arguments", WORDS, "the kernel arguments that were understood, in order"),
    row(Topic::Image, "image", WORDS, "the image's addresses, and who vouches for it"),
    row(Topic::Index, "index", BYTES, "size and SHA-256 of the image's index: it stands for every byte of the image"),
    row(Topic::Version, "version", BYTES, "of an image without an index: its length, and its version on the server"),
    row(Topic::Hypervisor, "hypervisor", BYTES, "path, size and SHA-256 of the hypervisor, where one was asked for"),
    row(Topic::Options, "options", WORDS, "the hypervisor's arguments"),
    row(Topic::Kernel, "kernel", BYTES, "path, size and SHA-256 of the target's kernel"),
    row(Topic::Initrd, "initrd", BYTES, "path, size and SHA-256 of each of the target's initrds"),
    row(Topic::Overlay, "overlay", BYTES, "path, size and SHA-256 of each file added to the initrd"),
    row(Topic::Target, "target", WORDS, "the target's kernel arguments"),
    row(Topic::Serving, "serving", WORDS, "second life: the image it is about to serve, and who vouches for it"),
    row(Topic::Ledger, "ledger", WORDS, "second life, at its end: whether this log accounts for PCR 8 and 9"),
];

const fn row(topic: Topic, word: &'static str, pcr: Pcr, holds: &'static str) -> Row {
    Row { topic, word, pcr, holds }
}

/// Length and SHA-256 of bytes, computed while they pass.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    length: u64,
    sha256: Sha256,
}

impl Sum {
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.add(bytes);
        sum
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.sha256.update(bytes);
    }
}

/// One measured statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub topic: Topic,
    /// One line, without the prefix and the topic.
    pub text: String,
}

impl Statement {
    /// A statement in words. Control characters become blanks: the event is one line, and readers of logs put
    /// it into quotes.
    pub fn words(topic: Topic, text: impl Into<String>) -> Self {
        let text: String = text.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { topic, text }
    }

    /// A statement about the bytes of `sum`. `name` is their path or their version, and may be empty.
    pub fn bytes(topic: Topic, name: &str, sum: Sum) -> Self {
        let separator = if name.is_empty() { "" } else { ", " };
        let sha256 = hex(&sum.sha256.finalize());
        Self::words(topic, format!("{name}{separator}{} bytes, sha256:{sha256}", sum.length))
    }

    /// The last statement of a boot: the log accounts for our PCRs, or `unaccounted` is the first value that it
    /// does not account for.
    pub fn of_ledger(unaccounted: Option<&str>) -> Self {
        let text = match unaccounted {
            None => format!("accounts for PCR {WORDS} and {BYTES}"),
            Some(value) => format!("does not account for {value}"),
        };
        Self::words(Topic::Ledger, text)
    }

    pub fn row(&self) -> &'static Row {
        self.topic.row()
    }

    /// The text that is digested.
    pub fn extended(&self) -> String {
        format!("{}: {}", self.row().word, self.text)
    }

    /// The line in logs and policies.
    pub fn line(&self) -> String {
        format!("{PREFIX}{}", self.extended())
    }

    /// The digest for each of `banks`.
    pub fn digests(&self, banks: &[Bank]) -> Vec<(Bank, Vec<u8>)> {
        let extended = self.extended();
        banks.iter().map(|bank| (*bank, bank.digest(extended.as_bytes()))).collect()
    }

    /// The event for a log that has `banks`.
    pub fn event(&self, banks: &[Bank]) -> Event {
        let digests = self.digests(banks).into_iter().map(|(bank, digest)| (bank.id(), digest)).collect();
        let pcr = PcrField::Extended(self.row().pcr);
        Event { pcr, kind: IPL, digests, data: (self.line() + "\0").into_bytes() }
    }

    /// Reads an event. `None` if it is not one of ours.
    pub fn of_event(event: &Event) -> Option<Self> {
        // The type counts as well: an event of the type EV_NO_ACTION was not extended, and may say anything.
        if event.kind == IPL { Self::of_line(event.text()?) } else { None }
    }

    /// Reads a line of a log or a policy. `None` if it is not one of ours.
    pub fn of_line(line: &str) -> Option<Self> {
        let (word, text) = line.strip_prefix(PREFIX)?.split_once(": ")?;
        let row = TABLE.iter().find(|row| row.word == word)?;
        Some(Self { topic: row.topic, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each topic finds its own row.
    #[test]
    fn order_of_the_table() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.topic as usize, place, "{}", row.word);
        }
    }

    /// `docs/measuring.md` shows every row of the event table.
    #[test]
    fn manual() {
        let manual = include_str!("../../docs/measuring.md");
        for row in &TABLE {
            let line = format!("| `{}` | {} | {} |", row.word, row.pcr, row.holds);
            assert!(manual.contains(&line), "docs/measuring.md lacks: {line}");
        }
    }

    /// A statement is one line, and is read from that line again. Other lines are not ours.
    #[test]
    fn lines() {
        let kernel = Statement::bytes(Topic::Kernel, "live/vmlinuz", Sum::of(b"abc"));
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            kernel.line(),
            "inetboot kernel: live/vmlinuz, 3 bytes, sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Statement::of_line(&kernel.line()), Some(kernel));
        assert_eq!(Statement::words(Topic::Target, "a\nb").text, "a b");
        assert_eq!(Statement::of_line("grub_cmd: linux /vmlinuz"), None);
        assert_eq!(Statement::of_line("inetboot lunch: soup"), None);
    }
}
