//! Blocks of an image in memory: a block is fetched once however many readers ask for it at the
//! same time, and neighbouring missing blocks are fetched by one request.
//!
//! Small on purpose. The kernel's page cache lies above us; this one only bridges the difference
//! between its requests (4 KiB to 1 MiB) and our blocks.

use super::Source;
use super::http::HttpError;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The fixed unit of an image.
pub const BLOCK: u64 = 256 * 1024;

/// Blocks one request may fetch: long enough to fill a fast line, short enough that the other
/// readers of a slow one are not kept waiting.
const RUN: u64 = 4;

/// A source read through a bounded cache.
#[derive(Debug)]
pub struct Cached<S> {
    source: S,
    capacity: usize,
    shelf: Mutex<Shelf>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Shelf {
    blocks: HashMap<u64, Slot>,
    clock: u64,
}

#[derive(Debug)]
enum Slot {
    /// Somebody is fetching it.
    Coming,
    /// It is here, last used at this tick.
    Here(Arc<[u8]>, u64),
}

impl<S: Source> Cached<S> {
    /// Keep at most `bytes` of `source` in memory (and no less than one request's worth).
    pub fn new(source: S, bytes: u64) -> Self {
        let capacity = (bytes / BLOCK).max(RUN) as usize;
        Self { source, capacity, shelf: Mutex::default(), arrived: Condvar::new() }
    }

    /// The source behind the cache.
    pub fn source(&self) -> &S {
        &self.source
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Block `number`; fetches it, and those after it up to `last` that are missing too.
    fn block(&self, number: u64, last: u64) -> Result<Arc<[u8]>, HttpError> {
        let mut shelf = self.lock();
        loop {
            match shelf.take(number) {
                Some(Some(block)) => return Ok(block),
                Some(None) => shelf = self.arrived.wait(shelf).unwrap_or_else(PoisonError::into_inner),
                None => break,
            }
        }
        let mut end = number + 1;
        while end <= last && end - number < RUN && !shelf.blocks.contains_key(&end) {
            end += 1;
        }
        for coming in number..end {
            shelf.blocks.insert(coming, Slot::Coming);
        }
        drop(shelf);

        let fetched = self.fetch(number, end);

        let mut shelf = self.lock();
        for coming in number..end {
            shelf.blocks.remove(&coming);
        }
        let mut first = None;
        if let Ok(blocks) = &fetched {
            for (number, block) in (number..end).zip(blocks) {
                shelf.put(number, Arc::clone(block));
            }
            first = blocks.first().map(Arc::clone);
            shelf.shrink(self.capacity);
        }
        self.arrived.notify_all();
        drop(shelf);
        match (fetched, first) {
            (Err(error), _) => Err(error),
            (Ok(_), Some(block)) => Ok(block),
            (Ok(_), None) => Err(HttpError::Memory(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn fetch(&self, number: u64, end: u64) -> Result<Vec<Arc<[u8]>>, HttpError> {
        let start = number * BLOCK;
        let length = (end * BLOCK).min(self.source.len()) - start;
        let mut bytes = vec![0; length as usize];
        self.source.read_at(start, &mut bytes)?;
        Ok(bytes.chunks(BLOCK as usize).map(Arc::from).collect())
    }
}

impl Shelf {
    /// The block, `Some(None)` while it is coming, `None` where nobody asked for it yet.
    fn take(&mut self, number: u64) -> Option<Option<Arc<[u8]>>> {
        self.clock += 1;
        match self.blocks.get_mut(&number)? {
            Slot::Coming => Some(None),
            Slot::Here(block, used) => {
                *used = self.clock;
                Some(Some(Arc::clone(block)))
            }
        }
    }

    fn put(&mut self, number: u64, block: Arc<[u8]>) {
        self.clock += 1;
        self.blocks.insert(number, Slot::Here(block, self.clock));
    }

    /// Drop what was used longest ago until `capacity` blocks are left.
    fn shrink(&mut self, capacity: usize) {
        while self.blocks.len() > capacity {
            let oldest = self
                .blocks
                .iter()
                .filter_map(|(number, slot)| match slot {
                    Slot::Here(_, used) => Some((*used, *number)),
                    Slot::Coming => None,
                })
                .min();
            match oldest {
                Some((_, number)) => self.blocks.remove(&number),
                None => return,
            };
        }
    }
}

impl<S: Source> fmt::Display for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl<S: Source> Source for Cached<S> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), HttpError> {
        if buffer.is_empty() {
            return Ok(());
        }
        let last = (offset + buffer.len() as u64 - 1) / BLOCK;
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            let block = self.block(at / BLOCK, last)?;
            let from = (at % BLOCK) as usize;
            let length = (block.len() - from).min(buffer.len() - filled);
            buffer[filled..filled + length].copy_from_slice(&block[from..from + length]);
            filled += length;
        }
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        self.source.trouble()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Every byte tells its own place.
    struct Pattern {
        length: u64,
        reads: AtomicU64,
        bytes: AtomicU64,
    }

    impl Pattern {
        fn new(length: u64) -> Self {
            Self { length, reads: AtomicU64::new(0), bytes: AtomicU64::new(0) }
        }

        fn at(offset: u64) -> u8 {
            (offset ^ (offset >> 8) ^ (offset >> 16)) as u8
        }
    }

    impl fmt::Display for Pattern {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("pattern")
        }
    }

    impl Source for Pattern {
        fn len(&self) -> u64 {
            self.length
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), HttpError> {
            assert!(offset + buffer.len() as u64 <= self.length);
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(1));
            for (at, byte) in (offset..).zip(buffer) {
                *byte = Self::at(at);
            }
            Ok(())
        }
    }

    #[test]
    fn neighbours_are_fetched_by_one_request() {
        let cached = Cached::new(Pattern::new(10 * BLOCK), 64 * BLOCK);
        cached.read_at(BLOCK / 2, &mut vec![0; 2 * BLOCK as usize]).unwrap();
        assert_eq!(cached.source().reads.load(Ordering::Relaxed), 1);
        assert_eq!(cached.source().bytes.load(Ordering::Relaxed), 3 * BLOCK);
    }

    #[test]
    fn a_block_is_fetched_once_however_many_ask() {
        let cached = Cached::new(Pattern::new(8 * BLOCK), 64 * BLOCK);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for number in 0..8 {
                        cached.read_at(number * BLOCK, &mut [0; 4096]).unwrap();
                    }
                });
            }
        });
        assert_eq!(cached.source().bytes.load(Ordering::Relaxed), 8 * BLOCK);
    }

    #[test]
    fn memory_stays_within_its_bound() {
        let cached = Cached::new(Pattern::new(100 * BLOCK), 8 * BLOCK);
        for number in 0..100 {
            cached.read_at(number * BLOCK, &mut [0]).unwrap();
            assert!(cached.lock().blocks.len() <= 8);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_read_gives_the_sources_bytes(
            length in 1u64..6 * BLOCK,
            reads in proptest::collection::vec((any::<u64>(), 0usize..600_000), 1..6),
        ) {
            let cached = Cached::new(Pattern::new(length), 4 * BLOCK);
            for (offset, size) in reads {
                let offset = offset % length;
                let size = size.min((length - offset) as usize);
                let mut buffer = vec![0; size];
                cached.read_at(offset, &mut buffer).unwrap();
                for (at, byte) in (offset..).zip(&buffer) {
                    prop_assert_eq!(*byte, Pattern::at(at));
                }
            }
        }
    }
}
