//! One direction of a connection: its segments in whatever order they were captured → its bytes in
//! order, each once. What was captured nowhere comes out as a piece without payload, once the
//! other end has acknowledged it or too much waits behind it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use tap_common::limits::WINDOW_MAX;

use super::link::Segment;

/// Bytes held of one direction while a hole may fill, [`HELD_COST`] of each segment included: what
/// is in flight on a fast path, with room for the disorder of a capture.
pub const HELD_MAX: usize = 1 << 20;

/// The same for all directions together; reached only where a capture lost much of everything.
pub const HELD_TOTAL_MAX: usize = 64 << 20;

/// What a held segment costs besides its payload.
const HELD_COST: usize = 128;

/// Bytes that were acknowledged but not captured are given up after this long: a capture may have
/// an acknowledgment before its data, but by a timer of the kernel, not by more.
const HOLE_NS: u64 = 1_000_000_000;

/// Packets captured twice (on both ends of a veth pair, or going out and coming in on loopback)
/// follow each other within this, where nothing in the packet tells. TCP sends nothing twice so
/// fast: its shortest retransmission timeout is 200 ms, and a loss probe waits for 2 round trips.
const COPY_NS: u64 = 5_000_000;

/// Bytes that are in order now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where in the stream they begin.
    pub offset: u64,
    /// How many there are.
    pub len: u32,
    /// What is known of them, from their begin.
    pub payload: &'a [u8],
    /// Nothing is known of them.
    pub is_missing: bool,
    /// When they went.
    pub time_ns: u64,
}

/// Takes pieces.
pub type Deliver<'a> = dyn FnMut(Piece<'_>) + 'a;

/// What a segment brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// Bytes beyond all that were seen.
    New,
    /// Bytes of a hole.
    Late,
    /// Nothing: all of it was there.
    Old,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Stream {
    /// Sequence number of the first byte.
    base: u32,
    known: Known,
    /// Bytes that are in order.
    pub position: u64,
    /// Behind the furthest byte that was seen; at least `position`.
    pub highest: u64,
    /// Behind the furthest byte that the other end has acknowledged; its FIN counts one.
    pub acknowledged: u64,
    /// Where the FIN is.
    pub fin_at: Option<u64>,
    /// Segments behind a hole, by their offset; all offsets are beyond `position`.
    held: BTreeMap<u64, Held>,
    /// What `held` costs.
    charged: usize,
    /// Since when bytes are missing that the other end has, and up to where.
    stuck: Option<(u64, u64)>,
    /// Marks of the newest segment that was sent: see [`Self::is_copy`].
    newest_ns: Option<u64>,
    timestamp: Option<u32>,
    id: u16,
}

/// How well `base` is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Not,
    /// From what the other end acknowledged: the first data may show that more was on its way.
    Roughly,
    Exactly,
}

#[derive(Debug)]
struct Held {
    len: u32,
    payload: Box<[u8]>,
    /// When it came, where it was held for the handshake and not for a hole.
    time_ns: u64,
}

impl Stream {
    /// Sets the sequence number of the first byte, as the handshake tells it.
    pub const fn begin(&mut self, sequence: u32) {
        self.base = sequence;
        self.known = Known::Exactly;
    }

    /// The sequence number of the first byte, if it is known for sure.
    pub fn first(&self) -> Option<u32> {
        (self.known == Known::Exactly).then_some(self.base)
    }

    /// Whether the stream is thought to begin at `sequence`.
    pub fn begins_at(&self, sequence: u32) -> bool {
        self.known != Known::Not && self.base == sequence
    }

    /// Whether there is a FIN, and the other end has it.
    pub fn is_fin_acknowledged(&self) -> bool {
        self.fin_at.is_some_and(|fin_at| self.acknowledged > fin_at)
    }

    /// Where in the stream `sequence` is; `None` if that is no place near.
    pub fn offset(&self, sequence: u32) -> Option<i64> {
        if self.known == Known::Not {
            return None;
        }
        // Modulo 2^32 on purpose: sequence numbers go round.
        let position = self.base.wrapping_add(self.position as u32);
        let ahead = sequence.wrapping_sub(position).cast_signed();
        let position = self.position.cast_signed();
        (ahead.unsigned_abs() <= WINDOW_MAX).then(|| position.saturating_add(ahead.into()))
    }

    /// The first data or FIN of a stream that was joined in its middle begins it.
    pub fn join(&mut self, sequence: u32) {
        if self.known != Known::Exactly && self.position == 0 {
            self.begin(sequence);
            self.acknowledged = 0;
        }
    }

    /// The other end has everything before `sequence`.
    pub fn acknowledge(&mut self, sequence: u32) {
        if self.known == Known::Not {
            self.base = sequence;
            self.known = Known::Roughly;
        }
        let offset = self.offset(sequence).and_then(|offset| u64::try_from(offset).ok());
        self.acknowledged = self.acknowledged.max(offset.unwrap_or(0));
    }

    /// Whether all that was seen is acknowledged, so that the byte before it is a keep-alive probe
    /// (RFC 9293 §3.8.4).
    pub const fn is_probe(&self, offset: i64, len: u32) -> bool {
        len <= 1
            && offset.saturating_add(1) == self.highest.cast_signed()
            && self.acknowledged >= self.highest
    }

    /// Takes in the bytes at `offset`: gives out what is in order, holds what is not.
    pub fn take(
        &mut self,
        offset: i64,
        (len, payload): (u32, &[u8]),
        time_ns: u64,
        total: &mut usize,
        deliver: &mut Deliver<'_>,
    ) -> Brought {
        let Some((offset, len, payload)) = self.clip(offset, len, payload) else {
            return Brought::Old;
        };
        let end = offset + u64::from(len);
        let brought = if end > self.highest { Brought::New } else { Brought::Late };
        self.highest = self.highest.max(end);
        if offset == self.position {
            self.position = end;
            deliver(Piece { offset, len, payload, is_missing: false, time_ns });
            self.release(time_ns, total, deliver);
            return brought;
        }
        if !self.hold(offset, len, payload, time_ns, total) {
            return Brought::Old;
        }
        while self.charged > HELD_MAX || (*total > HELD_TOTAL_MAX && self.charged > 0) {
            self.give_up(u64::MAX, time_ns, total, deliver);
        }
        brought
    }

    /// Holds the bytes of a handshake, which are given out when it is over.
    pub fn keep(&mut self, (len, payload): (u32, &[u8]), time_ns: u64, total: &mut usize) {
        if len > 0 && *total < HELD_TOTAL_MAX {
            self.hold(0, len, payload, time_ns, total);
            self.highest = self.highest.max(len.into());
        }
    }

    /// Gives out what the handshake brought, as far as it was acknowledged: data on a SYN may be
    /// refused (RFC 7413 §4.1.2), and then comes again.
    pub fn open(&mut self, total: &mut usize, deliver: &mut Deliver<'_>) {
        let Some(held) = self.remove(0, total) else { return };
        let len = held.len.min(u32::try_from(self.acknowledged).unwrap_or(u32::MAX));
        self.highest = len.into();
        self.position = len.into();
        if len > 0 {
            let payload = &held.payload[..held.payload.len().min(len as usize)];
            let (is_missing, time_ns) = (false, held.time_ns);
            deliver(Piece { offset: 0, len, payload, is_missing, time_ns });
        }
    }

    /// What of a segment is neither before `position` nor behind the FIN.
    fn clip<'a>(&self, offset: i64, len: u32, payload: &'a [u8]) -> Option<(u64, u32, &'a [u8])> {
        let past = self.position.cast_signed().saturating_sub(offset).max(0);
        let past = u32::try_from(past).ok().filter(|past| *past < len)?;
        let payload = payload.get(past as usize..).unwrap_or_default();
        let offset = u64::try_from(offset.saturating_add(past.into())).ok()?;
        let room = self.fin_at.unwrap_or(u64::MAX).saturating_sub(offset);
        let len = (len - past).min(u32::try_from(room).unwrap_or(u32::MAX));
        let payload = &payload[..payload.len().min(len as usize)];
        (len > 0).then_some((offset, len, payload))
    }

    /// Holds the bytes; whether any of them are new.
    fn hold(
        &mut self,
        offset: u64,
        len: u32,
        payload: &[u8],
        time_ns: u64,
        total: &mut usize,
    ) -> bool {
        let end = offset + u64::from(len);
        let before = self.held.range(..=offset).next_back();
        if before.is_some_and(|(at, held)| at + u64::from(held.len) >= end) {
            return false;
        }
        self.remove(offset, total);
        let cost = payload.len() + HELD_COST;
        self.charged += cost;
        *total += cost;
        self.held.insert(offset, Held { len, payload: payload.into(), time_ns });
        true
    }

    fn remove(&mut self, offset: u64, total: &mut usize) -> Option<Held> {
        let held = self.held.remove(&offset)?;
        let cost = held.payload.len() + HELD_COST;
        self.charged = self.charged.saturating_sub(cost);
        *total = total.saturating_sub(cost);
        Some(held)
    }

    /// Gives out what is in order now of what was held.
    fn release(&mut self, time_ns: u64, total: &mut usize, deliver: &mut Deliver<'_>) {
        while let Some((&at, _)) = self.held.first_key_value()
            && at <= self.position
            && let Some(held) = self.remove(at, total)
        {
            let offset = i64::try_from(at).unwrap_or(i64::MAX);
            let Some((offset, len, payload)) = self.clip(offset, held.len, &held.payload) else {
                continue;
            };
            self.position = offset + u64::from(len);
            deliver(Piece { offset, len, payload, is_missing: false, time_ns });
        }
    }

    /// Gives up the first hole, up to `end`.
    fn give_up(&mut self, end: u64, time_ns: u64, total: &mut usize, deliver: &mut Deliver<'_>) {
        let held = self.held.first_key_value().map_or(u64::MAX, |(at, _)| *at);
        let end = end.min(held);
        if end == u64::MAX {
            return;
        }
        let offset = self.position;
        let len = u32::try_from(end.saturating_sub(offset)).unwrap_or(u32::MAX);
        if len > 0 {
            self.position += u64::from(len);
            self.highest = self.highest.max(self.position);
            deliver(Piece { offset, len, payload: &[], is_missing: true, time_ns });
        }
        self.release(time_ns, total, deliver);
    }

    /// Behind the furthest payload byte that the other end has taken in.
    pub fn taken(&self) -> u64 {
        let taken = self.acknowledged.min(self.fin_at.unwrap_or(u64::MAX));
        // One more than was seen is a FIN that was not captured.
        if self.fin_at.is_none() && taken == self.highest + 1 { self.highest } else { taken }
    }

    /// Whether bytes are missing that the other end has, or were when this was last looked at.
    pub fn is_missing(&self) -> bool {
        self.stuck.is_some() || self.taken() > self.position
    }

    /// Gives up what was acknowledged a while ago and not captured.
    pub fn settle(&mut self, time_ns: u64, total: &mut usize, deliver: &mut Deliver<'_>) {
        if self.taken() <= self.position {
            self.stuck = None;
            return;
        }
        let (since, end) = *self.stuck.get_or_insert((time_ns, self.taken()));
        if time_ns.saturating_sub(since) > HOLE_NS {
            self.stuck = None;
            while self.position < end {
                self.give_up(end, time_ns, total, deliver);
            }
        }
    }

    /// The connection is over: gives up every hole before what the other end has taken in, or, if
    /// `all`, before what was seen; forgets the rest.
    pub fn finish(
        &mut self,
        all: bool,
        time_ns: u64,
        total: &mut usize,
        deliver: &mut Deliver<'_>,
    ) {
        let end = if all { self.taken().max(self.highest) } else { self.taken() };
        while self.position < end {
            self.give_up(end, time_ns, total, deliver);
        }
        self.clear(total);
    }

    /// Forgets what is held.
    pub fn clear(&mut self, total: &mut usize) {
        *total = total.saturating_sub(self.charged);
        self.charged = 0;
        self.held.clear();
    }

    /// Notes a segment that was sent after all before it.
    pub fn mark(&mut self, segment: &Segment<'_>, time_ns: u64) {
        self.newest_ns = Some(time_ns);
        if segment.timestamp.is_some() {
            self.timestamp = segment.timestamp;
        }
        if segment.id != 0 {
            self.id = segment.id;
        }
    }

    /// Whether a segment that brings nothing new, or fills a hole, is an old one that was captured
    /// again, or came late; else it was sent again. A sender's timestamps and its packets'
    /// identification only go up.
    pub fn is_copy(&self, segment: &Segment<'_>, time_ns: u64) -> bool {
        // Nothing was sent before it, as far as is known.
        let Some(newest_ns) = self.newest_ns else { return true };
        if let (Some(newest), Some(this)) = (self.timestamp, segment.timestamp)
            && newest != this
        {
            return this.wrapping_sub(newest).cast_signed() < 0;
        }
        if self.id != 0 && segment.id != 0 {
            return segment.id.wrapping_sub(self.id).cast_signed() <= 0;
        }
        time_ns.saturating_sub(newest_ns) <= COPY_NS
    }
}

#[cfg(test)]
#[path = "reassembly_tests.rs"]
mod tests;
