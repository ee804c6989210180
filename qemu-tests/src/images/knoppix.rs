//! A live ISO as KNOPPIX is made.

use crate::images::family;
use std::path::PathBuf;

/// The ISO, whose root is in cloop images.
pub fn knoppix() -> PathBuf {
    family("knoppix", "")
}
