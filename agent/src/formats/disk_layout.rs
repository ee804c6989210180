//! The layout of a cache disk, which keeps pieces of images across boots; `docs/formats.md` specifies it. Pure.
//!
//! Nothing on the disk is trusted: a slot's digest is compared whenever the slot is read. So a page and its slots
//! need not be written together, and a crash, a flipped bit or an attacker costs a slot.

use crate::formats::pieces::{hex, unhex};
use sha2::{Digest, Sha256};
use std::fmt;

/// The offset of the superblock. The bytes before it, where other programs look for their marks, are zeros.
pub const SUPERBLOCK: u64 = 4096;

/// Bytes of the superblock, and of a bucket's page.
pub const PAGE: usize = 4096;

/// The offset of the first bucket.
const BUCKETS: u64 = SUPERBLOCK + PAGE as u64;

/// Bytes of an entry; the first entry of a page is about the page.
const ENTRY: usize = 64;

/// Bytes of the digest of a slot's contents.
const DIGEST: usize = 32;

/// Bytes of a name: those of an entry without its digest and its length.
const NAME: usize = ENTRY - DIGEST - 4;

/// Slots of a bucket.
const SLOTS: usize = PAGE / ENTRY - 1;

/// Bytes of a slot; most pieces take one.
pub const SLOT: u64 = 128 * 1024;

/// Bytes of a bucket: its page and its slots.
const BUCKET: u64 = PAGE as u64 + SLOTS as u64 * SLOT;

const FIRST_LINE: &str = "inetboot-cache 1";

/// Bytes of a label at most.
const LABEL: usize = 32;

/// The identity of a cache, chosen at random when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub [u8; 16]);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Id {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text)?.try_into().ok().map(Self)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub id: Id,
    /// The owner's name for the cache.
    pub label: String,
    buckets: u64,
}

/// Reasons why a disk cannot have a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("{0} bytes are too few for a cache: {least} are the least", least = BUCKETS + BUCKET)]
    Small(u64),
    #[error("a label has 1 to {LABEL} letters, digits, dots, dashes and underscores")]
    Label,
}

/// True for a label that can stand on a kernel command line.
fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() <= LABEL && text.bytes().all(plain)
}

impl Superblock {
    /// The superblock of a cache on a disk of `bytes` bytes.
    pub fn new(id: Id, label: &str, bytes: u64) -> Result<Self, LayoutError> {
        if !is_label(label) {
            return Err(LayoutError::Label);
        }
        match bytes.saturating_sub(BUCKETS) / BUCKET {
            0 => Err(LayoutError::Small(bytes)),
            buckets => Ok(Self { id, label: label.to_owned(), buckets }),
        }
    }

    /// The bytes of the superblock on the disk.
    pub fn encode(&self) -> Vec<u8> {
        let Self { id, label, buckets } = self;
        let mut bytes = format!("{FIRST_LINE}\nid {id}\nlabel {label}\nbuckets {buckets}\n").into_bytes();
        bytes.resize(PAGE, 0);
        bytes
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let text = str::from_utf8(bytes.get(..end)?).ok()?;
        let mut lines = text.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return None;
        }
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        let id = Id::parse(value("id")?)?;
        let label = value("label").filter(|label| is_label(label))?.to_owned();
        let buckets = value("buckets")?.parse().ok().filter(|buckets| *buckets > 0)?;
        // A size of more than 64 bits was not written by us.
        BUCKET.checked_mul(buckets)?.checked_add(BUCKETS)?;
        Some(Self { id, label, buckets })
    }

    /// Bytes that pieces may take.
    pub fn capacity(&self) -> u64 {
        self.slots() * SLOT
    }

    /// The offset after the last byte of the cache.
    pub fn end(&self) -> u64 {
        BUCKETS + self.buckets * BUCKET
    }

    /// The number of slots.
    pub fn slots(&self) -> u64 {
        self.buckets * SLOTS as u64
    }

    /// The number of buckets.
    pub fn buckets(&self) -> u64 {
        self.buckets
    }

    /// The offset of the page of bucket `number`.
    pub fn page(&self, number: u64) -> u64 {
        BUCKETS + number * BUCKET
    }

    /// The number of the bucket for `name`.
    pub fn bucket(&self, name: &Name) -> u64 {
        let start = name.0.first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(start) % self.buckets
    }

    /// The offset of slot `slot` of the bucket whose page is at offset `page`.
    pub fn slot(page: u64, slot: usize) -> u64 {
        page + PAGE as u64 + slot as u64 * SLOT
    }
}

/// The name of a slot's contents: a part of a piece of some image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; NAME]);

impl Name {
    /// The name of part `part` of a piece; `piece` identifies that among the pieces of all images.
    pub fn of(piece: &str, part: u64) -> Self {
        let digest = Sha256::digest(format!("{FIRST_LINE}\n{piece}\n{part}"));
        Self(digest.first_chunk().copied().unwrap_or([0; NAME]))
    }
}

/// A bucket's page, which lists the contents of its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page(Vec<u8>);

/// A slot in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The slot's number within the bucket.
    pub slot: usize,
    /// Bytes of the contents.
    pub length: usize,
    /// SHA-256 of the contents.
    pub digest: [u8; DIGEST],
}

impl Page {
    /// Takes a page as it lies on the disk. Any bytes are a page.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        bytes.resize(PAGE, 0);
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn entry(&self, slot: usize) -> Option<(&[u8], Entry)> {
        let entry = self.0.get((slot + 1) * ENTRY..(slot + 2) * ENTRY)?;
        let (name, rest) = entry.split_at(NAME);
        let (length, digest) = rest.split_first_chunk()?;
        let length = u32::from_be_bytes(*length) as usize;
        let used = length > 0 && length as u64 <= SLOT;
        used.then_some((name, Entry { slot, length, digest: digest.try_into().ok()? }))
    }

    /// The slot with the contents of this name.
    pub fn find(&self, name: &Name) -> Option<Entry> {
        (0..SLOTS)
            .filter_map(|slot| self.entry(slot))
            .find(|(known, _)| *known == name.0)
            .map(|(_, entry)| entry)
    }

    /// The number of slots in use.
    pub fn used(&self) -> usize {
        (0..SLOTS).filter(|slot| self.entry(*slot).is_some()).count()
    }

    /// Gives `contents` a slot: the one that `name` has, a free one, or the one that was given out longest ago.
    /// Returns its number.
    pub fn give(&mut self, name: &Name, contents: &[u8]) -> usize {
        let free = || (0..SLOTS).find(|slot| self.entry(*slot).is_none());
        let slot = match self.find(name).map(|entry| entry.slot).or_else(free) {
            Some(slot) => slot,
            None => {
                let oldest = self.0.first().copied().unwrap_or(0) as usize % SLOTS;
                if let Some(hand) = self.0.first_mut() {
                    *hand = ((oldest + 1) % SLOTS) as u8;
                }
                oldest
            }
        };
        if let Some(entry) = self.0.get_mut((slot + 1) * ENTRY..(slot + 2) * ENTRY) {
            let length = (contents.len() as u32).to_be_bytes();
            entry.copy_from_slice(&[&name.0[..], &length, &Sha256::digest(contents)].concat());
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(number: u64) -> Name {
        Name::of("piece", number)
    }

    #[test]
    fn a_superblock_is_read_as_it_was_written() {
        let block = Superblock::new(Id([7; 16]), "boot-cache", 100 << 20).unwrap();
        assert_eq!(Superblock::decode(&block.encode()), Some(block.clone()));
        assert!(block.end() <= 100 << 20 && block.capacity() > 90 << 20);
        assert_eq!(block.encode().len(), PAGE);
        assert_eq!(Superblock::decode(&[0; PAGE]), None);
        assert_eq!(Superblock::new(Id([7; 16]), "", 100 << 20), Err(LayoutError::Label));
        assert_eq!(Superblock::new(Id([7; 16]), "two words", 100 << 20), Err(LayoutError::Label));
        assert_eq!(Superblock::new(Id([7; 16]), "x", 1 << 20), Err(LayoutError::Small(1 << 20)));
        let huge =
            String::from_utf8(block.encode()).unwrap().replace("buckets 12", "buckets 18446744073709551615");
        assert_eq!(Superblock::decode(huge.as_bytes()), None);
        // Found by the fuzzer.
        let odd = String::from_utf8(block.encode()).unwrap().replace("boot-cache", "boot\r");
        assert_eq!(Superblock::decode(odd.as_bytes()), None);
    }

    #[test]
    fn a_full_page_gives_up_its_oldest_slot() {
        let mut page = Page::new(Vec::new());
        for number in 0..SLOTS as u64 {
            assert_eq!(page.give(&name(number), b"x"), number as usize);
        }
        assert_eq!(page.give(&name(5), b"y"), 5, "it has a slot already");
        assert_eq!((page.give(&name(1000), b"z"), page.give(&name(1001), b"z")), (0, 1));
        assert_eq!((page.find(&name(0)), page.find(&name(1))), (None, None));
        let found = page.find(&name(1000)).unwrap();
        assert_eq!((found.slot, found.length), (0, 1));
        assert_eq!(found.digest, *Sha256::digest(b"z"));
        assert_eq!(page.used(), SLOTS);
    }

    #[test]
    fn slots_do_not_overlap() {
        let block = Superblock::new(Id([7; 16]), "x", 1 << 30).unwrap();
        let last = Superblock::slot(block.page(0), SLOTS - 1) + SLOT;
        assert_eq!(last, block.page(1));
        assert_eq!(Superblock::slot(block.page(block.buckets() - 1), SLOTS - 1) + SLOT, block.end());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..PAGE + 9), number in any::<u64>()) {
            let _ = Superblock::decode(&bytes);
            let _ = Superblock::decode(&[b"inetboot-cache 1\nid ", &bytes[..]].concat());
            let mut page = Page::new(bytes);
            let slot = page.give(&name(number), b"contents");
            prop_assert_eq!(page.find(&name(number)).map(|entry| entry.slot), Some(slot));
        }
    }
}
