//! Indexes: the digests of an image's pieces, and the places that have it. Ours, and those that the world
//! publishes already. They are told apart by their contents, never by their names.

pub mod casync;
pub mod metalink;
pub mod ours;
pub mod torrent;

use crate::formats::pieces::{Pieces, PiecesError};
use crate::formats::url::Url;

/// The largest index that is read: enough for 200 GB in our blocks.
pub const LARGEST: u64 = 32 << 20;

/// The contents of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub pieces: Pieces,
    /// The places that may have the image, the preferred first, as they are written: an address may be
    /// relative to the index's.
    pub places: Vec<Place<String>>,
    /// The address of the profile, likewise.
    pub profile: Option<String>,
}

/// A place that has an image, at an address of type `A`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place<A = Url> {
    /// The image as one file.
    File(A),
    /// A directory with a file for each piece; its address ends with a slash.
    Store { url: A, form: Form },
}

impl<A> Place<A> {
    pub fn address(&self) -> &A {
        match self {
            Self::File(url) | Self::Store { url, .. } => url,
        }
    }
}

impl Place<String> {
    /// The place itself, of an index at `base`; `None` where the address makes no sense.
    pub fn beside(&self, base: &Url) -> Option<Place> {
        Some(match self {
            Self::File(url) => Place::File(base.join(url)?),
            Self::Store { url, form } => {
                let slash = if url.ends_with('/') { "" } else { "/" };
                Place::Store { url: base.join(&format!("{url}{slash}"))?, form: *form }
            }
        })
    }
}

/// The names of a store's files, and their packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `ab/abcdef…`, as it is.
    Plain,
    /// `ab/abcdef…`, zlib (RFC 1950): the classic HTTP-FUSE form too.
    Zlib,
    /// `ab/abcdef…`, zstd (RFC 8878).
    Zstd,
    /// `abcd/abcdef….cacnk`, zstd: casync's.
    Casync,
}

impl Form {
    const NAMED: [(&'static str, Self); 4] =
        [("none", Self::Plain), ("zlib", Self::Zlib), ("zstd", Self::Zstd), ("casync", Self::Casync)];

    /// The word for it in an index of ours.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, form)| *form == self).map_or("none", |(name, _)| name)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, form)| *form)
    }

    /// The path below the store of the piece with this digest.
    pub fn path(self, digest: &str) -> String {
        let part = |length: usize| digest.get(..length).unwrap_or(digest);
        match self {
            Self::Casync => format!("{}/{digest}.cacnk", part(4)),
            Self::Plain | Self::Zlib | Self::Zstd => format!("{}/{digest}", part(2)),
        }
    }
}

/// The reason why an index cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("it is neither an index of InetBoot's, nor a .torrent, .meta4 or .caibx file")]
    Unknown,
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("it contradicts itself")]
    Pieces(#[from] PiecesError),
}

/// True for the beginning of an index; false for that of an image.
pub fn is_index(start: &[u8]) -> bool {
    ours::is(start) || torrent::is(start) || metalink::is(start) || casync::is(start)
}

/// Read an index of any kind. `url` is its address, which casync's index needs: it does not name its store.
pub fn decode(bytes: &[u8], url: &str) -> Result<Index, IndexError> {
    if ours::is(bytes) {
        ours::decode(bytes)
    } else if torrent::is(bytes) {
        torrent::decode(bytes)
    } else if casync::is(bytes) {
        casync::decode(bytes, url)
    } else if metalink::is(bytes) {
        metalink::decode(bytes)
    } else {
        Err(IndexError::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_image_is_no_index() {
        assert!(!is_index(&[0; 64]));
        // The boot code of a hybrid ISO.
        assert!(!is_index(b"\x45\x52\x08\x00\x00\x00\x90\x90"));
        assert_eq!(decode(b"<html>", "http://h/x"), Err(IndexError::Unknown));
    }

    #[test]
    fn a_piece_has_its_place_in_the_store() {
        assert_eq!(Form::Zstd.path("abcdef"), "ab/abcdef");
        assert_eq!(Form::Casync.path("abcdef"), "abcd/abcdef.cacnk");
        assert_eq!(Form::from_name("zlib"), Some(Form::Zlib));
        assert_eq!(Form::Zlib.name(), "zlib");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, "http://h/x.caibx");
            for head in [&b"inetboot-index 1\n"[..], b"d8:announce", b"<?xml version='1.0'?><metalink "] {
                let _ = decode(&[head, &bytes].concat(), "http://h/x");
            }
        }
    }
}
