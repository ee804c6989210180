//! Everything one needs to know to open an image again: what the first life found, and tells the
//! second. Pure.

use crate::formats::index::Place;
use crate::formats::trust::Trust;
use crate::formats::version::Version;
use std::sync::Arc;

/// An image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// How long the image is.
    pub length: u64,
    /// The places that have it, and which version of it where nothing else tells.
    pub mirrors: Vec<(Place, Option<Version>)>,
    /// Places that had wrong bytes, and which.
    pub wrong: Vec<(String, String)>,
    /// The index, and where it came from.
    pub index: Option<(String, Arc<[u8]>)>,
    /// Who vouches for it.
    pub trust: Trust,
    /// What to fetch ahead of need: the text of a profile.
    pub profile: Option<String>,
}
