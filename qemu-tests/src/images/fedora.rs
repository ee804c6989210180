//! Live ISOs as Fedora's are made.

use crate::images::family;
use std::path::PathBuf;

/// The release of dracut and the form of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fedora {
    /// dracut 059, and a squashfs that is the root.
    Flat,
    /// dracut 059, and a squashfs with the root's image in it. Xen is on the medium.
    Nested,
    /// dracut-ng, and a squashfs that is the root.
    Ng,
}

/// The ISO of this kind.
pub fn fedora(kind: Fedora) -> PathBuf {
    family(
        "fedora",
        match kind {
            Fedora::Flat => "flat",
            Fedora::Nested => "nested",
            Fedora::Ng => "ng",
        },
    )
}
