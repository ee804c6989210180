//! The decisions of the cache, without its threads and its lock: which pieces are in memory, which are
//! on their way, which to fetch next and which to drop. Time is passed in, so that a test can replay
//! any order of events.
//!
//! A reader that waits for a piece is handed it when it arrives, whatever is dropped at that moment:
//! memory that is too small costs further requests, and never keeps a reader waiting. Needs are fetched
//! before guesses. Every decision takes at most logarithmic time; none looks at the whole table.

use crate::formats::pieces::Pieces;
use crate::formats::profile::{Profile, Recorder};
use crate::source::ahead::{Guess, Reason, Streams};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of one request: enough to fill a fast line, few enough that the other readers of a slow one
/// need not wait long.
pub const REQUEST: u64 = 1 << 20;

/// Bytes that are fetched ahead of a stream, at most.
const AHEAD: u64 = 4 << 20;

/// Requests for guesses under way at the same time. The workers beyond these are free for readers.
pub const BACKGROUND: usize = 6;

/// Guesses that may wait for a worker. Of more than these the oldest is too late.
const QUEUED: usize = 64;

/// A guess that no reader has asked for after this time was wrong.
const STALE: Duration = Duration::from_secs(10);

/// The state of a cache. `W` reaches a reader that waits.
#[derive(Debug)]
pub struct Schedule<W> {
    /// Bytes of pieces to hold.
    capacity: u64,
    /// Pieces of one request, and pieces ahead of a stream, at most.
    request: u64,
    ahead: u64,

    slots: HashMap<u64, Slot<W>>,
    held: u64,
    /// Bytes of guesses, in memory or on their way.
    guessed: u64,
    /// The pieces in memory by the time of their last use: those that were read, and the guesses.
    read: BTreeMap<u64, u64>,
    unread: BTreeMap<u64, u64>,
    clock: u64,

    streams: Streams,
    recorder: Recorder,

    /// Runs to fetch: for readers that wait, by guesses, and by the profile.
    needed: VecDeque<Range<u64>>,
    guesses: VecDeque<(Range<u64>, Reason)>,
    profile: VecDeque<Range<u64>>,
    background: usize,
    tasks: u64,
}

#[derive(Debug)]
enum Slot<W> {
    /// `task` fetches it, or a run in `needed` has it. Either a reader waits for it or it is a guess.
    Coming { readers: Vec<W>, guess: Option<Reason>, task: Option<u64> },
    /// It is in memory, last used at tick `used`.
    Here { bytes: Arc<[u8]>, used: u64, guess: Option<(Reason, Instant)> },
}

/// A request to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub run: Range<u64>,
    /// Tells it from a later task that fetches a piece again.
    id: u64,
    /// A reader waits for it.
    pub is_needed: bool,
}

impl<W: Clone> Schedule<W> {
    /// An empty cache of at most `capacity` bytes, and no less than two requests' worth.
    pub fn new(pieces: &Pieces, capacity: u64, profile: Option<Profile>) -> Self {
        let size = pieces.usual_size();
        let runs = profile.map(|profile| profile.runs).unwrap_or_default();

        Self {
            capacity: capacity.max(2 * REQUEST).max(2 * size),
            request: (REQUEST / size).max(1),
            ahead: (AHEAD / size).max(1),
            slots: HashMap::new(),
            held: 0,
            guessed: 0,
            read: BTreeMap::new(),
            unread: BTreeMap::new(),
            clock: 0,
            streams: Streams::new(runs.iter().cloned().flatten().collect(), size),
            recorder: Recorder::default(),
            needed: VecDeque::new(),
            guesses: VecDeque::new(),
            profile: runs.into(),
            background: 0,
            tasks: 0,
        }
    }

    /// The most pieces that one reader may ask for at a time: while it waits for them they are not
    /// counted against the capacity.
    pub fn request(&self) -> u64 {
        self.request
    }

    /// Bytes of the pieces in memory.
    #[cfg(test)]
    pub fn held(&self) -> u64 {
        self.held
    }

    /// The order in which pieces were first read.
    pub fn profile(&self, count: u64) -> Profile {
        self.recorder.profile(count)
    }

    /// A reader asks for pieces `run`. Returns those in memory; the others are handed to `reader` by
    /// [`Self::arrive`], each as soon as it is here.
    pub fn read(
        &mut self,
        run: Range<u64>,
        reader: &W,
        pieces: &Pieces,
        now: Instant,
    ) -> Vec<(u64, Arc<[u8]>)> {
        self.forget_stale(now);
        let mut here = Vec::new();

        for number in run.clone() {
            let missing = !self.slots.contains_key(&number);
            let new = self.recorder.note(number);
            let Guess { reason, after, before } = self.streams.touch(number, missing, new, self.ahead);
            let end = after.end.min(pieces.count());
            if missing {
                // Pieces that are likely to be read next come by the same request, as far as that goes.
                let end = end.max(run.end);
                let requested = self.request_run(number..end, run.end, reason, pieces);
                self.guess(requested.max(run.end)..end, reason);
            } else {
                self.guess(after.start..end, reason);
            }
            self.guess(before, reason);

            here.extend(self.take(number, reader, pieces).map(|bytes| (number, bytes)));
        }
        here
    }

    /// Piece `number` for a reader: its bytes, or a place among those that wait for it.
    fn take(&mut self, number: u64, reader: &W, pieces: &Pieces) -> Option<Arc<[u8]>> {
        self.clock += 1;
        match self.slots.get_mut(&number)? {
            Slot::Coming { readers, guess, .. } => {
                readers.push(reader.clone());
                if let Some(reason) = guess.take() {
                    self.guessed -= pieces.size(number);
                    self.streams.learn(reason, true);
                }
                None
            }
            Slot::Here { bytes, used, guess } => {
                let before = std::mem::replace(used, self.clock);
                match guess.take() {
                    Some((reason, _)) => {
                        self.unread.remove(&before);
                        self.guessed -= bytes.len() as u64;
                        self.streams.learn(reason, true);
                    }
                    None => {
                        self.read.remove(&before);
                    }
                }
                self.read.insert(self.clock, number);
                Some(Arc::clone(bytes))
            }
        }
    }

    /// Request the missing pieces at the beginning of `run` at once, at most one request's worth: those
    /// before `needed` for a reader, the others as a guess. Returns where the request ends.
    fn request_run(&mut self, run: Range<u64>, needed: u64, reason: Reason, pieces: &Pieces) -> u64 {
        let mut end = run.start;
        while end < run.end.min(run.start + self.request) && !self.slots.contains_key(&end) {
            let is_guess = end >= needed;
            // A guess that travels with a need costs no round trip: it may use more memory than others.
            if is_guess && self.guessed >= self.capacity / 4 * 3 {
                break;
            }
            self.expect(end, is_guess.then_some(reason), pieces);
            end += 1;
        }
        self.needed.push_back(run.start..end);
        end
    }

    fn expect(&mut self, number: u64, guess: Option<Reason>, pieces: &Pieces) {
        if guess.is_some() {
            self.guessed += pieces.size(number);
        }
        self.slots.insert(number, Slot::Coming { readers: Vec::new(), guess, task: None });
    }

    /// Fetch `run` when there is time for it.
    fn guess(&mut self, run: Range<u64>, reason: Reason) {
        if run.is_empty() {
            return;
        }
        if self.guesses.len() >= QUEUED {
            self.guesses.pop_front();
        }
        self.guesses.push_back((run, reason));
    }

    /// True where [`Self::next`] may find a task.
    pub fn has_work(&self) -> bool {
        let guesses = !self.guesses.is_empty() || !self.profile.is_empty();
        !self.needed.is_empty() || (guesses && self.may_guess())
    }

    fn may_guess(&self) -> bool {
        self.background < BACKGROUND && self.guessed < self.capacity / 2
    }

    /// The next request to make; [`Self::finish`] ends it.
    pub fn next(&mut self, pieces: &Pieces, now: Instant) -> Option<Task> {
        if let Some(run) = self.needed.pop_front() {
            return Some(self.begin(run, true));
        }
        self.forget_stale(now);
        while self.may_guess() {
            let (run, reason) = match self.guesses.pop_front() {
                Some(guess) => guess,
                None => (self.profile.pop_front()?, Reason::Profile),
            };
            let Some(start) = run.clone().find(|number| self.is_useful(*number, reason)) else { continue };

            let mut end = start;
            while end < run.end.min(start + self.request) && self.is_useful(end, reason) {
                self.expect(end, Some(reason), pieces);
                end += 1;
            }
            match reason {
                _ if end == run.end => {}
                Reason::Profile => self.profile.push_front(end..run.end),
                Reason::Stream | Reason::Around => self.guesses.push_front((end..run.end, reason)),
            }
            self.background += 1;
            return Some(self.begin(start..end, false));
        }
        None
    }

    fn begin(&mut self, run: Range<u64>, is_needed: bool) -> Task {
        self.tasks += 1;
        for number in run.clone() {
            if let Some(Slot::Coming { task, .. }) = self.slots.get_mut(&number) {
                *task = Some(self.tasks);
            }
        }
        Task { run, id: self.tasks, is_needed }
    }

    /// True where a guess at piece `number` is worth a request. A piece that was read once is in the
    /// kernel's cache; a stream that comes here nevertheless shows that its pieces are not.
    fn is_useful(&self, number: u64, reason: Reason) -> bool {
        !self.slots.contains_key(&number) && (reason == Reason::Stream || !self.recorder.has(number))
    }

    /// Piece `number` has arrived. Returns the readers to hand it to.
    pub fn arrive(&mut self, number: u64, bytes: &Arc<[u8]>, now: Instant) -> Vec<W> {
        let Some(Slot::Coming { readers, guess, .. }) = self.slots.get_mut(&number) else {
            return Vec::new();
        };
        let (readers, guess) = (std::mem::take(readers), guess.map(|reason| (reason, now)));

        self.clock += 1;
        self.held += bytes.len() as u64;
        let order = if guess.is_some() { &mut self.unread } else { &mut self.read };
        order.insert(self.clock, number);
        self.slots.insert(number, Slot::Here { bytes: Arc::clone(bytes), used: self.clock, guess });
        self.evict();
        readers
    }

    /// `task` has ended. Where it `failed`, returns the reader to hand the reason to: one alone, for the
    /// others ask again and hear their own. Where it did not, and a piece is missing still, its readers
    /// are let go.
    pub fn finish(&mut self, task: &Task, failed: bool, pieces: &Pieces) -> Option<W> {
        self.background -= usize::from(!task.is_needed);
        let mut told = None;
        for number in task.run.clone() {
            // A piece that had arrived may be dropped and on its way again by now.
            let Some(Slot::Coming { readers, guess, task: owner }) = self.slots.get_mut(&number) else {
                continue;
            };
            if *owner != Some(task.id) {
                continue;
            }
            if guess.is_some() {
                self.guessed -= pieces.size(number);
            }

            if told.is_none() && failed && !readers.is_empty() {
                told = Some(readers.remove(0));
            }
            if failed && !readers.is_empty() {
                *owner = None;
                match self.needed.back_mut() {
                    Some(run) if run.end == number => run.end += 1,
                    _ => self.needed.push_back(number..number + 1),
                }
            } else {
                self.slots.remove(&number);
            }
        }
        told
    }

    /// Wrong guesses must not keep right ones out: they are dropped like pieces that were read.
    fn forget_stale(&mut self, now: Instant) {
        while let Some(oldest) = self.unread.first_entry() {
            let (used, number) = (*oldest.key(), *oldest.get());
            if let Some(Slot::Here { bytes, guess, .. }) = self.slots.get_mut(&number) {
                if guess.is_some_and(|(_, since)| now.saturating_duration_since(since) <= STALE) {
                    return;
                }
                self.guessed -= bytes.len() as u64;
                if let Some((reason, _)) = guess.take() {
                    self.streams.learn(reason, false);
                }
            }
            self.unread.remove(&used);
            self.read.insert(used, number);
        }
    }

    /// Drop pieces until the rest fits: what was used longest ago. Of the memory that guesses may use,
    /// what was read takes nothing: the kernel has a copy of that.
    fn evict(&mut self) {
        while self.held > self.capacity {
            let guesses_first = self.guessed > self.capacity / 4 * 3 || self.read.is_empty();
            let guess = if guesses_first { self.unread.pop_first() } else { None };
            let Some((_, number)) = guess.or_else(|| self.read.pop_first()) else { return };
            if let Some(Slot::Here { bytes, guess, .. }) = self.slots.remove(&number) {
                self.held -= bytes.len() as u64;
                if let Some((reason, _)) = guess {
                    self.guessed -= bytes.len() as u64;
                    self.streams.learn(reason, false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::pieces::BLOCK;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const CAPACITY: u64 = 4 * REQUEST;

    /// A cheap generator: every schedule follows from its seed.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }
    }

    /// Readers, workers and a network, one step at a time in the order that the dice say.
    struct World {
        dice: Dice,
        pieces: Pieces,
        schedule: Schedule<(usize, u64)>,
        now: Instant,
        /// Pieces that each reader waits for, the number of that read, and the next piece of a reader
        /// that goes straight on.
        waits: Vec<HashSet<u64>>,
        read: Vec<u64>,
        at: Vec<u64>,
        /// Requests under way, and the pieces of each that have not arrived.
        under_way: Vec<(Task, Vec<u64>)>,
        /// Requests for each piece since a reader has waited for it.
        requests: HashMap<u64, u32>,
        fetched: u64,
        reads: u64,
        may_fail: bool,
    }

    impl World {
        fn new(seed: u64, readers: usize, profile: Option<Profile>, may_fail: bool) -> Self {
            let pieces = Pieces::unknown(1000 * BLOCK + 5);
            Self {
                dice: Dice(seed),
                schedule: Schedule::new(&pieces, CAPACITY, profile),
                pieces,
                now: Instant::now(),
                waits: vec![HashSet::new(); readers],
                read: vec![0; readers],
                at: vec![0; readers],
                under_way: Vec::new(),
                requests: HashMap::new(),
                fetched: 0,
                reads: 0,
                may_fail,
            }
        }

        fn is_awaited(&self, number: u64) -> bool {
            self.waits.iter().any(|waits| waits.contains(&number))
        }

        /// A reader that waits for nothing reads on: an even one straight on, an odd one anywhere.
        fn read(&mut self) {
            let reader = self.dice.below(self.waits.len() as u64) as usize;
            if !self.waits[reader].is_empty() {
                return;
            }
            let count = self.pieces.count();
            let start = if reader.is_multiple_of(2) { self.at[reader] } else { self.dice.below(count) };
            let run = start..(start + 1 + self.dice.below(3)).min(count);
            self.at[reader] = run.end % count;
            self.reads += 1;
            self.read[reader] = self.reads;

            let waiter = (reader, self.reads);
            let here = self.schedule.read(run.clone(), &waiter, &self.pieces, self.now);
            let here: HashSet<u64> = here.into_iter().map(|(number, _)| number).collect();
            for number in run.filter(|number| !here.contains(number)) {
                if !self.is_awaited(number) {
                    let requested = self.under_way.iter().any(|(_, rest)| rest.contains(&number));
                    self.requests.insert(number, u32::from(requested));
                }
                self.waits[reader].insert(number);
            }
        }

        /// A worker without a task looks for one.
        fn begin(&mut self) {
            if self.under_way.len() >= 8 {
                return;
            }
            let Some(task) = self.schedule.next(&self.pieces, self.now) else { return };
            assert!(!task.run.is_empty());
            for number in task.run.clone() {
                let twice = self.under_way.iter().any(|(_, rest)| rest.contains(&number));
                assert!(!twice, "piece {number} is requested twice at the same time");
                if self.is_awaited(number) {
                    *self.requests.entry(number).or_default() += 1;
                }
            }
            self.fetched += task.run.end - task.run.start;
            self.under_way.push((task.clone(), task.run.collect()));
        }

        /// A piece arrives, or a request ends.
        fn go_on(&mut self) {
            if self.under_way.is_empty() {
                return;
            }
            let which = self.dice.below(self.under_way.len() as u64) as usize;
            let rest = &mut self.under_way[which].1;
            let failed = self.may_fail && self.dice.below(10) == 0;
            if rest.is_empty() || failed {
                let (task, _) = self.under_way.swap_remove(which);
                let told = self.schedule.finish(&task, failed, &self.pieces);
                // A reader that hears of a failure gives up all it waits for.
                if let Some((reader, read)) = told
                    && self.read[reader] == read
                {
                    self.waits[reader].clear();
                }
                return;
            }

            let number = rest.swap_remove(self.dice.below(rest.len() as u64) as usize);
            let bytes = vec![0; self.pieces.size(number) as usize].into();
            let handed = self.schedule.arrive(number, &bytes, self.now);
            for (reader, waits) in self.waits.iter_mut().enumerate() {
                let waited = waits.remove(&number);
                assert!(
                    !waited || handed.contains(&(reader, self.read[reader])),
                    "reader {reader} was not handed {number}"
                );
            }

            if !self.may_fail {
                let requests = self.requests.remove(&number).unwrap_or(1);
                assert!(requests == 1, "piece {number} was requested {requests} times for one wait");
            }
        }

        fn step(&mut self) {
            match self.dice.below(8) {
                0..3 => self.read(),
                3..5 => self.begin(),
                _ => self.go_on(),
            }
            self.now += Duration::from_millis(self.dice.below(20));
            self.check();
        }

        /// The counters agree with the table, and are within their bounds.
        fn check(&self) {
            let schedule = &self.schedule;
            let (mut held, mut guessed, mut read, mut unread) = (0, 0, 0, 0);
            for (number, slot) in &schedule.slots {
                let size = self.pieces.size(*number);
                let guess = match slot {
                    Slot::Coming { readers, guess, .. } => {
                        assert!(readers.is_empty() == guess.is_some(), "{number} comes without a reason");
                        guess.is_some()
                    }
                    Slot::Here { used, guess, .. } => {
                        held += size;
                        let (count, order) = match guess {
                            Some(_) => (&mut unread, &schedule.unread),
                            None => (&mut read, &schedule.read),
                        };
                        *count += 1;
                        assert_eq!(order.get(used), Some(number));
                        guess.is_some()
                    }
                };
                guessed += if guess { size } else { 0 };
            }

            assert_eq!((schedule.held, schedule.guessed), (held, guessed));
            assert_eq!((schedule.read.len(), schedule.unread.len()), (read, unread));
            assert!(held <= CAPACITY, "{held} bytes are held");
            assert!(schedule.background <= BACKGROUND && schedule.guesses.len() <= QUEUED);
        }

        /// No further reads: all readers get what they wait for.
        fn drain(&mut self) {
            for _ in 0..10_000 {
                self.begin();
                self.go_on();
                self.check();
            }
            assert!(self.waits.iter().all(HashSet::is_empty), "a reader waits for ever");
            assert!(self.under_way.is_empty());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Each reader gets its piece by one request, in every order of events, and memory is bounded.
        #[test]
        fn one_request_serves_a_waiting_reader(seed in any::<u64>(), readers in 1usize..12) {
            let profile = Profile { count: 1001, runs: vec![500..600, 20..300] };
            let mut world = World::new(seed, readers, (seed % 2 == 0).then_some(profile), false);
            (0..3000).for_each(|_| world.step());
            world.drain();
        }

        /// One reader hears of each failed request, and the others are served still.
        #[test]
        fn failures_leave_no_reader_waiting(seed in any::<u64>(), readers in 1usize..12) {
            let mut world = World::new(seed, readers, None, true);
            (0..3000).for_each(|_| world.step());
            world.drain();
        }
    }

    /// A reader that jumps about costs the pieces that it reads, and few more.
    #[test]
    fn random_reads_are_not_guessed_at() {
        let mut world = World::new(7, 2, None, false);
        // Of these two only the one that jumps about takes part.
        world.waits[0].insert(u64::MAX);
        (0..4000).for_each(|_| world.step());
        let (fetched, reads) = (world.fetched, world.reads);
        (0..20_000).for_each(|_| world.step());
        let each = (world.fetched - fetched) as f64 / (world.reads - reads) as f64;
        // Two pieces a read, of which the cache has a few.
        assert!(each < 2.6, "{each:.1} pieces were fetched for each read");
    }

    /// A reader that goes straight on finds nearly all its pieces there.
    #[test]
    fn a_stream_is_fetched_ahead_of_its_reader() {
        let mut world = World::new(7, 1, None, false);
        while world.reads < 300 {
            world.step();
        }
        assert!(world.fetched < world.reads * 3, "{} pieces", world.fetched);
        world.drain();
        let next = world.at[0];
        let here = world.schedule.read(next..next + 1, &(0, 0), &world.pieces, world.now);
        assert_eq!(here.len(), 1, "the next piece is not there");
    }

    /// Guesses give way after a while, and needs do not wait for them.
    #[test]
    fn wrong_guesses_give_way() {
        let profile = Profile { count: 1001, runs: vec![0..500, 500..1000] };
        let mut world = World::new(7, 1, Some(profile), false);
        let fill = |world: &mut World| (0..2000).for_each(|_| (world.begin(), world.go_on()).0);
        fill(&mut world);
        let ahead = world.fetched * BLOCK;
        assert!((CAPACITY / 2..CAPACITY / 2 + BACKGROUND as u64 * REQUEST).contains(&ahead), "{ahead}");
        world.now += 2 * STALE;
        fill(&mut world);
        assert!(world.fetched * BLOCK > ahead, "the first guesses were kept for ever");
        world.check();
    }
}
