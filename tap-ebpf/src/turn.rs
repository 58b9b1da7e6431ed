//! Turns: runs of bytes in one direction, and the heads that go with them.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{
        bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_sk_cgroup_id, bpf_skb_load_bytes,
    },
};
use tap_common::{
    counters::Event,
    limits::{CHUNKS_MAX, PAYLOAD_MAX, PAYLOAD_MEDIUM, PAYLOAD_SMALL, TURN_SILENCE_NS},
    record::{Data, Kind, Lane, RECEIVE, flags},
    state::{Socket, undecided},
};

use crate::{
    owner, read,
    ring::{self, Ring},
    state::{self, setting},
};

/// A data record with room for `N` bytes of payload.
#[repr(C)]
pub struct Slot<const N: usize> {
    pub data: Data,
    pub payload: [u8; N],
}

/// New bytes of one direction.
#[derive(Clone, Copy)]
pub struct Bytes {
    /// `RECEIVE` or `TRANSMIT`.
    pub direction: usize,
    /// Where in the stream they begin.
    pub offset: u64,
    /// Bytes of the direction that were in order before them.
    pub position: u64,
    /// How many there are in the segment.
    pub len: u32,
    /// Where they stand in the packet.
    pub at: u32,
    /// When the segment was seen; [`bytes`] fills it in.
    pub now: u64,
}

/// Takes in new bytes of an admitted connection: begins a turn where the direction changed or was
/// silent, and sends records if one began or payload is wanted.
#[inline(always)]
pub fn bytes(skb: *mut __sk_buff, sk: *mut bpf_sock, state: &mut Socket, mut bytes: Bytes) {
    let exact = needs_exact_time(state, &bytes);
    bytes.now = if exact { now() } else { coarse_now() };
    let previous_ns = state.directions[bytes.direction].last_ns;
    let begins = begins(state, &bytes);
    if begins {
        if state.cgroup == 0 {
            // SAFETY: a full socket. The container needs no process.
            state.cgroup = unsafe { bpf_sk_cgroup_id(sk.cast()) };
        }
        if !decide(skb, state, &bytes) {
            return;
        }
    }
    let wanted = wanted(state, &bytes);
    let recorded = begins && within_limit(state, &bytes);
    if !recorded && wanted == 0 {
        return;
    }
    if !exact {
        bytes.now = now();
    }
    let mut data = record(state, &bytes, previous_ns);
    if recorded {
        data.header.flags |= flags::TURN;
    }
    send(skb, state, data, wanted, bytes.at);
}

/// Whether these bytes may become a record. Where turns are only counted any more, the time is
/// asked for nothing but the 50 ms of silence, and reading the TSC is a tenth of this program.
#[inline(always)]
fn needs_exact_time(state: &Socket, bytes: &Bytes) -> bool {
    let turns = state.directions[0].turns.wrapping_add(state.directions[1].turns);
    turns <= state.turn_limit || state.payload != 0 || bytes.offset < u64::from(setting!(head))
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// The time at the last tick of the clock: `CLOCK_MONOTONIC`, 1 to 10 ms late. The helper is as old
/// as the storage in tracing programs (5.11).
#[inline(always)]
fn coarse_now() -> u64 {
    if setting!(by_cookie) != 0 {
        return now();
    }
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// How many of `bytes` are captured: what belongs to the direction's head, or is left of the turn.
#[inline(always)]
fn wanted(state: &mut Socket, bytes: &Bytes) -> u32 {
    let head = u64::from(setting!(head)).saturating_sub(bytes.offset);
    let direction = &mut state.directions[bytes.direction];
    let of_turn = if bytes.len < direction.left { bytes.len } else { direction.left };
    direction.left -= of_turn;
    let of_head = if u64::from(bytes.len) < head { bytes.len } else { head as u32 };
    if of_turn > of_head { of_turn } else { of_head }
}

/// A turn begins: takes in what the daemon has decided about the connection, if it is new. `false`
/// where that refuses it.
#[inline(always)]
fn decide(skb: *mut __sk_buff, state: &mut Socket, bytes: &Bytes) -> bool {
    if state.undecided != 0 {
        if state.undecided & undecided::PAYLOAD != 0 {
            let first = if bytes.offset == 0 { first_bytes(skb, bytes) } else { [0; 4] };
            recognise(state, first);
        }
        if state.undecided != 0
            && let Some(verdict) = state::take_verdict(state)
        {
            if verdict.refused != 0 {
                owner::refuse(state);
                return false;
            }
            if state.undecided & undecided::PAYLOAD != 0 {
                state.turn_limit = verdict.turns;
                state.payload = verdict.payload;
            }
            state.undecided &= !undecided::PAYLOAD;
        }
    }
    state.directions[bytes.direction].left = state.payload;
    true
}

/// Decides by a direction's first bytes, where they tell enough: the daemon's word would come too
/// late for what follows at once.
#[inline(always)]
pub fn recognise(state: &mut Socket, first: [u8; 4]) {
    if first[0] == 22 && first[1] == 3 {
        // A TLS handshake record (RFC 8446 §5.1). Nobody reads what is encrypted; the handshake is
        // in the heads.
        state.payload = 0;
        state.undecided &= !undecided::PAYLOAD;
    } else if first == *b"PRI " {
        // HTTP/2's preface (RFC 9113 §3.4): its frames run through all of the stream.
        state.payload = u32::MAX;
        state.undecided &= !undecided::PAYLOAD;
    }
}

/// The first four bytes; zeros where there are fewer.
#[inline(always)]
fn first_bytes(skb: *mut __sk_buff, bytes: &Bytes) -> [u8; 4] {
    let mut first = [0u8; 4];
    // SAFETY: four bytes of room; the helper zeroes them where the packet has fewer.
    unsafe { bpf_skb_load_bytes(skb.cast(), bytes.at, first.as_mut_ptr().cast(), 4) };
    first
}

/// The data record of `bytes`, without payload and not yet numbered.
#[inline(always)]
pub fn record(state: &Socket, bytes: &Bytes, previous_ns: u64) -> Data {
    Data {
        header: ring::header(state, Kind::Data, lane(bytes.direction), 0, bytes.now),
        offset: bytes.offset,
        position: bytes.position,
        previous_ns,
        segment_len: bytes.len,
        turn: state.directions[bytes.direction].turns,
        tgid: state.tgid,
        pad: 0,
    }
}

/// The lane of a direction.
#[inline(always)]
pub fn lane(direction: usize) -> Lane {
    if direction == RECEIVE { Lane::Receive } else { Lane::Transmit }
}

/// Whether these bytes begin a turn; notes their time either way.
#[inline(always)]
pub fn begins(state: &mut Socket, bytes: &Bytes) -> bool {
    let changed = state.turn_direction != bytes.direction as u8;
    let direction = &mut state.directions[bytes.direction];
    // Signed: a coarse time may lie before an exact one.
    let silent = bytes.now.wrapping_sub(direction.last_ns) as i64 > TURN_SILENCE_NS as i64;
    direction.last_ns = bytes.now;
    if !changed && !silent {
        return false;
    }
    direction.turns += 1;
    if changed {
        state.turn_direction = bytes.direction as u8;
    }
    true
}

/// Whether this turn is still recorded; where recording stops is noted, once. The turns of a
/// connection that is parsed are all recorded.
#[inline(always)]
fn within_limit(state: &mut Socket, bytes: &Bytes) -> bool {
    let turns = state.directions[0].turns.wrapping_add(state.directions[1].turns);
    if turns <= state.turn_limit || state.payload != 0 {
        return true;
    }
    // The daemon's word may come late by some turns; asking for it at each would cost a look-up.
    if turns & 31 == 0
        && let Some(verdict) = state::take_verdict(state)
    {
        state.turn_limit = verdict.turns;
        if turns <= verdict.turns {
            state.directions[0].cut_at = u64::MAX;
            state.directions[1].cut_at = u64::MAX;
            return true;
        }
    }
    let direction = &mut state.directions[bytes.direction];
    if direction.cut_at == u64::MAX {
        direction.cut_at = bytes.position;
    }
    false
}

/// Sends the record with up to `payload` bytes, by size class; in several records where one does
/// not hold them.
#[inline(always)]
fn send(skb: *mut __sk_buff, state: &mut Socket, mut data: Data, payload: u32, at: u32) {
    let ring = Ring::data();
    let mut payload = payload;
    if payload != 0 && ring.waiting > setting!(shed_above) {
        // Payload goes first: the turn itself still fits when the ring is nearly full.
        data.header.flags |= flags::SHED;
        payload = 0;
        ring::count_event(Event::PayloadShed);
    }
    let lane = if data.header.lane == Lane::Receive as u8 { Lane::Receive } else { Lane::Transmit };
    data.header.number = ring::number(state, lane);
    if payload == 0 {
        let Some(mut slot) = ring.reserve::<Data>(Kind::Data) else { return };
        slot.write(data);
        ring.submit(slot);
    } else if payload as usize <= PAYLOAD_SMALL {
        send_class::<PAYLOAD_SMALL>(skb, &ring, &data, payload, at);
    } else if payload as usize <= PAYLOAD_MEDIUM {
        send_class::<PAYLOAD_MEDIUM>(skb, &ring, &data, payload, at);
    } else {
        // Each number that is taken must become a record, so the last chunk has to be in the loop.
        let most = CHUNKS_MAX * PAYLOAD_MAX as u32;
        let payload = if payload > most { most } else { payload };
        let whole = data.segment_len;
        let mut done = 0;
        for _ in 0..CHUNKS_MAX {
            let left = payload - done;
            let last = left as usize <= PAYLOAD_MAX;
            // What is not captured shows in the last record.
            data.segment_len = if last { whole - done } else { PAYLOAD_MAX as u32 };
            send_class::<PAYLOAD_MAX>(skb, &ring, &data, left, at + done);
            if last {
                return;
            }
            done += PAYLOAD_MAX as u32;
            data.offset += PAYLOAD_MAX as u64;
            data.header.flags &= !flags::TURN;
            data.header.number = ring::number(state, lane);
        }
    }
}

#[inline(always)]
fn send_class<const N: usize>(
    skb: *mut __sk_buff,
    ring: &Ring,
    data: &Data,
    payload: u32,
    at: u32,
) {
    let Some(mut slot) = ring.reserve::<Slot<N>>(Kind::Data) else { return };
    let len = read::length::<N>(payload);
    let to = slot.as_mut_ptr();
    // SAFETY: the slot is `Slot<N>` in size; `len` is 1..=N; the helper fills all or fails.
    unsafe {
        (&raw mut (*to).data).write(*data);
        let failed = bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*to).payload).cast(), len);
        (&raw mut (*to).data.header.payload_len).write(if failed == 0 { len } else { 0 });
    }
    ring.submit(slot);
}
