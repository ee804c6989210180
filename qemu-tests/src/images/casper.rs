//! Live ISOs as Ubuntu's are made.

use crate::images::family;
use std::path::PathBuf;

/// The form of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Casper {
    /// One squashfs.
    Classic,
    /// Three squashfs, stacked.
    Layered,
}

/// The ISO with this root.
pub fn casper(root: Casper) -> PathBuf {
    family(
        "casper",
        match root {
            Casper::Classic => "classic",
            Casper::Layered => "layered",
        },
    )
}
