//! Turns: runs of bytes in one direction, and the heads that go with them.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use tap_common::{
    counters::Event,
    limits::{PAYLOAD_MAX, PAYLOAD_SMALL, TURN_SILENCE_NS},
    record::{Data, Kind, Lane, RECEIVE, flags},
    state::Socket,
};

use crate::{
    read,
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
    /// When the segment was seen.
    pub now: u64,
}

/// Takes in new bytes of an admitted connection: begins a turn where the direction changed or was
/// silent, and sends a record if one began or the head is not over.
#[inline(always)]
pub fn bytes(skb: *mut __sk_buff, state: &mut Socket, bytes: Bytes) {
    let begins = begins(state, &bytes);
    let head = u64::from(setting!(head));
    let wanted = head.saturating_sub(bytes.offset);
    let recorded = begins && within_limit(state, &bytes);
    if !recorded && wanted == 0 {
        return;
    }
    let lane = lane(bytes.direction);
    let number = ring::number(state, lane);
    let mut data = record(state, &bytes, lane, number);
    if recorded {
        data.header.flags |= flags::TURN;
    }
    send(skb, data, wanted.min(u64::from(bytes.len)) as u32, bytes.at);
}

/// The data record of `bytes`, without payload.
#[inline(always)]
pub fn record(state: &Socket, bytes: &Bytes, lane: Lane, number: u32) -> Data {
    Data {
        header: ring::header(state, Kind::Data, lane, number, bytes.now),
        offset: bytes.offset,
        position: bytes.position,
        segment_len: bytes.len,
        turn: state.directions[bytes.direction].turns,
        tgid: state.connection.tgid,
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
    let changed = state.turn_direction != bytes.direction as u32;
    let direction = &mut state.directions[bytes.direction];
    let silent = bytes.now.wrapping_sub(direction.last_ns) > TURN_SILENCE_NS;
    direction.last_ns = bytes.now;
    if !changed && !silent {
        return false;
    }
    direction.turns += 1;
    if changed {
        state.turn_direction = bytes.direction as u32;
    }
    true
}

/// Whether this turn is still recorded; where recording stops is noted, once.
#[inline(always)]
fn within_limit(state: &mut Socket, bytes: &Bytes) -> bool {
    let turns = state.directions[0].turns.wrapping_add(state.directions[1].turns);
    if turns <= state.turn_limit {
        return true;
    }
    // The daemon's word may come late by some turns; asking for it at each would cost a look-up.
    if turns & 31 == 0
        && let Some(limit) = state::verdict(state)
    {
        state.turn_limit = limit;
        if turns <= limit {
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

/// Sends the record with up to `payload` bytes, by size class.
#[inline(always)]
fn send(skb: *mut __sk_buff, mut data: Data, payload: u32, at: u32) {
    let ring = Ring::data();
    let mut payload = payload;
    if payload != 0 && ring.waiting > setting!(shed_above) {
        // Payload goes first: the turn itself still fits when the ring is nearly full.
        data.header.flags |= flags::SHED;
        payload = 0;
        ring::count_event(Event::PayloadShed);
    }
    if payload == 0 {
        let Some(mut slot) = ring.reserve::<Data>(Kind::Data) else { return };
        slot.write(data);
        ring.submit(slot);
    } else if payload as usize <= PAYLOAD_SMALL {
        send_class::<PAYLOAD_SMALL>(skb, &ring, data, payload, at);
    } else {
        send_class::<PAYLOAD_MAX>(skb, &ring, data, payload, at);
    }
}

#[inline(always)]
fn send_class<const N: usize>(skb: *mut __sk_buff, ring: &Ring, data: Data, payload: u32, at: u32) {
    let Some(mut slot) = ring.reserve::<Slot<N>>(Kind::Data) else { return };
    let len = read::length::<N>(payload);
    let to = slot.as_mut_ptr();
    // SAFETY: the slot is `Slot<N>` in size; `len` is 1..=N; the helper fills all or fails.
    unsafe {
        (&raw mut (*to).data).write(data);
        let failed = bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*to).payload).cast(), len);
        (&raw mut (*to).data.header.payload_len).write(if failed == 0 { len } else { 0 });
    }
    ring.submit(slot);
}
