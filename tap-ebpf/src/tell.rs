//! What the kernel side leaves out, in words, for `--log-level debug`: the counters of such events
//! say how often, these lines say which segment. Unless somebody reads them the verifier takes
//! them out: the level is read-only data (`AYA_LOG_LEVEL`).

use aya_log_ebpf::debug;

/// A segment whose sequence number is nowhere near what the socket expects.
#[inline(never)]
pub fn out_of_window(cookie: u64, sequence: u32, expected: u32) {
    debug!(
        &(),
        "outside of the window: cookie {}, sequence {}, expected {}", cookie, sequence, expected
    );
}

/// A segment whose headers cannot be read.
#[inline(never)]
pub fn malformed(len: u32) {
    debug!(&(), "malformed: a packet of {} bytes", len);
}

/// A socket for which the kernel gave no storage.
#[inline(never)]
pub fn no_storage(cookie: u64) {
    debug!(&(), "no storage: cookie {}", cookie);
}
