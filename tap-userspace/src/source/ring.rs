//! The two rings as a source: waiting and draining, on a thread of its own. Never blocks the
//! kernel side: what does not fit is dropped and counted there.

use std::{os::fd::AsRawFd as _, time::Duration};

use aya::maps::{MapData, RingBuf};

/// How long the reader sleeps when nobody wakes it: the kernel side wakes it only when much waits.
pub const POLL: Duration = Duration::from_millis(20);

/// Most life records that are taken before the data ring has its turn.
const LIFE_BATCH: usize = 65_536;
/// Most data records of one round. Under load the data ring is never empty, and what has finished
/// is handed on, and the kernel side told what to capture, at the end of a round only.
const DATA_BATCH: usize = 512;

/// The rings.
pub struct Rings {
    life: RingBuf<MapData>,
    data: RingBuf<MapData>,
}

impl Rings {
    /// Takes the rings over.
    pub const fn new(life: RingBuf<MapData>, data: RingBuf<MapData>) -> Self {
        Self { life, data }
    }

    /// Sleeps until a ring is well filled or [`POLL`] has passed.
    #[expect(unsafe_code, reason = "poll(2) on two descriptors")]
    pub fn wait(&self) {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [entry(self.life.as_raw_fd()), entry(self.data.as_raw_fd())];
        // SAFETY: the array outlives the call and holds two entries. An interruption is as good
        // as a wake-up.
        unsafe { libc::poll(fds.as_mut_ptr(), 2, POLL.as_millis() as libc::c_int) };
    }

    /// Hands each waiting life record to `each`; says whether the ring is empty now.
    pub fn drain_life(&mut self, each: impl FnMut(&[u8])) -> bool {
        drain(&mut self.life, LIFE_BATCH, each)
    }

    /// Hands each waiting data record to `each`, after the life records that were written before
    /// it: a connection may have opened since those were drained. Says whether the ring is empty
    /// now.
    pub fn drain_data(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        for _ in 0..DATA_BATCH {
            let Some(record) = self.data.next() else { return true };
            drain(&mut self.life, LIFE_BATCH, &mut each);
            each(&record);
        }
        false
    }
}

fn drain(ring: &mut RingBuf<MapData>, batch: usize, mut each: impl FnMut(&[u8])) -> bool {
    for _ in 0..batch {
        let Some(record) = ring.next() else { return true };
        each(&record);
    }
    false
}
