//! Makes the records of one connection, as `tap-ebpf` does of its socket: `turn.rs` (turns, heads
//! and what is captured of a turn) and `close.rs` have their twin here. All records of a capture
//! are made in this file.
#![forbid(unsafe_code)]

use tap_common::{
    limits::{PAYLOAD_MAX, TURN_SILENCE_NS},
    record::{Close, Connection, Data, Header, Kind, LANES, Lane, Open, RECEIVE, Tuple, flags},
};

use super::{Item, Settings, Sink, Wall, link::Endpoint};
use crate::source::decode::Record;

/// One connection as its local end's socket would be traced: `state::Socket` of the kernel side.
#[derive(Debug)]
pub struct Socket {
    cookie: u64,
    /// The connection so far.
    pub connection: Connection,
    /// Records sent in each lane.
    sent: [u32; LANES],
    directions: [Direction; 2],
    /// `RECEIVE` or `TRANSMIT`; [`NO_TURN`] before any.
    turn_direction: usize,
    turn_limit: u32,
    /// Bytes of each turn that are sent.
    payload: u32,
}

const NO_TURN: usize = 2;

#[derive(Clone, Copy, Debug)]
struct Direction {
    last_ns: u64,
    cut_at: u64,
    turns: u32,
    /// Bytes of the current turn that are still to be sent.
    left: u32,
}

/// New bytes of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// `RECEIVE` or `TRANSMIT`.
    pub direction: usize,
    /// Where in the stream they begin; all before them are in order.
    pub offset: u64,
    /// How many there are.
    pub len: u32,
    /// What of them is known, from their begin.
    pub payload: &'a [u8],
    /// When they went.
    pub now: u64,
}

/// What is known of the connection at its end, or so far.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// When it ended.
    pub now: u64,
    /// Payload bytes received and sent.
    pub bytes: [u64; 2],
    /// Round-trip time in microseconds; 0 if it was not measured.
    pub rtt_us: u32,
    /// Segments that this end sent again.
    pub retransmits: u32,
    /// `sk_err`.
    pub error: u16,
    /// State before CLOSE.
    pub old_state: u8,
    /// Sequence numbers sent and not acknowledged.
    pub unacknowledged: u32,
    /// Further flags of the connection: which FINs were there.
    pub flags: u16,
}

impl Socket {
    /// A connection that begins.
    pub fn new(cookie: u64, local: Endpoint, remote: Endpoint, settings: &Settings) -> Self {
        let direction = Direction { last_ns: 0, cut_at: u64::MAX, turns: 0, left: 0 };
        let tuple = Tuple {
            local: local.address,
            remote: remote.address,
            local_port: local.port,
            remote_port: remote.port,
            pad: 0,
        };
        Self {
            cookie,
            connection: Connection {
                tuple,
                opened_ns: 0,
                cgroup: 0,
                tgid: 0,
                local_isn: 0,
                remote_isn: 0,
                flags: 0,
                pad: 0,
            },
            sent: [0; LANES],
            directions: [direction; 2],
            turn_direction: NO_TURN,
            turn_limit: settings.turns,
            payload: u32::try_from(settings.payload_per_turn).unwrap_or(u32::MAX),
        }
    }

    /// Its cookie.
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Lets it send this many turn records in all.
    pub const fn allow_turns(&mut self, turns: u32) {
        self.turn_limit = turns;
        if self.directions[0].turns + self.directions[1].turns <= turns {
            self.directions[0].cut_at = u64::MAX;
            self.directions[1].cut_at = u64::MAX;
        }
    }

    /// How many of the bytes at `offset` may be sent one day: no more of them has to be kept.
    pub fn may_want(&self, offset: u64, settings: &Settings) -> usize {
        if self.payload > 0 {
            return usize::MAX;
        }
        usize::try_from(u64::from(settings.head).saturating_sub(offset)).unwrap_or(usize::MAX)
    }

    /// Tells that it is established, since `time_ns`.
    pub fn open(&mut self, time_ns: u64, now: Wall, sink: &mut Sink<'_>) {
        let header = self.header(Kind::Open, Lane::Life, time_ns);
        let record = Record::Open(Open { header, connection: self.connection });
        sink(Item::Record { now, record });
    }

    /// Takes in new bytes: begins a turn where the direction changed or was silent, and sends
    /// records if one began or payload is wanted.
    pub fn bytes(
        &mut self,
        bytes: &Bytes<'_>,
        settings: &Settings,
        now: Wall,
        sink: &mut Sink<'_>,
    ) {
        let previous_ns = self.directions[bytes.direction].last_ns;
        let begins = self.begins(bytes);
        if begins {
            if bytes.offset == 0 && bytes.payload.starts_with(&[22, 3]) {
                // TLS (RFC 8446 §5.1): nobody reads what is encrypted; the handshake is in the heads.
                self.payload = 0;
            }
            self.directions[bytes.direction].left = self.payload;
        }
        let wanted = self.wanted(bytes, settings);
        let recorded = begins && self.within_limit(bytes);
        if !recorded && wanted == 0 {
            return;
        }
        let turn = if recorded { flags::TURN } else { 0 };
        self.send(bytes, wanted as usize, previous_ns, turn, now, sink);
    }

    fn begins(&mut self, bytes: &Bytes<'_>) -> bool {
        let changed = self.turn_direction != bytes.direction;
        let direction = &mut self.directions[bytes.direction];
        let silent = bytes.now.saturating_sub(direction.last_ns) > TURN_SILENCE_NS;
        direction.last_ns = bytes.now;
        if !changed && !silent {
            return false;
        }
        direction.turns = direction.turns.saturating_add(1);
        self.turn_direction = bytes.direction;
        true
    }

    /// How many of the bytes are sent: what belongs to the direction's head, or is left of the
    /// turn.
    fn wanted(&mut self, bytes: &Bytes<'_>, settings: &Settings) -> u32 {
        let head = u64::from(settings.head).saturating_sub(bytes.offset);
        let direction = &mut self.directions[bytes.direction];
        let of_turn = bytes.len.min(direction.left);
        direction.left -= of_turn;
        of_turn.max(u32::try_from(head).unwrap_or(u32::MAX).min(bytes.len))
    }

    /// Whether this turn is still recorded; where recording stops is noted, once. The turns of a
    /// connection that is parsed are all recorded.
    fn within_limit(&mut self, bytes: &Bytes<'_>) -> bool {
        let turns = self.directions[0].turns.saturating_add(self.directions[1].turns);
        if turns <= self.turn_limit || self.payload != 0 {
            return true;
        }
        let direction = &mut self.directions[bytes.direction];
        if direction.cut_at == u64::MAX {
            direction.cut_at = bytes.offset;
        }
        false
    }

    /// Sends up to `wanted` bytes of payload, in several records where one does not hold them.
    fn send(
        &mut self,
        bytes: &Bytes<'_>,
        wanted: usize,
        previous_ns: u64,
        mut turn_flag: u16,
        now: Wall,
        sink: &mut Sink<'_>,
    ) {
        let mut payload = &bytes.payload[..wanted.min(bytes.payload.len())];
        let (mut offset, mut whole) = (bytes.offset, bytes.len);
        let lane = if bytes.direction == RECEIVE { Lane::Receive } else { Lane::Transmit };
        loop {
            let (chunk, rest) = payload.split_at(payload.len().min(PAYLOAD_MAX));
            let len = chunk.len() as u32;
            let mut header = self.header(Kind::Data, lane, bytes.now);
            header.flags = turn_flag;
            header.payload_len = len;
            let data = Data {
                header,
                offset,
                position: bytes.offset,
                previous_ns,
                // What is not sent shows in the last record.
                segment_len: if rest.is_empty() { whole } else { len },
                turn: self.directions[bytes.direction].turns,
                tgid: 0,
                pad: 0,
            };
            sink(Item::Record { now, record: Record::Data(data, chunk) });
            if rest.is_empty() {
                return;
            }
            payload = rest;
            offset += u64::from(len);
            whole -= len;
            turn_flag = 0;
        }
    }

    /// Reports its end.
    pub fn close(&mut self, facts: &Facts, now: Wall, sink: &mut Sink<'_>) {
        let header = self.header(Kind::Close, Lane::Life, facts.now);
        sink(Item::Record { now, record: Record::Close(self.fill(header, facts, 0)) });
    }

    /// How it stands, still open.
    pub fn snapshot(&self, facts: &Facts) -> Close {
        let mut header = header(self.cookie, Kind::Close, Lane::Life, 0, facts.now);
        header.flags = flags::SNAPSHOT;
        self.fill(header, facts, flags::SNAPSHOT)
    }

    fn fill(&self, header: Header, facts: &Facts, flags: u16) -> Close {
        let mut connection = self.connection;
        connection.flags |= facts.flags | flags;
        Close {
            header,
            connection,
            bytes: facts.bytes,
            turns: self.directions.map(|direction| direction.turns),
            cut_at: self.directions.map(|direction| direction.cut_at),
            last_ns: self.directions.map(|direction| direction.last_ns),
            sent: self.sent,
            srtt_us: facts.rtt_us,
            retransmits: facts.retransmits,
            error: facts.error,
            old_state: facts.old_state,
            error_known: 1,
            unacknowledged: facts.unacknowledged,
            pad: 0,
        }
    }

    /// The next header of a lane.
    fn header(&mut self, kind: Kind, lane: Lane, time_ns: u64) -> Header {
        let sent = &mut self.sent[lane as usize];
        let number = *sent;
        *sent = sent.wrapping_add(1);
        header(self.cookie, kind, lane, number, time_ns)
    }
}

const fn header(cookie: u64, kind: Kind, lane: Lane, number: u32, time_ns: u64) -> Header {
    Header {
        kind: kind as u8,
        lane: lane as u8,
        flags: 0,
        payload_len: 0,
        cookie,
        generation: 0,
        number,
        time_ns,
    }
}
