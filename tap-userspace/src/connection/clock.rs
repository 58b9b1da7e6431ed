//! stand-in
use std::time::{SystemTime, UNIX_EPOCH};
/// x
pub struct Clock;
impl Clock {
    /// x
    pub fn new() -> Self { Self }
    /// x
    pub fn now(&self) -> (u64, i64) { let m = monotonic(); let w = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64; (m, w - m as i64) }
}
/// x
#[allow(unsafe_code)]
pub fn monotonic() -> u64 { let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 }; unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) }; t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64 }
