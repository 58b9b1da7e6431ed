//! The clock of a round: monotonic time, as the kernel side stamps, and what to add for Unix time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Samples both clocks.
#[derive(Debug, Default)]
pub struct Clock;

impl Clock {
    /// A clock.
    pub const fn new() -> Self {
        Self
    }

    /// `CLOCK_MONOTONIC` now, and the offset to Unix time, both in nanoseconds. The wall clock is
    /// read between two readings of the monotonic one, three times; the narrowest pair tells.
    pub fn now(&self) -> (u64, i64) {
        let (mut now, mut offset, mut narrowest) = (0, 0, u64::MAX);
        for _ in 0..3 {
            let before = monotonic();
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let after = monotonic();
            if after - before < narrowest {
                narrowest = after - before;
                now = after;
                let middle = before + (after - before) / 2;
                offset = wall.as_nanos() as i64 - middle as i64;
            }
        }
        (now, offset)
    }
}

/// Unix time in nanoseconds.
pub fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64
}

/// `CLOCK_MONOTONIC` in nanoseconds: what `bpf_ktime_get_ns` returns.
#[expect(unsafe_code, reason = "the standard library does not tell its monotonic clock's value")]
pub fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is whole and outlives the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_leads_to_unix_time() {
        let (now, offset) = Clock::new().now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(wall.abs_diff(now.saturating_add_signed(offset)) < 1_000_000_000);
        assert!(monotonic() >= now);
    }
}
