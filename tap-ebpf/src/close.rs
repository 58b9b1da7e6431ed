//! The close record: the whole connection, its exact byte counts and how it ended.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::LruHashMap};
use tap_common::{
    limits,
    record::{Close, Kind, Lane, RECEIVE, TRANSMIT, flags},
    state::{Socket, phase},
};

use crate::{
    ring::{self, Ring},
    state::setting,
};

/// Cookies whose close was reported, for kernels where the second witness cannot see the storage.
#[map]
pub static CLOSED: LruHashMap<u64, u8> = LruHashMap::with_max_entries(limits::WITNESSES, 0);

/// What the kernel says of the socket at its end.
pub struct Facts {
    /// Payload received in order; counts the peer's FIN too.
    pub bytes_received: u64,
    /// Next sequence number to send.
    pub send_next: Option<u32>,
    /// First sequence number that the peer has not acknowledged.
    pub send_unacknowledged: Option<u32>,
    /// Eight times the smoothed round-trip time, in microseconds.
    pub srtt: u32,
    /// Segments retransmitted.
    pub retransmits: u32,
    /// `sk_err`, 0 where it cannot be read. Not an `Option`: the compiler loads the value of one
    /// that is `None` all the same, and 5.10 answers "invalid read from stack".
    pub error: i32,
    /// Whether it could be read.
    pub error_known: bool,
    /// State before CLOSE.
    pub old_state: u32,
    /// Further flags of the record.
    pub flags: u16,
}

impl Facts {
    /// Sequence numbers sent and not acknowledged.
    #[inline(always)]
    pub fn unacknowledged(&self) -> u32 {
        match (self.send_next, self.send_unacknowledged) {
            (Some(next), Some(first)) => next.wrapping_sub(first),
            _ => 0,
        }
    }
}

/// Reports the end of a traced connection, once.
#[inline(always)]
pub fn close(state: &mut Socket, facts: &Facts) {
    state.phase = phase::CLOSED;
    let number = ring::number(state, Lane::Life);
    let ring = Ring::life();
    if let Some(mut slot) = ring.reserve::<Close>(Kind::Close) {
        let to = slot.as_mut_ptr();
        // SAFETY: the slot is a whole `Close`; `fill` writes every field.
        unsafe { fill(to, state, facts, number) };
        ring.submit(slot);
    }
    if setting!(by_cookie) != 0 {
        let _ = CLOSED.insert(&state.cookie, &1, 0);
    }
}

/// Writes the record in place: on the stack it would take two fifths of it.
///
/// # Safety
/// `to` is valid for a `Close`.
#[inline(always)]
pub unsafe fn fill(to: *mut Close, state: &Socket, facts: &Facts, number: u32) {
    let (received, fin_received) = received(state, facts);
    let (sent, fin_sent) = sent(state, facts);
    // SAFETY: by the caller; the helper takes nothing.
    unsafe {
        let now = bpf_ktime_get_ns();
        let mut header = ring::header(state, Kind::Close, Lane::Life, number, now);
        header.flags = facts.flags;
        (&raw mut (*to).header).write(header);
        (&raw mut (*to).connection).write(state.connection());
        let flags = state.flags | fin_received | fin_sent | facts.flags;
        (&raw mut (*to).connection.flags).write(flags);
        (&raw mut (*to).bytes).write([received, sent]);
        (&raw mut (*to).turns).write([state.directions[0].turns, state.directions[1].turns]);
        (&raw mut (*to).cut_at).write([state.directions[0].cut_at, state.directions[1].cut_at]);
        (&raw mut (*to).last_ns).write([state.directions[0].last_ns, state.directions[1].last_ns]);
        (&raw mut (*to).sent).write(state.sent);
        (&raw mut (*to).srtt_us).write(facts.srtt >> 3);
        (&raw mut (*to).retransmits).write(facts.retransmits);
        (&raw mut (*to).error).write(facts.error as u16);
        (&raw mut (*to).old_state).write(facts.old_state as u8);
        (&raw mut (*to).error_known).write(u8::from(facts.error_known));
        (&raw mut (*to).unacknowledged).write(facts.unacknowledged());
        (&raw mut (*to).pad).write(0);
    }
}

/// Payload received, and whether the peer's FIN was.
#[inline(always)]
fn received(state: &Socket, facts: &Facts) -> (u64, u16) {
    let received = facts.bytes_received.wrapping_sub(state.receive_base);
    // `bytes_received` counts the FIN once it is taken in (`tcp_rcv_nxt_update`).
    let direction = &state.directions[RECEIVE];
    if direction.fin != 0 && direction.fin_at.wrapping_add(1) == received as u32 && received != 0 {
        (received - 1, flags::FIN_RECEIVED)
    } else {
        (received, 0)
    }
}

/// Payload sent, and whether our FIN was. The kernel's `snd_nxt` is the truth; the high-water mark
/// gives the bits above its 32.
#[inline(always)]
fn sent(state: &Socket, facts: &Facts) -> (u64, u16) {
    let direction = &state.directions[TRANSMIT];
    let known = flags::ESTABLISHED | flags::SYN_SENT;
    let Some(next) = facts.send_next else {
        return (state.sent_to, 0);
    };
    if state.flags & known == 0 {
        return (state.sent_to, 0);
    }
    let mut sent = next.wrapping_sub(state.local_isn.wrapping_add(1));
    let mut fin = 0;
    if direction.fin != 0 && sent == direction.fin_at.wrapping_add(1) {
        sent = sent.wrapping_sub(1);
        fin = flags::FIN_SENT;
    }
    let more = sent.wrapping_sub(state.sent_to as u32) as i32;
    (state.sent_to.wrapping_add(i64::from(more) as u64), fin)
}
