//! Counters of the bytes and requests that crossed the network; both lives put them into the receipt.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes and requests so far.
#[derive(Debug, Default)]
pub struct Wire {
    bytes: AtomicU64,
    requests: AtomicU64,
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of bodies received.
    pub bytes: u64,
    pub requests: u64,
}

impl Wire {
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counters as they are now.
    pub fn traffic(&self) -> Traffic {
        Traffic { bytes: self.bytes.load(Ordering::Relaxed), requests: self.requests.load(Ordering::Relaxed) }
    }
}
