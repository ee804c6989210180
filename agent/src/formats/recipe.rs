//! Everything that is needed to open an image again: the first life finds it, and hands it to the second
//! ([`crate::formats::handoff`]).

use crate::formats::index::Place;
use crate::formats::trust::Trust;
use crate::formats::url::Url;
use crate::formats::version::Version;
use std::sync::Arc;

/// An image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Bytes of the image.
    pub length: u64,
    /// The places that have it, the preferred first.
    pub mirrors: Vec<MirrorRecord>,
    /// Places that turned out not to have it.
    pub wrong: Vec<Condemned>,
    pub index: Option<IndexFile>,
    pub trust: Trust,
    /// The pieces to fetch ahead of need: the text of a profile.
    pub profile: Option<String>,
}

/// A place, and the version of the file there where no index tells one image from the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorRecord {
    pub place: Place,
    pub version: Option<Version>,
}

/// A place that sent wrong bytes, or cannot have the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    pub url: Url,
    pub why: String,
}

/// An index as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    pub url: Url,
    pub bytes: Arc<[u8]>,
}
