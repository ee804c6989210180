//! What will be read next, guessed from what is read now. Pure.
//!
//! A reader that goes on where it stopped is a stream; once it has gone on for a while, more and
//! more is fetched ahead of it. And what lies behind a piece that is read for the first time is
//! likely to be read soon: it comes along, for the price of its bytes but without a round trip.
//! The numbers are those that did best on a recorded boot (`benches/debian-boot.trace`).

use std::collections::HashSet;
use std::ops::Range;

/// Streams that are followed at the same time.
const STREAMS: usize = 16;

/// Pieces that come along with one in a new place.
const ALONG: u64 = 1;

/// Steps of a stream before it is believed to be one.
const BELIEVED: u32 = 4;

/// The readers of an image.
#[derive(Debug)]
pub struct Streams {
    /// Pieces of the profile: what follows them is known, and need not be guessed.
    known: HashSet<u64>,
    streams: Vec<Stream>,
    touched: HashSet<u64>,
    clock: u64,
}

#[derive(Debug)]
struct Stream {
    /// The piece it will read next.
    next: u64,
    steps: u32,
    /// How many pieces to be ahead.
    window: u64,
    used: u64,
}

impl Streams {
    /// Nobody has read yet; a profile has the pieces `known`.
    pub fn new(known: HashSet<u64>) -> Self {
        Self { known, streams: Vec::new(), touched: HashSet::new(), clock: 0 }
    }

    /// Piece `number` is read: what to have behind it, at most `most` pieces. Some of it may have
    /// been asked for before.
    pub fn touch(&mut self, number: u64, most: u64) -> Range<u64> {
        let guess = self.guess(number, most);
        if self.known.contains(&number) { 0..0 } else { guess }
    }

    fn guess(&mut self, number: u64, most: u64) -> Range<u64> {
        self.clock += 1;
        let clock = self.clock;
        // The same piece again, in smaller reads: nothing new.
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.next == number + 1) {
            stream.used = clock;
            return 0..0;
        }
        let new = self.touched.insert(number);
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.next == number) {
            (stream.next, stream.used, stream.steps) = (number + 1, clock, stream.steps + 1);
            stream.window =
                if stream.steps < BELIEVED { ALONG } else { (stream.window * 2).min(most.max(1)) };
            return stream.next..stream.next + stream.window;
        }
        if self.streams.len() >= STREAMS {
            let oldest = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.used);
            if let Some((oldest, _)) = oldest {
                self.streams.swap_remove(oldest);
            }
        }
        self.streams.push(Stream { next: number + 1, steps: 0, window: ALONG, used: clock });
        if new { number + 1..number + 1 + ALONG.min(most) } else { 0..0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_fetched_further_and_further_ahead() {
        let mut streams = Streams::new(HashSet::new());
        let reach: Vec<u64> = (10..18).map(|number| streams.touch(number, 8).end).collect();
        assert_eq!(reach, [12, 13, 14, 15, 17, 20, 25, 26]);
    }

    #[test]
    fn a_new_place_brings_what_is_behind_it() {
        let mut streams = Streams::new(HashSet::new());
        assert_eq!(streams.touch(5, 8), 6..7);
        assert!(streams.touch(5, 8).is_empty(), "in smaller reads");
        assert_eq!(streams.touch(90, 8), 91..92);
        assert_eq!(streams.touch(200, 0), 201..201);
    }

    #[test]
    fn what_a_profile_knows_is_not_guessed() {
        let mut streams = Streams::new(HashSet::from_iter(10..15));
        let reach: Vec<usize> = (10..17).map(|number| streams.touch(number, 8).count()).collect();
        assert_eq!(reach, [0, 0, 0, 0, 0, 4, 8]);
    }

    #[test]
    fn readers_do_not_disturb_each_other() {
        let mut streams = Streams::new(HashSet::new());
        let mut longest = 0;
        for step in 0..20 {
            for reader in 0..4 {
                longest = longest.max(streams.touch(reader * 1000 + step, 8).count());
            }
        }
        assert_eq!(longest, 8);
        for place in 0..100 {
            streams.touch(place * 500, 8);
        }
        assert!(streams.streams.len() <= STREAMS);
    }
}
