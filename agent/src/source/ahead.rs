//! Guesses at the pieces that will be read next.
//!
//! A reader that goes on where it stopped is a stream: the longer it goes on, the more is fetched ahead
//! of it. Pieces around a piece in a new place are likely to be read soon. Those behind it come along, and
//! where it had to be fetched so does the rest of its group; that costs bytes, and no round trip. Readers
//! that jump about make such guesses worthless, so they stop where few of them come true. Rules and numbers
//! are those that did best on a recorded boot (`benches/debian-boot.trace`) within 1.3 times the bytes of
//! the blocks it touches.

use std::collections::HashSet;
use std::ops::Range;

/// Streams that are followed at the same time.
const STREAMS: usize = 16;

/// Bytes of a group: the pieces between two multiples of this.
const GROUP: u64 = 512 * 1024;

/// Bytes behind a piece in a new place.
const ALONG: u64 = 256 * 1024;

/// Steps of a stream before it is believed to be one.
const BELIEVED: u64 = 4;

/// Guesses whose outcome is remembered, and how many of them have to be right: fewer, and the readers
/// jump about, so that only bytes are lost with each further guess.
const REMEMBERED: u32 = u64::BITS;
const RIGHT: u32 = REMEMBERED / 8;

/// Once guesses do not pay, one in so many new places is guessed at all the same: readers change.
const PROBE: u64 = 16;

/// The readers of an image.
#[derive(Debug)]
pub struct Streams {
    /// Pieces of the profile: what lies around them is known, and need not be guessed.
    known: HashSet<u64>,
    /// Pieces of a group, and pieces that come along.
    group: u64,
    along: u64,
    streams: Vec<Stream>,
    clock: u64,
    /// One bit for each of the last guesses at what lies around a piece: whether it was read.
    outcomes: u64,
    /// New places since guesses have stopped to pay.
    passed: u64,
}

#[derive(Debug)]
struct Stream {
    /// The piece it will read next.
    next: u64,
    /// Pieces it has read one after the other.
    steps: u64,
    /// The end of what was asked for.
    reach: u64,
    used: u64,
}

/// The reason to fetch a piece that no reader has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A stream will come to it.
    Stream,
    /// It lies around a piece that was read.
    Around,
    /// The profile has it.
    Profile,
}

/// Pieces worth having with a piece. Some of them may be here, or asked for, already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    pub reason: Reason,
    /// Behind it: by the same request, as far as that goes.
    pub after: Range<u64>,
    /// Before it: when there is room.
    pub before: Range<u64>,
}

impl Guess {
    const NOTHING: Self = Self { reason: Reason::Around, after: 0..0, before: 0..0 };

    fn around(before: Range<u64>, after: Range<u64>) -> Self {
        Self { reason: Reason::Around, after, before }
    }
}

impl Streams {
    /// No reader yet. Pieces have about `size` bytes; a profile has the pieces `known`.
    pub fn new(known: HashSet<u64>, size: u64) -> Self {
        Self {
            known,
            group: (GROUP / size).max(1),
            along: ALONG / size,
            streams: Vec::new(),
            clock: 0,
            outcomes: u64::MAX,
            passed: 0,
        }
    }

    /// Piece `number` is read, which was not at hand if it is `missing`, and was never read before if it
    /// is `new`: the pieces to have with it, of a stream at most `most`.
    pub fn touch(&mut self, number: u64, missing: bool, new: bool, most: u64) -> Guess {
        let stream = self.follow(number, most);
        if self.known.contains(&number) {
            return Guess::NOTHING;
        }
        if let Some(after) = stream {
            return Guess { reason: Reason::Stream, after, before: 0..0 };
        }
        if !(missing || new) || !self.around_pays() {
            return Guess::NOTHING;
        }
        let start = number - number % self.group;
        let along = number + 1 + self.along;
        match missing {
            true => Guess::around(start..number, number + 1..along.max(start + self.group)),
            false => Guess::around(0..0, number + 1..along),
        }
    }

    /// A guess for this reason turned out to be `right`, or was dropped before it was read.
    pub fn learn(&mut self, reason: Reason, right: bool) {
        if reason == Reason::Around {
            self.outcomes = self.outcomes << 1 | u64::from(right);
        }
    }

    fn around_pays(&mut self) -> bool {
        if self.outcomes.count_ones() >= RIGHT {
            return true;
        }
        self.passed += 1;
        self.passed.is_multiple_of(PROBE)
    }

    /// The pieces to have ahead of the stream that comes to piece `number`; `None` where it is no stream.
    fn follow(&mut self, number: u64, most: u64) -> Option<Range<u64>> {
        self.clock += 1;
        let clock = self.clock;

        // The same piece again, in smaller reads: nothing new.
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.next == number + 1) {
            stream.used = clock;
            return None;
        }

        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.next == number) {
            (stream.next, stream.used, stream.steps) = (number + 1, clock, stream.steps + 1);
            // Half as far as it has come: that is what is wasted where it ends.
            let window = (stream.steps / 2).min(most);
            let start = stream.reach.max(stream.next);
            if stream.steps < BELIEVED {
                return None;
            }
            // In few and long requests: not before half of it was read.
            if start - stream.next <= window / 2 {
                stream.reach = stream.next + window;
            }
            return Some(start..stream.reach.max(start));
        }

        // A new stream takes the place of the one that has been still for longest.
        if self.streams.len() >= STREAMS {
            let oldest = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.used);
            if let Some((oldest, _)) = oldest {
                self.streams.swap_remove(oldest);
            }
        }
        self.streams.push(Stream { next: number + 1, steps: 1, reach: number + 1, used: clock });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = GROUP / 4;

    #[test]
    fn a_stream_is_fetched_further_and_further_ahead() {
        let mut streams = Streams::new(HashSet::new(), SIZE);
        for number in 0..200 {
            streams.touch(number, false, true, 32);
        }
        let asked: Vec<Range<u64>> = (200..232)
            .map(|number| streams.touch(number, false, true, 32).after)
            .filter(|after| !after.is_empty())
            .collect();
        assert!(asked.len() <= 3, "in few requests: {asked:?}");
        assert!(asked.iter().all(|after| after.end <= 232 + 32 && after.end - after.start >= 16));
    }

    #[test]
    fn a_short_stream_wastes_little() {
        let mut streams = Streams::new(HashSet::new(), SIZE);
        let furthest = (100..110).map(|number| streams.touch(number, false, true, 32).after.end).max();
        assert!((110..=115).contains(&furthest.unwrap()), "{furthest:?}");
    }

    #[test]
    fn a_new_place_brings_what_is_around_it() {
        let mut streams = Streams::new(HashSet::new(), SIZE);
        assert_eq!(streams.touch(5, true, true, 8), Guess::around(4..5, 6..8));
        assert_eq!(streams.touch(5, false, false, 8), Guess::NOTHING, "in smaller reads");
        assert_eq!(streams.touch(92, true, true, 8), Guess::around(92..92, 93..96));
        assert_eq!(streams.touch(95, true, true, 8), Guess::around(92..95, 96..98));
        assert_eq!(streams.touch(90, false, true, 8).after, 91..93, "it came along with another");
        let mut large = Streams::new(HashSet::new(), 4 << 20);
        assert_eq!(large.touch(9, true, true, 8), Guess::around(9..9, 10..10));
    }

    #[test]
    fn what_a_profile_knows_is_not_guessed() {
        let mut streams = Streams::new(HashSet::from_iter(10..15), SIZE);
        let guessed: Vec<u64> =
            (10..17).filter(|number| !streams.touch(*number, true, true, 32).after.is_empty()).collect();
        assert_eq!(guessed, [15]);
    }

    #[test]
    fn readers_do_not_disturb_each_other() {
        let mut streams = Streams::new(HashSet::new(), SIZE);
        let mut furthest = 0;
        for step in 0..40 {
            for reader in 0..4 {
                let end = streams.touch(reader * 1000 + step, false, true, 8).after.end;
                furthest = furthest.max(end.saturating_sub(reader * 1000 + step + 1));
            }
        }
        assert_eq!(furthest, 8);
        for place in 0..100 {
            streams.touch(place * 500, true, true, 8);
        }
        assert!(streams.streams.len() <= STREAMS);
    }

    /// Readers that jump about get the piece they ask for and little else, until guesses pay again.
    #[test]
    fn guesses_that_do_not_pay_stop() {
        let mut streams = Streams::new(HashSet::new(), SIZE);
        (0..REMEMBERED).for_each(|_| streams.learn(Reason::Around, false));
        let guesses = |streams: &mut Streams| {
            (0..160).filter(|n| streams.touch(n * 500, true, true, 8) != Guess::NOTHING).count()
        };
        assert_eq!(guesses(&mut streams), 10);
        (0..RIGHT).for_each(|_| streams.learn(Reason::Around, true));
        assert_eq!(guesses(&mut streams), 160);
        (0..REMEMBERED).for_each(|_| streams.learn(Reason::Stream, false));
        assert_eq!(guesses(&mut streams), 160, "streams tell nothing about surroundings");
    }
}
