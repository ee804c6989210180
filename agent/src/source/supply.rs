//! The supply behind the cache: pieces from a store where it has them, and else from the mirrors.

use crate::formats::pieces::Pieces;
use crate::source::fault::SourceError;
use crate::source::mirrors::{Deliver, Mirrors};
use crate::source::store::PieceStore;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes fetched at a time when all of an image is fetched in the background.
const STRETCH: u64 = 4 << 20;

/// A provider of pieces.
pub trait Supply: fmt::Display + Send + Sync + 'static {
    fn pieces(&self) -> &Pieces;

    /// Pieces `run` to `deliver`, in any order, checked where they can be, each as soon as it is here.
    fn fetch(&self, run: Range<u64>, deliver: Deliver<'_>) -> Result<(), SourceError>;

    /// The reason why nothing comes, while that lasts.
    fn trouble(&self) -> Option<String>;

    /// Let devices go, and end requests under way soon: nothing is read any more.
    fn close(&self);
}

/// The mirrors, with a store beside them or without.
#[derive(Debug)]
pub struct StoredSupply {
    mirrors: Arc<Mirrors>,
    store: Option<Box<dyn PieceStore>>,
    /// Bytes that came from the store.
    spared: AtomicU64,
}

impl StoredSupply {
    pub fn new(mirrors: Arc<Mirrors>, store: Option<Box<dyn PieceStore>>) -> Self {
        Self { mirrors, store, spared: AtomicU64::new(0) }
    }

    pub fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    pub fn store(&self) -> Option<&dyn PieceStore> {
        self.store.as_deref()
    }

    /// Bytes that did not have to be fetched.
    pub fn spared(&self) -> u64 {
        self.spared.load(Relaxed)
    }

    /// Fetch all pieces that `store`, this supply's own, lacks. Returns how many it lacks afterwards: each
    /// piece is read back and checked.
    pub fn fill(&self, store: &dyn PieceStore) -> Result<u64, SourceError> {
        let pieces = self.mirrors.pieces();
        let stretch = (STRETCH / pieces.usual_size()).max(1);
        for start in (0..pieces.count()).step_by(stretch as usize) {
            let end = (start + stretch).min(pieces.count());
            for run in self.missing(store, start..end, &mut |_, _| {}) {
                self.mirrors.fetch(run, &mut |number, bytes| store.put(pieces, number, &bytes))?;
            }
        }

        store.flush();
        let missing = self.missing(store, 0..pieces.count(), &mut |_, _| {});
        Ok(missing.iter().map(|run| run.end - run.start).sum())
    }

    /// The pieces of `run` that `store` lacks. Those that it has, and that are right, go to `found`.
    fn missing(
        &self,
        store: &dyn PieceStore,
        run: Range<u64>,
        found: &mut dyn FnMut(u64, Vec<u8>),
    ) -> Vec<Range<u64>> {
        let pieces = self.mirrors.pieces();
        let mut missing: Vec<Range<u64>> = Vec::new();
        for number in run {
            match store.get(pieces, number).filter(|bytes| pieces.accept(number, bytes)) {
                Some(bytes) => found(number, bytes),
                None => match missing.last_mut() {
                    Some(run) if run.end == number => run.end += 1,
                    _ => missing.push(number..number + 1),
                },
            }
        }
        missing
    }
}

impl Supply for StoredSupply {
    fn pieces(&self) -> &Pieces {
        self.mirrors.pieces()
    }

    fn fetch(&self, run: Range<u64>, deliver: Deliver<'_>) -> Result<(), SourceError> {
        let Some(store) = self.store() else { return self.mirrors.fetch(run, deliver) };

        // The pieces in the store do not wait for the others.
        let missing = self.missing(store, run, &mut |number, bytes| {
            self.spared.fetch_add(bytes.len() as u64, Relaxed);
            deliver(number, bytes.into());
        });
        missing.into_iter().try_for_each(|run| {
            self.mirrors.fetch(run, &mut |number, bytes| {
                // Stored first: a program that has read all of the image may end at once.
                store.offer(self.mirrors.pieces(), number, &bytes);
                deliver(number, bytes);
            })
        })
    }

    fn trouble(&self) -> Option<String> {
        self.mirrors.trouble()
    }

    fn close(&self) {
        self.mirrors.close();
        if let Some(store) = self.store() {
            store.close();
        }
    }
}

impl fmt::Display for StoredSupply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mirrors.fmt(f)
    }
}
