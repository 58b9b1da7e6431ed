//! The two rings: reserve, submit, and count what could not be.
//!
//! A record is built in its reservation: these programs can be preempted by one another on one
//! CPU, so there is no scratch memory that is theirs alone.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use tap_common::{
    counters::{self, Drop, Event},
    limits,
    record::{Header, Kind, Lane},
    state::Socket,
};

use crate::state::setting;

/// Opens, owners, closes, process life: small, must not be lost.
#[map]
static LIFE: RingBuf = RingBuf::with_byte_size(limits::LIFE_RING_DEFAULT, 0);

/// Turns and payload: may be shed.
#[map]
static DATA: RingBuf = RingBuf::with_byte_size(limits::DATA_RING_DEFAULT, 0);

/// `tap_common::counters`.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::SLOTS, 0);

/// A ring and how full it was when it was last asked.
pub struct Ring {
    ring: &'static RingBuf,
    /// Bytes that wait in it.
    pub waiting: u64,
}

impl Ring {
    /// The life ring.
    #[inline(always)]
    pub fn life() -> Self {
        Self::of(&LIFE)
    }

    /// The data ring.
    #[inline(always)]
    pub fn data() -> Self {
        Self::of(&DATA)
    }

    #[inline(always)]
    fn of(ring: &'static RingBuf) -> Self {
        Self { ring, waiting: ring.query(u64::from(BPF_RB_AVAIL_DATA)) }
    }

    /// A slot for a `T`. Between it and [`Self::submit`] there must be no way out: the verifier
    /// answers "would lead to reference leak".
    #[inline(always)]
    pub fn reserve<T: 'static>(&self, kind: Kind) -> Option<RingBufEntry<T>> {
        count(counters::seen(kind));
        let slot = self.ring.reserve::<T>(0);
        if slot.is_none() {
            count(counters::dropped(kind, Drop::RingFull));
        }
        slot
    }

    /// Hands the slot over; the reader is woken only when much waits, else it polls.
    #[inline(always)]
    pub fn submit<T>(&self, slot: RingBufEntry<T>) {
        let wake = if self.waiting >= setting!(wake_above) {
            BPF_RB_FORCE_WAKEUP
        } else {
            BPF_RB_NO_WAKEUP
        };
        slot.submit(u64::from(wake));
    }
}

/// Takes the next number of a lane. Ingress of one socket may run on two CPUs at once: then two
/// records may carry one number, but the count stays exact.
#[inline(always)]
pub fn number(state: &mut Socket, lane: Lane) -> u32 {
    let sent = &raw mut state.sent[lane as usize];
    // SAFETY: a pointer into the socket storage, aligned; all writers add atomically.
    unsafe {
        let number = sent.read_volatile();
        asm!("lock *(u32 *)({sent} + 0) += {one}", sent = in(reg) sent, one = in(reg) 1u64);
        number
    }
}

/// Adds one atomically without fetching: this target has no `fetch_add`, and an atomic that
/// fetches does not load on 5.10.
///
/// # Safety
/// `counter` is an aligned map value.
#[inline(always)]
unsafe fn add_one(counter: *mut u64) {
    // SAFETY: by the caller; the instruction touches nothing but the counter.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1u64);
    }
}

/// Header of a record of this connection.
#[inline(always)]
pub fn header(state: &Socket, kind: Kind, lane: Lane, number: u32, time_ns: u64) -> Header {
    Header {
        kind: kind as u8,
        lane: lane as u8,
        flags: 0,
        payload_len: 0,
        cookie: state.cookie,
        generation: u32::from(state.generation),
        number,
        time_ns,
    }
}

/// Counts an event that is no record.
#[inline(always)]
pub fn count_event(event: Event) {
    count(counters::event(event));
}

#[inline(always)]
fn count(slot: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the slot is this CPU's; a program that interrupts us adds atomically too.
        unsafe { add_one(counter) };
    }
}
