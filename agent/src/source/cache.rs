//! Pieces of an image in memory: each is fetched once however many readers ask for it at the same
//! time, neighbours are fetched by one request, and what will be needed is fetched before it is.
//!
//! Small on purpose. The kernel's page cache lies above us; this one only bridges the difference
//! between its requests (4 KiB to 1 MiB) and our pieces, and holds what is ahead of the reader.

use super::Source;
use super::ahead::Streams;
use super::fault::SourceError;
use super::lock;
use super::pieces::Pieces;
use super::profile::{Profile, Recorder};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes one request may fetch: enough to fill a fast line, little enough that the other readers
/// of a slow one are not kept waiting.
const RUN: u64 = 1 << 20;

/// How far ahead of a stream.
const AHEAD: u64 = 4 << 20;

/// Requests that may be under way ahead of need.
const WORKERS: usize = 6;

/// What was fetched ahead and not read for this long was a wrong guess, and may go.
const STALE: Duration = Duration::from_secs(10);

/// Somebody who has the pieces.
pub trait Supply: fmt::Display + Send + Sync + 'static {
    /// The image's pieces.
    fn pieces(&self) -> &Pieces;

    /// Pieces `run`, in order, checked where they can be.
    fn fetch(&self, run: Range<u64>) -> Result<Vec<Arc<[u8]>>, SourceError>;

    /// Why nothing comes.
    fn trouble(&self) -> Option<String>;
}

/// A supply read through a bounded cache.
#[derive(Debug)]
pub struct Cached<S: Supply> {
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    supply: S,
    /// Bytes of pieces to keep.
    capacity: u64,
    shelf: Mutex<Shelf>,
    arrived: Condvar,
    work: Condvar,
}

#[derive(Debug, Default)]
struct Shelf {
    slots: HashMap<u64, Slot>,
    /// Bytes of the pieces that are here.
    bytes: u64,
    /// Bytes of those that were fetched ahead, and of those that are coming ahead.
    fresh: u64,
    clock: u64,
    streams: Streams,
    recorder: Recorder,
    /// What to fetch ahead: for streams, and of the profile.
    wanted: VecDeque<Range<u64>>,
    profile: VecDeque<Range<u64>>,
    closed: bool,
}

#[derive(Debug)]
enum Slot {
    /// Somebody is fetching it.
    Coming,
    /// It is here.
    Here {
        piece: Arc<[u8]>,
        /// The tick of its last use.
        used: u64,
        /// When it came, where it came ahead of need and nobody has asked for it yet.
        fresh: Option<Instant>,
    },
}

impl<S: Supply> Cached<S> {
    /// Keep about `bytes` of `supply` in memory, and no less than two requests' worth. With `ahead`
    /// pieces are fetched before they are needed, in the order of the profile where there is one.
    pub fn new(supply: S, bytes: u64, ahead: bool, profile: Option<Profile>) -> Self {
        let shelf = Shelf {
            profile: profile.map(|profile| profile.runs.into()).unwrap_or_default(),
            ..Shelf::default()
        };
        let capacity = bytes.max(2 * RUN).max(2 * supply.pieces().usual_size());
        let shared = Arc::new(Shared {
            supply,
            capacity,
            shelf: Mutex::new(shelf),
            arrived: Condvar::new(),
            work: Condvar::new(),
        });
        for _ in 0..if ahead { WORKERS } else { 0 } {
            let worker = Arc::clone(&shared);
            // Without it reading is only slower.
            let _ = std::thread::Builder::new().name("ahead".into()).spawn(move || worker.fetch_ahead());
        }
        Self { shared }
    }

    /// What lies behind the cache.
    pub fn supply(&self) -> &S {
        &self.shared.supply
    }

    /// The order in which pieces were first read.
    pub fn profile(&self) -> Profile {
        lock(&self.shared.shelf).recorder.profile(self.shared.supply.pieces().count())
    }
}

impl<S: Supply> Drop for Cached<S> {
    fn drop(&mut self) {
        lock(&self.shared.shelf).closed = true;
        self.shared.work.notify_all();
    }
}

impl<S: Supply> Shared<S> {
    /// Pieces of one request, at most.
    fn run(&self) -> u64 {
        (RUN / self.supply.pieces().usual_size()).max(1)
    }

    fn wait<'a>(&self, signal: &Condvar, shelf: MutexGuard<'a, Shelf>) -> MutexGuard<'a, Shelf> {
        signal.wait(shelf).unwrap_or_else(PoisonError::into_inner)
    }

    /// Piece `number`; fetches it, and those after it up to `last` that are missing too.
    fn piece(&self, number: u64, last: u64) -> Result<Arc<[u8]>, SourceError> {
        let mut shelf = lock(&self.shelf);
        self.touch(&mut shelf, number);
        loop {
            match shelf.take(number) {
                Some(Some(piece)) => {
                    // There may be room for more ahead of the reader now.
                    self.work.notify_one();
                    return Ok(piece);
                }
                Some(None) => shelf = self.wait(&self.arrived, shelf),
                None => break,
            }
        }
        let mut end = number + 1;
        while end <= last && end - number < self.run() && !shelf.slots.contains_key(&end) {
            end += 1;
        }
        for coming in number..end {
            shelf.slots.insert(coming, Slot::Coming);
        }
        drop(shelf);
        let fetched = self.supply.fetch(number..end);
        let mut shelf = lock(&self.shelf);
        let first = fetched.as_ref().map(|pieces| pieces.first().map(Arc::clone));
        let outcome = match first {
            Ok(Some(piece)) => Ok(piece),
            _ => Err(()),
        };
        shelf.put(number..end, fetched.as_deref().unwrap_or_default(), false);
        shelf.shrink(self.capacity);
        self.arrived.notify_all();
        match (outcome, fetched) {
            (Ok(piece), _) => Ok(piece),
            (Err(()), Err(error)) => Err(error),
            (Err(()), Ok(_)) => Err(SourceError::Memory(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Note that `number` is read, and what that lets one guess.
    fn touch(&self, shelf: &mut Shelf, number: u64) {
        shelf.recorder.note(number);
        let pieces = self.supply.pieces();
        let ahead = shelf.streams.touch(number, (AHEAD / pieces.usual_size()).max(1));
        let ahead = ahead.start..ahead.end.min(pieces.count());
        if !ahead.is_empty() {
            shelf.wanted.push_back(ahead);
            self.work.notify_all();
        }
    }

    /// A worker: until the cache is closed.
    fn fetch_ahead(&self) {
        let mut shelf = lock(&self.shelf);
        while !shelf.closed {
            let Some(run) = shelf.next_ahead(self.run(), self.capacity / 2, self.supply.pieces()) else {
                shelf = self.wait(&self.work, shelf);
                continue;
            };
            drop(shelf);
            let fetched = self.supply.fetch(run.clone());
            shelf = lock(&self.shelf);
            let bytes = self.supply.pieces().bytes(run.clone());
            shelf.fresh -= bytes.end - bytes.start;
            // A reader who needs it will ask himself, and hear the reason.
            shelf.put(run, fetched.as_deref().unwrap_or_default(), true);
            shelf.shrink(self.capacity);
            self.arrived.notify_all();
        }
    }
}

impl Shelf {
    /// The piece, `Some(None)` while it is coming, `None` where nobody asked for it yet.
    fn take(&mut self, number: u64) -> Option<Option<Arc<[u8]>>> {
        self.clock += 1;
        match self.slots.get_mut(&number)? {
            Slot::Coming => Some(None),
            Slot::Here { piece, used, fresh } => {
                *used = self.clock;
                if fresh.take().is_some() {
                    self.fresh -= piece.len() as u64;
                }
                Some(Some(Arc::clone(piece)))
            }
        }
    }

    /// The next run to fetch ahead, marked as coming; at most `most` pieces, and only while less
    /// than `budget` bytes wait for their reader.
    fn next_ahead(&mut self, most: u64, budget: u64, pieces: &Pieces) -> Option<Range<u64>> {
        self.forget_stale();
        while self.fresh < budget {
            let (run, of_profile) = match self.wanted.pop_front() {
                Some(run) => (run, false),
                None => (self.profile.pop_front()?, true),
            };
            // What was read once is in the kernel's cache, where it was not read ahead by a stream.
            let missing = |shelf: &Self, number: &u64| {
                !shelf.slots.contains_key(number) && !(of_profile && shelf.recorder.has(*number))
            };
            let Some(start) = run.clone().find(|number| missing(self, number)) else { continue };
            let end = (start..run.end)
                .take(most as usize)
                .take_while(|number| missing(self, number))
                .last()
                .map_or(start, |last| last + 1);
            if end < run.end {
                let rest = if of_profile { &mut self.profile } else { &mut self.wanted };
                rest.push_front(end..run.end);
            }
            for coming in start..end {
                self.slots.insert(coming, Slot::Coming);
            }
            let bytes = pieces.bytes(start..end);
            self.fresh += bytes.end - bytes.start;
            return Some(start..end);
        }
        None
    }

    /// Wrong guesses must not keep right ones out.
    fn forget_stale(&mut self) {
        for slot in self.slots.values_mut() {
            if let Slot::Here { piece, fresh, .. } = slot
                && fresh.is_some_and(|since| since.elapsed() > STALE)
            {
                *fresh = None;
                self.fresh -= piece.len() as u64;
            }
        }
    }

    /// What was coming as `run` is here, or where `pieces` are missing did not come.
    fn put(&mut self, run: Range<u64>, pieces: &[Arc<[u8]>], ahead: bool) {
        for number in run.clone() {
            self.slots.remove(&number);
        }
        for (number, piece) in run.zip(pieces) {
            self.clock += 1;
            self.bytes += piece.len() as u64;
            if ahead {
                self.fresh += piece.len() as u64;
            }
            let fresh = ahead.then(Instant::now);
            self.slots.insert(number, Slot::Here { piece: Arc::clone(piece), used: self.clock, fresh });
        }
    }

    /// Drop what was used longest ago, and not what waits for its reader, until there are at most
    /// `capacity` bytes.
    fn shrink(&mut self, capacity: u64) {
        while self.bytes > capacity {
            let here = self.slots.iter().filter_map(|(number, slot)| match slot {
                Slot::Here { used, fresh, .. } => Some((fresh.is_some(), *used, *number)),
                Slot::Coming => None,
            });
            let Some((_, _, oldest)) = here.min() else { return };
            if let Some(Slot::Here { piece, fresh, .. }) = self.slots.remove(&oldest) {
                self.bytes -= piece.len() as u64;
                if fresh.is_some() {
                    self.fresh -= piece.len() as u64;
                }
            }
        }
    }
}

impl<S: Supply> fmt::Display for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.supply.fmt(f)
    }
}

impl<S: Supply> Source for Cached<S> {
    fn len(&self) -> u64 {
        self.shared.supply.pieces().length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let pieces = self.shared.supply.pieces();
        let end = offset + buffer.len() as u64;
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            let number = pieces.at(at);
            let piece = self.shared.piece(number, pieces.at(end - 1))?;
            let from = (at - pieces.bytes(number..number + 1).start) as usize;
            let length = piece.len().saturating_sub(from).min(buffer.len() - filled);
            let (Some(source), Some(sink)) =
                (piece.get(from..from + length), buffer.get_mut(filled..filled + length))
            else {
                return Err(SourceError::Memory(io::ErrorKind::UnexpectedEof.into()));
            };
            if length == 0 {
                return Err(SourceError::Memory(io::ErrorKind::UnexpectedEof.into()));
            }
            sink.copy_from_slice(source);
            filled += length;
        }
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        self.shared.supply.trouble()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::pieces::{Algorithm, BLOCK};
    use proptest::prelude::*;

    /// Every byte tells its own place.
    struct Pattern {
        pieces: Pieces,
        fetched: Mutex<Vec<Range<u64>>>,
    }

    impl Pattern {
        fn new(pieces: Pieces) -> Self {
            Self { pieces, fetched: Mutex::default() }
        }

        fn blocks(count: u64) -> Self {
            Self::new(Pieces::unknown(count * BLOCK))
        }

        fn at(offset: u64) -> u8 {
            (offset ^ (offset >> 8) ^ (offset >> 16)) as u8
        }

        fn fetched(&self) -> Vec<Range<u64>> {
            lock(&self.fetched).clone()
        }
    }

    impl fmt::Display for Pattern {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("pattern")
        }
    }

    impl Supply for Pattern {
        fn pieces(&self) -> &Pieces {
            &self.pieces
        }

        fn fetch(&self, run: Range<u64>) -> Result<Vec<Arc<[u8]>>, SourceError> {
            lock(&self.fetched).push(run.clone());
            std::thread::sleep(Duration::from_millis(1));
            Ok(run.map(|n| self.pieces.bytes(n..n + 1).map(Self::at).collect()).collect())
        }

        fn trouble(&self) -> Option<String> {
            None
        }
    }

    fn fetched_pieces(cached: &Cached<Pattern>) -> Vec<u64> {
        let mut pieces: Vec<u64> = cached.supply().fetched().into_iter().flatten().collect();
        pieces.sort_unstable();
        pieces
    }

    #[test]
    fn neighbours_are_fetched_by_one_request() {
        let cached = Cached::new(Pattern::blocks(10), 64 * BLOCK, false, None);
        cached.read_at(BLOCK / 2, &mut vec![0; 2 * BLOCK as usize]).unwrap();
        assert_eq!(cached.supply().fetched(), [0..3]);
    }

    #[test]
    fn a_piece_is_fetched_once_however_many_ask() {
        for ahead in [false, true] {
            let cached = Cached::new(Pattern::blocks(8), 64 * BLOCK, ahead, None);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for number in 0..8 {
                            cached.read_at(number * BLOCK, &mut [0; 4096]).unwrap();
                        }
                    });
                }
            });
            assert_eq!(fetched_pieces(&cached), (0..8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn memory_stays_within_its_bound() {
        let cached = Cached::new(Pattern::blocks(100), 8 * BLOCK, true, None);
        for number in 0..100 {
            cached.read_at(number * BLOCK, &mut [0]).unwrap();
            assert!(lock(&cached.shared.shelf).bytes <= 8 * BLOCK);
        }
    }

    #[test]
    fn a_profile_is_fetched_before_it_is_read_and_once() {
        let profile = Profile { count: 30, runs: vec![20..26, 3..5] };
        let cached = Cached::new(Pattern::blocks(30), 64 * BLOCK, true, Some(profile.clone()));
        for number in [20, 21, 22, 23, 24, 25, 3, 4] {
            cached.read_at(number * BLOCK, &mut [0]).unwrap();
        }
        let fetched = fetched_pieces(&cached);
        for number in [20, 21, 22, 23, 24, 25, 3, 4] {
            assert_eq!(fetched.iter().filter(|fetched| **fetched == number).count(), 1, "{number}");
        }
        assert_eq!(cached.profile(), profile);
    }

    #[test]
    fn what_is_fetched_ahead_is_bounded_until_it_is_read() {
        let profile = Profile { count: 100, runs: vec![0..100] };
        let cached = Cached::new(Pattern::blocks(100), 32 * BLOCK, true, Some(profile));
        std::thread::sleep(Duration::from_millis(200));
        let ahead = fetched_pieces(&cached).len();
        assert!((16..16 + WORKERS * 4).contains(&ahead), "{ahead}");
        for number in 0..100 {
            cached.read_at(number * BLOCK, &mut [0]).unwrap();
        }
        assert_eq!(fetched_pieces(&cached), (0..100).collect::<Vec<_>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_read_gives_the_sources_bytes(
            sizes in proptest::collection::vec(1u64..BLOCK, 1..12),
            reads in proptest::collection::vec((any::<u64>(), 0usize..600_000), 1..6),
        ) {
            let ends: Vec<u64> = sizes.iter().scan(0, |sum, size| { *sum += size; Some(*sum) }).collect();
            let digests = vec![0; 20 * ends.len()];
            let pieces = Pieces::ending(ends, Algorithm::Sha1, digests).unwrap();
            let length = pieces.length();
            let cached = Cached::new(Pattern::new(pieces), 4 * BLOCK, true, None);
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
