//! The rhythm of waiting: actions that are due at intervals, and floods that must not hold up the wait.

use std::iter;
use std::time::{Duration, Instant};

/// The interval at which a wait tells the screen that it goes on.
pub const REMIND_EVERY: Duration = Duration::from_secs(10);

/// The most datagrams that are read from a socket before its caller looks at the time again.
const BATCH: usize = 64;

/// An action that is due once per interval, for the first time one interval from now.
#[derive(Debug)]
pub struct Interval {
    every: Duration,
    last: Instant,
}

impl Interval {
    pub fn new(every: Duration) -> Self {
        Self { every, last: Instant::now() }
    }

    /// True if the action is due. The next interval then begins.
    pub fn is_due(&mut self) -> bool {
        let is_due = self.last.elapsed() >= self.every;
        if is_due {
            self.last = Instant::now();
        }
        is_due
    }
}

/// Everything that `receive` gives, until it gives `None`. Under a flood that never comes, so the batch is
/// bounded: the caller must get back to its deadline.
pub fn batch<T>(receive: impl FnMut() -> Option<T>) -> impl Iterator<Item = T> {
    iter::from_fn(receive).take(BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood of datagrams ends, as far as one turn is concerned.
    #[test]
    fn floods_end() {
        assert_eq!(batch(|| Some(())).count(), BATCH);
        let mut left = 3;
        let mut receive = || {
            left -= 1;
            (left >= 0).then_some(left)
        };
        assert_eq!(batch(&mut receive).count(), 3);
    }

    /// An action is not due at once, and once per interval after that.
    #[test]
    fn intervals_repeat() {
        assert!(!Interval::new(Duration::from_secs(60)).is_due());
        let mut interval = Interval::new(Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(25));
        assert!(interval.is_due());
        assert!(!interval.is_due());
    }
}
