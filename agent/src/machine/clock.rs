//! A plausible clock before TLS: a machine with an empty battery wakes up decades ago, and every
//! certificate is "not valid yet".

use crate::base::console;
use rustix::time::{ClockId, Timespec, clock_settime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// It cannot be earlier than this: the time of the commit this program was built from, or of
/// this release where the build did not say.
fn floor() -> SystemTime {
    let seconds = option_env!("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok()).unwrap_or(RELEASE);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// 2026-11-21, in seconds since 1970.
const RELEASE: u64 = 1_795_219_200;

/// Move a clock that is behind this program's build, or behind `known` (since 1970), up to it.
pub fn raise_to_floor(known: Duration) {
    let floor = floor().max(UNIX_EPOCH + known);
    if SystemTime::now() >= floor {
        return;
    }
    let since_1970 = floor.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timespec { tv_sec: since_1970.as_secs() as i64, tv_nsec: 0 };
    match clock_settime(ClockId::Realtime, time) {
        Ok(()) => console::say("  the clock was behind what it must be at least, and is set to that"),
        Err(error) => console::say(&format!("  the clock is behind, and cannot be set: {error}")),
    }
}
