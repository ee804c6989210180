//! A plausible clock before TLS. A machine with an empty battery starts in the year of its firmware, when
//! no certificate is valid yet.

use crate::base::console;
use rustix::time::{ClockId, Timespec, clock_settime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2026-11-21, in seconds since 1970: the floor of a build that was not told its commit's time.
const RELEASE: u64 = 1_795_219_200;

/// The time before which this program did not exist, in seconds since 1970: that of its commit.
fn built() -> u64 {
    option_env!("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok()).unwrap_or(RELEASE)
}

/// The later of the two floors. `known` is a time since 1970 that has certainly passed; one that no clock
/// can show is ignored.
fn floor(built: u64, known: Duration) -> SystemTime {
    let built = UNIX_EPOCH + Duration::from_secs(built);
    UNIX_EPOCH.checked_add(known).filter(|known| *known > built).unwrap_or(built)
}

/// Sets a clock that is behind this program's build, or behind `known` (since 1970), to the later of them.
pub fn raise_to_floor(known: Duration) {
    let floor = floor(built(), known);
    if SystemTime::now() >= floor {
        return;
    }

    let since_1970 = floor.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timespec { tv_sec: since_1970.as_secs() as i64, tv_nsec: 0 };
    match clock_settime(ClockId::Realtime, time) {
        Ok(()) => console::say("  the clock was behind; set it to the earliest plausible date"),
        Err(error) => console::say(&format!("  the clock is behind and cannot be set: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The later floor counts, and a time beyond all clocks is none.
    #[test]
    fn floors() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(floor(100, Duration::ZERO), at(100));
        assert_eq!(floor(100, Duration::from_secs(200)), at(200));
        assert_eq!(floor(100, Duration::from_secs(u64::MAX)), at(100));
    }
}
