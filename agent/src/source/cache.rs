//! Pieces of an image in memory: each is fetched once however many readers ask for it at the same
//! time, neighbours are fetched by one request, and what will be needed is fetched before it is.
//!
//! Small on purpose. The kernel's page cache lies above us; this one only bridges the difference
//! between its requests (4 KiB to 1 MiB) and our pieces, and holds what is ahead of the reader.
//! Readers only wait: all fetching is done by a few workers, needs before guesses, so that a
//! reader goes on with its piece while the rest of the same answer is still arriving.

use crate::base::lock::lock;
use crate::formats::pieces::Pieces;
use crate::formats::profile::{Profile, Recorder};
use crate::source::Source;
use crate::source::ahead::{Guess, Streams};
use crate::source::fault::SourceError;
use crate::source::mirrors::Deliver;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Bytes one request may fetch: enough to fill a fast line, little enough that the other readers
/// of a slow one are not kept waiting.
const RUN: u64 = 1 << 20;

/// How far ahead of a stream.
const AHEAD: u64 = 4 << 20;

/// Requests under way at the same time, and those of them that nobody waits for.
const WORKERS: usize = 8;
const BACKGROUND: usize = 6;

/// What was fetched ahead and not read for this long was a wrong guess, and may go.
const STALE: Duration = Duration::from_secs(10);

/// Somebody who has the pieces.
pub trait Supply: fmt::Display + Send + Sync + 'static {
    /// The image's pieces.
    fn pieces(&self) -> &Pieces;

    /// Pieces `run` to `deliver`, in any order, checked where they can be, each as soon as it is here.
    fn fetch(&self, run: Range<u64>, deliver: Deliver<'_>) -> Result<(), SourceError>;

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

#[derive(Debug)]
struct Shelf {
    slots: HashMap<u64, Slot>,
    /// Bytes of the pieces that are here.
    bytes: u64,
    /// Bytes of pieces, here or coming, that nobody has asked for yet.
    unread: u64,
    clock: u64,
    streams: Streams,
    recorder: Recorder,
    /// What to fetch: somebody waits for it; a stream will come to it; the profile has it.
    needed: VecDeque<Range<u64>>,
    guessed: VecDeque<Range<u64>>,
    profile: VecDeque<Range<u64>>,
    /// Requests under way that nobody waits for.
    background: usize,
    closed: bool,
}

#[derive(Debug)]
enum Slot {
    /// It is being fetched, or soon will be; unread while nobody has asked for it.
    Coming { unread: bool },
    /// It is here, last used at this tick; unread since then, where it came ahead of need.
    Here { piece: Arc<[u8]>, used: u64, unread: Option<Instant> },
    /// It does not come. For the reader who waits for it.
    Failed(SourceError),
}

/// What a reader finds.
enum Look {
    Here(Arc<[u8]>),
    Coming,
    Failed(SourceError),
    Missing,
}

impl<S: Supply> Cached<S> {
    /// Keep about `bytes` of `supply` in memory, and no less than two requests' worth; fetch ahead
    /// in the order of the profile where there is one.
    pub fn new(supply: S, bytes: u64, profile: Option<Profile>) -> io::Result<Self> {
        let usual_size = supply.pieces().usual_size();
        let capacity = bytes.max(2 * RUN).max(2 * usual_size);
        let shared = Arc::new(Shared {
            supply,
            capacity,
            shelf: Mutex::new(Shelf::new(profile, usual_size)),
            arrived: Condvar::new(),
            work: Condvar::new(),
        });
        let cached = Self { shared };
        for _ in 0..WORKERS {
            let worker = Arc::clone(&cached.shared);
            std::thread::Builder::new().name("fetch".into()).spawn(move || worker.work())?;
        }
        Ok(cached)
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

    /// Piece `number`, of a reader who also wants those up to `last`.
    fn piece(&self, number: u64, last: u64) -> Result<Arc<[u8]>, SourceError> {
        let pieces = self.supply.pieces();
        let mut shelf = lock(&self.shelf);
        let most = (AHEAD / pieces.usual_size()).max(1);
        let missing = shelf.is_missing(number);
        let Guess { after, before } = shelf.streams.touch(number, missing, most);
        let ahead = after.end.clamp(number + 1, pieces.count());
        shelf.recorder.note(number);
        if missing {
            shelf.need(number, last, ahead, self.run(), pieces);
        } else if !after.is_empty() {
            // Before this reader waits: or the next piece would come a round trip later.
            shelf.guessed.push_back(after.start..after.end.min(pieces.count()));
        }
        if !before.is_empty() {
            shelf.guessed.push_back(before);
        }
        self.work.notify_all();
        loop {
            match shelf.look(number) {
                Look::Here(piece) => {
                    // There may be room for more ahead of the reader now.
                    self.work.notify_all();
                    return Ok(piece);
                }
                Look::Failed(error) => return Err(error),
                Look::Coming => {}
                Look::Missing => {
                    shelf.need(number, last, number + 1, self.run(), pieces);
                    self.work.notify_all();
                }
            }
            shelf = self.wait(&self.arrived, shelf);
        }
    }

    /// A worker: until the cache is closed.
    fn work(&self) {
        let pieces = self.supply.pieces();
        let mut shelf = lock(&self.shelf);
        while !shelf.closed {
            let Some((run, needed)) = shelf.next(self.run(), self.capacity / 2, pieces) else {
                shelf = self.wait(&self.work, shelf);
                continue;
            };
            shelf.background += usize::from(!needed);
            drop(shelf);
            let outcome = self.supply.fetch(run.clone(), &mut |number, piece| {
                let mut shelf = lock(&self.shelf);
                shelf.arrive(number, piece);
                shelf.shrink(self.capacity);
                drop(shelf);
                self.arrived.notify_all();
            });
            shelf = lock(&self.shelf);
            shelf.background -= usize::from(!needed);
            if let Err(error) = outcome {
                shelf.give_up(run, error, pieces);
                self.arrived.notify_all();
            }
        }
    }
}

impl Shelf {
    /// Nothing yet, of pieces of about `size` bytes.
    fn new(profile: Option<Profile>, size: u64) -> Self {
        let known = profile.iter().flat_map(|profile| profile.runs.clone()).flatten().collect();
        Self {
            slots: HashMap::new(),
            bytes: 0,
            unread: 0,
            clock: 0,
            streams: Streams::new(known, size),
            recorder: Recorder::default(),
            needed: VecDeque::new(),
            guessed: VecDeque::new(),
            profile: profile.map(|profile| profile.runs.into()).unwrap_or_default(),
            background: 0,
            closed: false,
        }
    }

    /// A reader looks for piece `number`.
    fn look(&mut self, number: u64) -> Look {
        self.clock += 1;
        match self.slots.get_mut(&number) {
            None => Look::Missing,
            Some(Slot::Here { piece, used, unread }) => {
                *used = self.clock;
                if unread.take().is_some() {
                    self.unread -= piece.len() as u64;
                }
                Look::Here(Arc::clone(piece))
            }
            Some(Slot::Coming { .. }) => Look::Coming,
            Some(Slot::Failed(_)) => match self.slots.remove(&number) {
                Some(Slot::Failed(error)) => Look::Failed(error),
                _ => Look::Missing,
            },
        }
    }

    fn is_missing(&self, number: u64) -> bool {
        !self.slots.contains_key(&number)
    }

    /// A reader waits for `number`, wants those up to `last`, and may want those before `ahead`:
    /// one request, as long as all of them are missing.
    fn need(&mut self, number: u64, last: u64, ahead: u64, most: u64, pieces: &Pieces) {
        let mut end = number;
        while end < ahead.max(last + 1).min(number + most) && self.is_missing(end) {
            let unread = end > last;
            if unread {
                self.unread += pieces.size(end);
            }
            self.slots.insert(end, Slot::Coming { unread });
            end += 1;
        }
        self.needed.push_back(number..end);
        if end < ahead {
            self.guessed.push_back(end..ahead);
        }
    }

    /// The next run to fetch, and whether somebody waits for it. What nobody waits for is marked as
    /// coming here; at most `most` pieces of it, and only while less than `budget` bytes are unread.
    fn next(&mut self, most: u64, budget: u64, pieces: &Pieces) -> Option<(Range<u64>, bool)> {
        if let Some(run) = self.needed.pop_front() {
            return Some((run, true));
        }
        self.forget_stale();
        while self.unread < budget && self.background < BACKGROUND {
            let (run, of_profile) = match self.guessed.pop_front() {
                Some(run) => (run, false),
                None => (self.profile.pop_front()?, true),
            };
            // What was read once is in the kernel's cache.
            let useful = |shelf: &Self, number: u64| shelf.is_missing(number) && !shelf.recorder.has(number);
            let Some(start) = run.clone().find(|number| useful(self, *number)) else { continue };
            let mut end = start;
            while end < run.end.min(start + most) && useful(self, end) {
                self.unread += pieces.size(end);
                self.slots.insert(end, Slot::Coming { unread: true });
                end += 1;
            }
            if end < run.end {
                let rest = if of_profile { &mut self.profile } else { &mut self.guessed };
                rest.push_front(end..run.end);
            }
            return Some((start..end, false));
        }
        None
    }

    /// Wrong guesses must not keep right ones out.
    fn forget_stale(&mut self) {
        for slot in self.slots.values_mut() {
            if let Slot::Here { piece, unread, .. } = slot
                && unread.is_some_and(|since| since.elapsed() > STALE)
            {
                *unread = None;
                self.unread -= piece.len() as u64;
            }
        }
    }

    fn arrive(&mut self, number: u64, piece: Arc<[u8]>) {
        self.clock += 1;
        self.bytes += piece.len() as u64;
        let unread = match self.slots.get(&number) {
            Some(Slot::Coming { unread: true }) => Some(Instant::now()),
            _ => None,
        };
        self.slots.insert(number, Slot::Here { piece, used: self.clock, unread });
    }

    /// What of `run` is still coming does not come.
    fn give_up(&mut self, run: Range<u64>, error: SourceError, pieces: &Pieces) {
        let mut error = Some(error);
        for number in run {
            if let Some(Slot::Coming { unread }) = self.slots.get(&number) {
                if *unread {
                    self.unread -= pieces.size(number);
                }
                // The first reader hears the reason; the others ask again, and hear their own.
                match error.take_if(|_| !*unread) {
                    Some(error) => self.slots.insert(number, Slot::Failed(error)),
                    None => self.slots.remove(&number),
                };
            }
        }
    }

    /// Drop what was used longest ago, and not what waits for its reader, until there are at most
    /// `capacity` bytes.
    fn shrink(&mut self, capacity: u64) {
        while self.bytes > capacity {
            let here = self.slots.iter().filter_map(|(number, slot)| match slot {
                Slot::Here { used, unread, .. } => Some((unread.is_some(), *used, *number)),
                Slot::Coming { .. } | Slot::Failed(_) => None,
            });
            let Some((_, _, oldest)) = here.min() else { return };
            if let Some(Slot::Here { piece, unread, .. }) = self.slots.remove(&oldest) {
                self.bytes -= piece.len() as u64;
                if unread.is_some() {
                    self.unread -= piece.len() as u64;
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
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset + filled as u64;
            let number = pieces.at(at);
            let piece = self.shared.piece(number, pieces.at(end - 1))?;
            let from = (at - pieces.bytes(number..number + 1).start) as usize;
            let part = piece.get(from..).unwrap_or_default();
            let length = part.len().min(rest.len());
            if length == 0 {
                return Err(SourceError::Memory(io::ErrorKind::UnexpectedEof.into()));
            }
            let (sink, source) = (rest.split_at_mut(length).0, part.split_at(length).0);
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
    use crate::formats::pieces::{Algorithm, BLOCK};
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

        fn fetch(&self, run: Range<u64>, deliver: Deliver<'_>) -> Result<(), SourceError> {
            lock(&self.fetched).push(run.clone());
            std::thread::sleep(Duration::from_millis(1));
            for number in run {
                deliver(number, self.pieces.bytes(number..number + 1).map(Self::at).collect());
            }
            Ok(())
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
        let cached = Cached::new(Pattern::blocks(10), 64 * BLOCK, None).unwrap();
        cached.read_at(BLOCK / 2, &mut vec![0; 2 * BLOCK as usize]).unwrap();
        assert!(cached.supply().fetched().contains(&(0..4)), "with the rest of their group");
    }

    #[test]
    fn a_piece_is_fetched_once_however_many_ask() {
        let cached = Cached::new(Pattern::blocks(8), 64 * BLOCK, None).unwrap();
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

    #[test]
    fn memory_stays_within_its_bound() {
        let cached = Cached::new(Pattern::blocks(100), 2 * RUN, None).unwrap();
        for number in 0..100 {
            cached.read_at(number * BLOCK, &mut [0]).unwrap();
            assert!(lock(&cached.shared.shelf).bytes <= 2 * RUN);
        }
    }

    #[test]
    fn a_profile_is_fetched_before_it_is_read_and_once() {
        let profile = Profile { count: 30, runs: vec![20..26, 3..5] };
        let cached = Cached::new(Pattern::blocks(30), 64 * BLOCK, Some(profile.clone())).unwrap();
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
        let profile = Profile { count: 100, runs: vec![0..50, 50..100] };
        let cached = Cached::new(Pattern::blocks(100), 32 * BLOCK, Some(profile)).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let ahead = fetched_pieces(&cached).len();
        assert!((16..16 + BACKGROUND * 4).contains(&ahead), "{ahead}");
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
            let cached = Cached::new(Pattern::new(pieces), 4 * BLOCK, None).unwrap();
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
