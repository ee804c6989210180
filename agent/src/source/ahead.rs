//! What will be read next, guessed from what is read now. Pure.
//!
//! A reader that goes on where it stopped is a stream; the further it has come, the more is
//! fetched ahead of it. Files of a live system lie in pieces of many readers, so several streams
//! are followed at the same time.

use std::ops::Range;

/// Streams that are followed at the same time.
const STREAMS: usize = 16;

/// The readers of an image.
#[derive(Debug, Default)]
pub struct Streams {
    streams: Vec<Stream>,
    clock: u64,
}

#[derive(Debug)]
struct Stream {
    /// The piece it will read next.
    next: u64,
    /// Everything before this was asked for.
    reach: u64,
    /// How many pieces to be ahead.
    window: u64,
    used: u64,
}

impl Streams {
    /// Piece `number` is read; what to fetch ahead, at most `most` pieces from here.
    pub fn touch(&mut self, number: u64, most: u64) -> Range<u64> {
        self.clock += 1;
        let clock = self.clock;
        // The same piece again, in smaller reads: nothing new.
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.next == number + 1) {
            stream.used = clock;
            return 0..0;
        }
        // A reader may skip a piece that another one has brought into the kernel's cache.
        if let Some(stream) =
            self.streams.iter_mut().find(|stream| (stream.next..stream.next + 2).contains(&number))
        {
            stream.next = number + 1;
            stream.used = clock;
            stream.window = (stream.window * 2).clamp(1, most.max(1));
            let run = stream.reach.max(stream.next)..stream.next + stream.window;
            stream.reach = stream.reach.max(run.end);
            return if run.is_empty() { 0..0 } else { run };
        }
        if self.streams.len() >= STREAMS {
            let oldest = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.used);
            if let Some((oldest, _)) = oldest {
                self.streams.swap_remove(oldest);
            }
        }
        self.streams.push(Stream { next: number + 1, reach: number + 1, window: 0, used: clock });
        0..0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_fetched_further_and_further_ahead() {
        let mut streams = Streams::default();
        let runs: Vec<Range<u64>> = (10..16).map(|number| streams.touch(number, 8)).collect();
        assert_eq!(runs, [0..0, 12..13, 13..15, 15..18, 18..23, 23..24].map(|run| run));
    }

    #[test]
    fn a_jump_brings_nothing() {
        let mut streams = Streams::default();
        for number in [5, 90, 30, 70, 5, 90] {
            assert!(streams.touch(number, 8).is_empty(), "{number}");
        }
    }

    #[test]
    fn readers_do_not_disturb_each_other() {
        let mut streams = Streams::default();
        let mut ahead = 0;
        for step in 0..20 {
            for reader in 0..4 {
                ahead += streams.touch(reader * 1000 + step, 8).count();
            }
        }
        assert!(ahead > 4 * 18, "{ahead}");
        assert!(streams.streams.len() <= STREAMS);
    }
}
