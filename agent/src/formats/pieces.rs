//! The division of an image into pieces, and the digest of each.
//!
//! A piece is fetched, checked and stored as one: a block of our own index, a piece of a torrent or a
//! metalink, a chunk of casync's. Without digests nothing can be checked, and a piece is only the unit of
//! fetching.

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512_256};
use std::ops::Range;

/// The unit of an image that nothing else divides, and of our own indexes.
pub const BLOCK: u64 = 128 * 1024;

/// The largest piece that is read: it is held in memory until it is checked.
pub const LARGEST: u64 = 16 << 20;

/// The algorithm of the digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ours by default.
    Sha256,
    /// Torrents, and the classic HTTP-FUSE form.
    Sha1,
    /// casync's.
    Sha512_256,
    /// The torrents' of version 2 (BEP 52): the root of a tree over so many leaves, a power of two.
    Tree(u32),
}

/// Bytes of a leaf of [`Algorithm::Tree`].
pub(super) const LEAF: u64 = 16 * 1024;

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha1, Self::Sha512_256];

    /// As it is written in an index.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
            Self::Sha512_256 => "sha512-256",
            Self::Tree(_) => "sha256-tree",
        }
    }

    /// The algorithm that `name` names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Bytes of a digest.
    pub const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sha512_256 | Self::Tree(_) => 32,
        }
    }

    /// The digest of `bytes`.
    pub fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha1 => Sha1::digest(bytes).to_vec(),
            Self::Sha512_256 => Sha512_256::digest(bytes).to_vec(),
            Self::Tree(leaves) => {
                let hashes = bytes.chunks(LEAF as usize).map(|leaf| Sha256::digest(leaf).into()).collect();
                tree_root(hashes, [0; 32], leaves as usize).to_vec()
            }
        }
    }
}

/// The root of a tree over `nodes`, filled up with `filler` to `count`, a power of two.
pub fn tree_root(mut nodes: Vec<[u8; 32]>, filler: [u8; 32], count: usize) -> [u8; 32] {
    nodes.resize(count.max(nodes.len()), filler);
    while nodes.len() > 1 {
        nodes = nodes.chunks(2).map(|pair| Sha256::digest(pair.concat()).into()).collect();
    }
    nodes.first().copied().unwrap_or(filler)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cut {
    /// All alike, but for the last.
    Every(u64),
    /// The end of each, in order.
    Ends(Vec<u64>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    length: u64,
    cut: Cut,
    digests: Option<(Algorithm, Vec<u8>)>,
}

/// The reason why sizes and digests cannot be the pieces of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PiecesError {
    /// Nothing, or more than is read at once.
    #[error("pieces of {0} bytes are not supported (1 to {LARGEST})")]
    Size(u64),
    /// Digests and length contradict each other.
    #[error("there are {got} bytes of digests where {wanted} are needed")]
    Count { wanted: u64, got: u64 },
    #[error("the image is empty")]
    Empty,
}

impl Pieces {
    /// `length` bytes without digests.
    pub fn unknown(length: u64) -> Self {
        Self { length, cut: Cut::Every(BLOCK), digests: None }
    }

    /// `length` bytes in pieces of `size`, with their digests one after the other.
    pub fn every(
        size: u64,
        length: u64,
        algorithm: Algorithm,
        digests: Vec<u8>,
    ) -> Result<Self, PiecesError> {
        if size == 0 || size > LARGEST {
            return Err(PiecesError::Size(size));
        }
        Self::with(Cut::Every(size), length, algorithm, digests)
    }

    /// Pieces that end at `ends`, with their digests one after the other.
    pub fn ending(ends: Vec<u64>, algorithm: Algorithm, digests: Vec<u8>) -> Result<Self, PiecesError> {
        let mut start = 0;
        for end in &ends {
            match end.checked_sub(start) {
                Some(size) if (1..=LARGEST).contains(&size) => start = *end,
                wrong => return Err(PiecesError::Size(wrong.unwrap_or(0))),
            }
        }
        Self::with(Cut::Ends(ends), start, algorithm, digests)
    }

    fn with(cut: Cut, length: u64, algorithm: Algorithm, digests: Vec<u8>) -> Result<Self, PiecesError> {
        if length == 0 {
            return Err(PiecesError::Empty);
        }
        let got = digests.len() as u64;
        let pieces = Self { length, cut, digests: Some((algorithm, digests)) };
        let wanted = pieces.count().saturating_mul(algorithm.length() as u64);
        if wanted == got { Ok(pieces) } else { Err(PiecesError::Count { wanted, got }) }
    }

    /// Bytes of the image.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The number of pieces.
    pub fn count(&self) -> u64 {
        match &self.cut {
            Cut::Every(size) => self.length.div_ceil(*size),
            Cut::Ends(ends) => ends.len() as u64,
        }
    }

    /// The piece that the byte at `offset` is in.
    pub fn at(&self, offset: u64) -> u64 {
        match &self.cut {
            Cut::Every(size) => offset / size,
            Cut::Ends(ends) => ends.partition_point(|end| *end <= offset) as u64,
        }
    }

    /// The bytes of pieces `run`, which must exist.
    pub fn bytes(&self, run: Range<u64>) -> Range<u64> {
        match &self.cut {
            Cut::Every(size) => run.start * size..(run.end * size).min(self.length),
            Cut::Ends(ends) => {
                let end_of = |number: u64| match number {
                    0 => 0,
                    number => ends.get(number as usize - 1).copied().unwrap_or(self.length),
                };
                end_of(run.start)..end_of(run.end)
            }
        }
    }

    /// Bytes of piece `number`.
    pub fn size(&self, number: u64) -> u64 {
        let bytes = self.bytes(number..number + 1);
        bytes.end - bytes.start
    }

    /// The size of all pieces but the last, where they are alike.
    pub fn fixed_size(&self) -> Option<u64> {
        match &self.cut {
            Cut::Every(size) => Some(*size),
            Cut::Ends(_) => None,
        }
    }

    /// The size of most pieces, to divide a budget of memory by.
    pub fn usual_size(&self) -> u64 {
        match &self.cut {
            Cut::Every(size) => *size,
            Cut::Ends(_) => (self.length / self.count().max(1)).max(1),
        }
    }

    /// True where pieces can be checked.
    pub fn are_checked(&self) -> bool {
        self.digests.is_some()
    }

    /// The digest that piece `number` has to have.
    pub fn digest(&self, number: u64) -> Option<(Algorithm, &[u8])> {
        let (algorithm, digests) = self.digests.as_ref()?;
        let start = usize::try_from(number).ok()?.checked_mul(algorithm.length())?;
        Some((*algorithm, digests.get(start..start + algorithm.length())?))
    }

    /// True where `bytes` may be piece `number`; without digests any bytes may.
    pub fn accept(&self, number: u64, bytes: &[u8]) -> bool {
        match self.digest(number) {
            Some((algorithm, digest)) => algorithm.digest(bytes) == digest,
            None => self.digests.is_none(),
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes that `text` writes in hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digests(pieces: &[&[u8]]) -> Vec<u8> {
        pieces.iter().flat_map(|piece| Algorithm::Sha256.digest(piece)).collect()
    }

    #[test]
    fn a_piece_is_accepted_only_as_itself() {
        let pieces = Pieces::every(4, 10, Algorithm::Sha256, digests(&[b"0123", b"4567", b"89"])).unwrap();
        assert!(pieces.accept(0, b"0123") && pieces.accept(2, b"89"));
        assert!(!pieces.accept(1, b"0123") && !pieces.accept(2, b"8") && !pieces.accept(3, b""));
        assert!(Pieces::unknown(10).accept(0, b"anything"));
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let none = Vec::new;
        assert_eq!(Pieces::every(0, 10, Algorithm::Sha1, none()), Err(PiecesError::Size(0)));
        assert!(Pieces::every(LARGEST + 1, 10, Algorithm::Sha1, none()).is_err());
        assert_eq!(Pieces::every(4, 0, Algorithm::Sha1, none()), Err(PiecesError::Empty));
        assert_eq!(
            Pieces::every(4, 10, Algorithm::Sha1, vec![0; 40]),
            Err(PiecesError::Count { wanted: 60, got: 40 })
        );
        assert!(Pieces::ending(vec![5, 5], Algorithm::Sha1, vec![0; 40]).is_err());
        assert!(Pieces::every(1, u64::MAX, Algorithm::Sha256, none()).is_err());
    }

    #[test]
    fn digests_of_the_known_words() {
        assert_eq!(hex(&Algorithm::Sha1.digest(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            hex(&Algorithm::Sha512_256.digest(b"abc")),
            "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"
        );
        assert_eq!(unhex("00fF"), Some(vec![0, 255]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("+1"), None);
    }

    #[test]
    fn a_tree_is_over_its_leaves_and_zeros() {
        let leaf = |byte: u8| Sha256::digest([byte; LEAF as usize]).to_vec();
        let pair = |left: &[u8], right: &[u8]| Sha256::digest([left, right].concat()).to_vec();
        let three = [vec![1; LEAF as usize], vec![2; LEAF as usize], vec![3; LEAF as usize]].concat();
        let wanted = pair(&pair(&leaf(1), &leaf(2)), &pair(&leaf(3), &[0; 32]));
        assert_eq!(Algorithm::Tree(4).digest(&three), wanted);
        assert_eq!(Algorithm::Tree(1).digest(&[1; LEAF as usize]), leaf(1));
    }

    proptest! {
        #[test]
        fn every_byte_is_in_the_piece_that_says_so(
            sizes in proptest::collection::vec(1u64..50, 1..20),
            at in any::<u64>(),
        ) {
            let ends: Vec<u64> =
                sizes.iter().scan(0, |sum, size| { *sum += size; Some(*sum) }).collect();
            let count = ends.len();
            let pieces = Pieces::ending(ends, Algorithm::Sha1, vec![0; 20 * count]).unwrap();
            let offset = at % pieces.length();
            let number = pieces.at(offset);
            prop_assert!(pieces.bytes(number..number + 1).contains(&offset));
            prop_assert_eq!(pieces.size(number), sizes[number as usize]);
            prop_assert_eq!(pieces.bytes(0..pieces.count()), 0..pieces.length());
        }
    }
}
