//! Turns: only as many machines work at a time as the processors can serve. More slow each other down:
//! four emulated machines on two processors need a fifth more processor time than three.

use std::num::NonZero;
use std::sync::{Condvar, Mutex};
use std::thread::available_parallelism;

/// The number of machines that have a turn.
static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// A machine's right to work; given back when dropped.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    /// Waits for a turn. There is one more than there are processors, because every machine waits for
    /// its disk or the network now and then.
    pub fn take() -> Self {
        let turns = available_parallelism().map_or(1, NonZero::get) + 1;
        let taken = TAKEN.lock().unwrap();
        *GIVEN_BACK.wait_while(taken, |taken| *taken >= turns).unwrap() += 1;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap() -= 1;
        GIVEN_BACK.notify_one();
    }
}
