//! Kernel time → wall-clock time. In: `CLOCK_MONOTONIC` nanoseconds of the records. Out: Unix
//! nanoseconds.
//!
//! A connection chooses its offset once, at its open, and keeps it (also in recordings): an NTP
//! step in the middle of its life must not make its end earlier than its begin.
#![forbid(unsafe_code)]

use rustix::time::{ClockId, Timespec, clock_gettime};

/// How often the clocks are read for one sample; the tightest bracket wins.
const READS: u32 = 5;

/// What to add to `CLOCK_MONOTONIC` to have Unix time, as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    offset_ns: i64,
}

impl Clock {
    /// Reads both clocks of this machine.
    ///
    /// `CLOCK_REALTIME` is read between two reads of `CLOCK_MONOTONIC`; of a few such brackets the
    /// narrowest counts, so that a preemption between the reads does not become an error.
    pub fn sample() -> Self {
        let mut best: Option<(u64, i64)> = None;
        for _ in 0..READS {
            let before = monotonic_ns();
            let wall = nanoseconds(clock_gettime(ClockId::Realtime));
            let after = monotonic_ns();
            let width = after.saturating_sub(before);
            if best.is_none_or(|(narrowest, _)| width < narrowest) {
                let middle = before + width / 2;
                best = Some((width, wall.cast_signed().wrapping_sub(middle.cast_signed())));
            }
        }
        Self { offset_ns: best.map_or(0, |(_, offset)| offset) }
    }

    /// A clock with a known offset: of a recording, or a test.
    pub const fn with_offset(offset_ns: i64) -> Self {
        Self { offset_ns }
    }

    /// The offset for a connection to keep.
    pub const fn offset_ns(self) -> i64 {
        self.offset_ns
    }

    /// `mono_ns` as Unix nanoseconds.
    pub const fn wall(self, mono_ns: u64) -> u64 {
        wall(mono_ns, self.offset_ns)
    }
}

/// `mono_ns` as Unix nanoseconds by an offset that was kept. Saturates: times of a record are not
/// trusted to be sane.
pub const fn wall(mono_ns: u64, offset_ns: i64) -> u64 {
    mono_ns.saturating_add_signed(offset_ns)
}

/// Now by `CLOCK_MONOTONIC`, the clock of the records.
pub fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let fraction = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(fraction)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_sample_gives_the_system_time() {
        let clock = Clock::sample();
        let ours = clock.wall(monotonic_ns());
        let theirs = u64::try_from(
            SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos(),
        )
        .expect("before 2554");
        assert!(theirs.abs_diff(ours) < 100_000_000, "{ours} against {theirs}");
    }

    #[test]
    fn the_monotonic_clock_goes_forward() {
        let first = monotonic_ns();
        assert!(first > 0);
        assert!(monotonic_ns() >= first);
    }

    #[test]
    fn insane_times_saturate() {
        assert_eq!(wall(5, -10), 0);
        assert_eq!(wall(u64::MAX, 10), u64::MAX);
        assert_eq!(wall(0, i64::MIN), 0);
        assert_eq!(wall(7, 3), 10);
        assert_eq!(Clock::with_offset(-3).wall(10), 7);
        assert_eq!(Clock::with_offset(-3).offset_ns(), -3);
    }
}
