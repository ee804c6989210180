//! A bounded cache of pieces in memory. Each piece is fetched once however many readers ask for it at
//! the same time, neighbours are fetched by one request, and what will be needed is fetched before it is.
//!
//! It is small on purpose. The kernel's page cache lies above it; this one only bridges the difference
//! between the kernel's requests (4 KiB to 1 MiB) and our pieces, and holds what is ahead of the reader.
//! `Schedule` decides; here are the threads. Readers only wait: a few workers do all fetching, so that
//! a reader goes on with its piece while the rest of the same answer is still arriving.

use crate::base::lock::lock;
use crate::base::thread;
use crate::formats::profile::Profile;
use crate::source::Source;
use crate::source::fault::SourceError;
use crate::source::schedule::{Schedule, Task};
use crate::source::supply::Supply;
use std::ops::Range;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;
use std::{fmt, io};

/// Requests under way at the same time.
const WORKERS: usize = 8;

/// A supply read through a bounded cache.
#[derive(Debug)]
pub struct Cache<S: Supply> {
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    supply: S,
    state: Mutex<State>,
    /// For workers without a task.
    work: Condvar,
}

#[derive(Debug)]
struct State {
    schedule: Schedule<Reader>,
    /// Workers that wait for a task.
    idle: usize,
    closed: bool,
}

/// The way to hand pieces to a reader that waits.
type Reader = Sender<(u64, Result<Arc<[u8]>, SourceError>)>;

impl State {
    /// True where a sleeping worker has a task. Each worker that takes one asks again, so that no more
    /// are woken than there are tasks.
    fn wants_worker(&self) -> bool {
        self.idle > 0 && self.schedule.has_work()
    }
}

impl<S: Supply> Cache<S> {
    /// Hold about `bytes` of `supply` in memory; fetch ahead in the order of the profile where there is
    /// one.
    pub fn new(supply: S, bytes: u64, profile: Option<Profile>) -> io::Result<Self> {
        let schedule = Schedule::new(supply.pieces(), bytes, profile);
        let state = Mutex::new(State { schedule, idle: 0, closed: false });
        let shared = Arc::new(Shared { supply, state, work: Condvar::new() });

        let cache = Self { shared };
        for _ in 0..WORKERS {
            let worker = Arc::clone(&cache.shared);
            thread::start("fetch", move || worker.work())?;
        }
        Ok(cache)
    }

    /// The supply behind the cache.
    pub fn supply(&self) -> &S {
        &self.shared.supply
    }

    /// The order in which pieces were first read.
    pub fn profile(&self) -> Profile {
        lock(&self.shared.state).schedule.profile(self.shared.supply.pieces().count())
    }
}

impl<S: Supply> Drop for Cache<S> {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.work.notify_all();
        // Workers may be in the middle of a request for a while, and refer to the supply until then.
        self.shared.supply.close();
    }
}

impl<S: Supply> Shared<S> {
    /// Pieces `run`, at most one request's worth, to `use_piece`, in any order.
    fn read(&self, run: Range<u64>, mut use_piece: impl FnMut(u64, &[u8])) -> Result<(), SourceError> {
        let (reader, arrivals) = channel();
        let mut state = lock(&self.state);
        let here = state.schedule.read(run.clone(), &reader, self.supply.pieces(), Instant::now());
        let wake = state.wants_worker();
        drop(state);
        if wake {
            self.work.notify_one();
        }
        drop(reader);

        let missing = (run.end - run.start) as usize - here.len();
        for (number, bytes) in here {
            use_piece(number, &bytes);
        }
        for _ in 0..missing {
            // A supply that ends without the piece lets the reader go.
            let none = |_| SourceError::Memory(io::ErrorKind::UnexpectedEof.into());
            let (number, bytes) = arrivals.recv().map_err(none)?;
            use_piece(number, &bytes?);
        }
        Ok(())
    }

    /// A worker: until the cache is closed.
    fn work(&self) {
        let pieces = self.supply.pieces();
        while let Some(task) = self.next() {
            let outcome = self.supply.fetch(task.run.clone(), &mut |number, bytes| {
                let readers = lock(&self.state).schedule.arrive(number, &bytes, Instant::now());
                for reader in readers {
                    // A reader that has heard of a failure is gone.
                    let _ = reader.send((number, Ok(Arc::clone(&bytes))));
                }
            });

            let told = lock(&self.state).schedule.finish(&task, outcome.is_err(), pieces);
            if let (Some(reader), Err(error)) = (told, outcome) {
                let _ = reader.send((task.run.start, Err(error)));
            }
        }
    }

    /// The next task of a worker, which sleeps until there is one; nothing once the cache is closed.
    fn next(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        while !state.closed {
            if let Some(task) = state.schedule.next(self.supply.pieces(), Instant::now()) {
                if state.wants_worker() {
                    self.work.notify_one();
                }
                return Some(task);
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
        None
    }
}

impl<S: Supply> fmt::Display for Cache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.supply.fmt(f)
    }
}

impl<S: Supply> Source for Cache<S> {
    fn len(&self) -> u64 {
        self.shared.supply.pieces().length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let Some(last) = (buffer.len() as u64).checked_sub(1).map(|length| offset + length) else {
            return Ok(());
        };
        let pieces = self.shared.supply.pieces();
        if last >= pieces.length() {
            return Err(SourceError::Memory(io::ErrorKind::UnexpectedEof.into()));
        }
        let most = lock(&self.shared.state).schedule.request();

        let mut next = pieces.at(offset);
        let end = pieces.at(last) + 1;
        while next < end {
            let run = next..end.min(next + most);
            next = run.end;
            self.shared.read(run, |number, bytes| {
                // The bytes that the piece and the buffer have in common.
                let start = pieces.bytes(number..number + 1).start;
                let common = start.max(offset)..(start + bytes.len() as u64).min(last + 1);
                let part = bytes.get((common.start - start) as usize..(common.end - start) as usize);
                let sink = buffer.get_mut((common.start - offset) as usize..(common.end - offset) as usize);
                if let (Some(part), Some(sink)) = (part, sink) {
                    sink.copy_from_slice(part);
                }
            })?;
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
    use crate::formats::pieces::{Algorithm, BLOCK, Pieces};
    use crate::source::mirrors::Deliver;
    use crate::source::schedule::{BACKGROUND, REQUEST};
    use proptest::prelude::*;
    use std::time::Duration;

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

        fn close(&self) {}
    }

    fn fetched_pieces(cache: &Cache<Pattern>) -> Vec<u64> {
        let mut pieces: Vec<u64> = cache.supply().fetched().into_iter().flatten().collect();
        pieces.sort_unstable();
        pieces
    }

    #[test]
    fn neighbours_are_fetched_by_one_request() {
        let cache = Cache::new(Pattern::blocks(10), 64 * BLOCK, None).unwrap();
        cache.read_at(BLOCK / 2, &mut vec![0; 2 * BLOCK as usize]).unwrap();
        assert!(cache.supply().fetched().contains(&(0..4)), "with the rest of their group");
    }

    #[test]
    fn a_piece_is_fetched_once_however_many_ask() {
        let cache = Cache::new(Pattern::blocks(8), 64 * BLOCK, None).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for number in 0..8 {
                        cache.read_at(number * BLOCK, &mut [0; 4096]).unwrap();
                    }
                });
            }
        });
        assert_eq!(fetched_pieces(&cache), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn memory_stays_within_its_bound() {
        let cache = Cache::new(Pattern::blocks(100), 2 * REQUEST, None).unwrap();
        for number in 0..100 {
            cache.read_at(number * BLOCK, &mut [0]).unwrap();
            assert!(lock(&cache.shared.state).schedule.held() <= 2 * REQUEST);
        }
    }

    /// Readers that jump about in far more than fits do not throw each other's pieces away before these
    /// are used.
    #[test]
    fn readers_do_not_starve_each_other() {
        const READERS: u64 = 8;
        const READS: u64 = 100;
        let cache = Cache::new(Pattern::blocks(5000), 2 * REQUEST, None).unwrap();
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let cache = &cache;
                scope.spawn(move || {
                    for read in 0..READS {
                        let number = (reader * READS + read).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 5000;
                        cache.read_at(number * BLOCK, &mut [0]).unwrap();
                    }
                });
            }
        });
        let fetched = fetched_pieces(&cache).len() as u64;
        assert!(fetched < 3 * READERS * READS, "{fetched} pieces for {} reads", READERS * READS);
    }

    #[test]
    fn a_profile_is_fetched_before_it_is_read_and_once() {
        let profile = Profile { count: 30, runs: vec![20..26, 3..5] };
        let cache = Cache::new(Pattern::blocks(30), 64 * BLOCK, Some(profile.clone())).unwrap();
        for number in [20, 21, 22, 23, 24, 25, 3, 4] {
            cache.read_at(number * BLOCK, &mut [0]).unwrap();
        }
        let fetched = fetched_pieces(&cache);
        for number in [20, 21, 22, 23, 24, 25, 3, 4] {
            assert_eq!(fetched.iter().filter(|fetched| **fetched == number).count(), 1, "{number}");
        }
        assert_eq!(cache.profile(), profile);
    }

    #[test]
    fn what_is_fetched_ahead_is_bounded_until_it_is_read() {
        let profile = Profile { count: 100, runs: vec![0..50, 50..100] };
        let cache = Cache::new(Pattern::blocks(100), 32 * BLOCK, Some(profile)).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let ahead = fetched_pieces(&cache).len();
        assert!((16..16 + BACKGROUND * 4).contains(&ahead), "{ahead}");
        for number in 0..100 {
            cache.read_at(number * BLOCK, &mut [0]).unwrap();
        }
        assert_eq!(fetched_pieces(&cache), (0..100).collect::<Vec<_>>());
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
            let cache = Cache::new(Pattern::new(pieces), 4 * BLOCK, None).unwrap();
            for (offset, size) in reads {
                let offset = offset % length;
                let size = size.min((length - offset) as usize);
                let mut buffer = vec![0; size];
                cache.read_at(offset, &mut buffer).unwrap();
                for (at, byte) in (offset..).zip(&buffer) {
                    prop_assert_eq!(*byte, Pattern::at(at));
                }
            }
        }
    }
}
