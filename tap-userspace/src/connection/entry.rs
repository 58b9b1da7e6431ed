//! One connection in the table: what its records have told so far, and how it becomes a
//! [`Connection`].

mod made;
mod said;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use tap_common::record::{self, Close, Data, LANES, Lane, flags};

pub use self::said::Told;
use super::{
    ending::{self, Ending},
    identity::{Identities, Xid},
    model::{Connection, Direction, Event, Identity, Quality, Role},
    transaction::About,
};
use crate::{
    enrich::process::Process,
    policy::admission::Rules,
    protocol::{
        Protocol,
        content::Collect,
        conversation::{Captured, Conversation, Interest},
    },
};

/// A turn that was recorded.
#[derive(Clone, Copy, Debug)]
struct Turn {
    time_ns: u64,
    /// Stream position at which it begins.
    position: u64,
    direction: Direction,
}

/// A connection that is open, or whose last records are awaited.
#[derive(Debug)]
pub struct Entry {
    /// The connection as the kernel tells it; the tuple is empty until an open or close came.
    pub connection: record::Connection,
    /// An open, a close or a socket listing has told the tuple.
    pub known: bool,
    /// The kernel has state for it, so that a snapshot must show it.
    pub in_storage: bool,
    /// When this segment of it began: the open, or the end of the segment before.
    pub since_ns: u64,
    /// Monotonic → wall, chosen when it was first heard of.
    pub clock_offset: i64,
    /// `connection.id`.
    pub id: Xid,
    /// Ids that were drawn for it; derived ones are made at the end.
    pub drawn: Identity,
    /// Owner of the local end.
    pub process: Option<Arc<Process>>,
    /// The peer's name, by the DNS answers seen before it was opened.
    pub peer_name: Option<Box<str>>,
    /// That it has opened is still to be told.
    pub unannounced: bool,
    /// By which rules it is still to be decided whether it is told.
    pub judging: Option<Arc<Rules>>,
    /// The rules refuse it; it is empty.
    pub refused: bool,
    /// The server's name, by its client's first request.
    host: Option<Box<str>>,
    /// Records that came in each lane.
    pub came: [u32; LANES],
    /// The close, while records before it are awaited, and when it was read.
    pub closing: Option<Box<(Close, u64)>>,
    /// `tap.connection.segment`.
    pub segment: u32,
    protocol: Option<Protocol>,
    /// What the ends say, while somebody reads it.
    conversation: Option<Box<Conversation>>,
    /// What the kernel side was told to capture, where that is not its default.
    pub interest: Interest,
    /// Exchanges told.
    transactions: u32,
    about: Option<Arc<About>>,
    /// Exchanges that were told carry these ids, so the span does.
    identity: Option<Identity>,
    /// Where this side stopped keeping turns, by direction, and how many came after.
    cut_at: [u64; 2],
    unkept: u32,
    turns: Vec<Turn>,
    found: Vec<Event>,
    /// Totals at the end of the segment before.
    base: Totals,
    quality: Quality,
    /// Records or payload of it were lost, in whatever segment.
    lost: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    bytes: [u64; 2],
    turns: [u32; 2],
}

/// What the table knows and an entry does not.
pub struct Terms<'a> {
    /// Most events of a span.
    pub event_limit: usize,
    /// Makes ids.
    pub identities: &'a Identities,
    /// Where somebody listened when tap started.
    pub listeners: &'a HashSet<(IpAddr, u16)>,
    /// Whether exchanges are read.
    pub parse: bool,
    /// Whether their statements are.
    pub statements: bool,
    /// How contents of HTTP messages are kept.
    pub collect: &'a Option<Arc<Collect>>,
}

impl Entry {
    /// A connection that was just heard of.
    pub fn new(now_ns: u64, clock_offset: i64, id: Xid, drawn: Identity) -> Self {
        Self {
            connection: EMPTY,
            known: false,
            in_storage: true,
            since_ns: now_ns,
            clock_offset,
            id,
            drawn,
            process: None,
            peer_name: None,
            unannounced: false,
            judging: None,
            refused: false,
            host: None,
            came: [0; LANES],
            closing: None,
            segment: 0,
            protocol: None,
            conversation: None,
            interest: Interest::Turns,
            transactions: 0,
            about: None,
            identity: None,
            cut_at: [u64::MAX; 2],
            unkept: 0,
            turns: Vec::new(),
            found: Vec::new(),
            base: Totals::default(),
            quality: Quality::default(),
            lost: false,
        }
    }

    /// Counts a record that came.
    pub const fn count(&mut self, lane: Lane) {
        self.came[lane as usize] += 1;
    }

    /// Takes in what an open, a close or a listing says of the connection.
    pub fn learn(&mut self, connection: &record::Connection) {
        if !self.known {
            self.known = true;
            self.since_ns = connection.opened_ns;
        }
        let earlier = self.connection.flags & flags::PREEXISTING;
        self.connection = *connection;
        self.connection.flags |= earlier;
    }

    /// The rules refuse it: what it said is forgotten, and it says no more.
    pub fn refuse(&mut self) {
        (self.judging, self.refused, self.unannounced) = (None, true, false);
        (self.conversation, self.about, self.peer_name, self.host) = (None, None, None, None);
        (self.turns, self.found) = (Vec::new(), Vec::new());
    }

    /// Takes in bytes of one direction.
    pub fn data(&mut self, data: &Data, payload: &[u8], terms: &Terms<'_>) {
        let direction = if data.header.lane == Lane::Receive as u8 {
            Direction::Receive
        } else {
            Direction::Transmit
        };
        if data.header.flags & flags::TURN != 0 {
            let turn = Turn { time_ns: data.header.time_ns, position: data.position, direction };
            self.turn(turn, terms.event_limit);
        }
        if data.header.flags & flags::SHED != 0 {
            self.quality.add(Quality::LOST_EVENTS);
            self.lost = true;
        }
        self.converse(data, payload, direction, terms);
    }

    /// Keeps a turn, while the span has room for it.
    fn turn(&mut self, turn: Turn, limit: usize) {
        if self.turns.len() < limit {
            self.turns.push(turn);
        } else {
            let cut_at = &mut self.cut_at[turn.direction.index()];
            *cut_at = (*cut_at).min(turn.position);
            self.unkept += 1;
        }
    }

    fn converse(&mut self, data: &Data, payload: &[u8], direction: Direction, terms: &Terms<'_>) {
        let joined = self.is_preexisting();
        let tuple = self.connection.tuple;
        let conversation = self.conversation.get_or_insert_with(|| {
            let ports = [tuple.local_port, tuple.remote_port];
            let new = Conversation::new(ports, joined, terms.parse);
            Box::new(new.with_statements(terms.statements).with_content(terms.collect.clone()))
        });
        conversation.take(&Captured {
            direction: direction.index(),
            offset: data.offset,
            bytes: payload,
            len: data.segment_len,
            position: data.position,
            previous_ns: data.previous_ns,
            at_ns: data.header.time_ns,
        });
    }

    /// Fills in a close that knows only its socket.
    pub fn complete(&self, close: &mut Close) {
        let flags = close.connection.flags | self.connection.flags;
        close.connection = self.connection;
        close.connection.flags = flags;
        close.sent = self.came;
        // `bytes_received` counts the peer's FIN; without the state there is no telling.
        close.bytes = [close.bytes[0], self.sent_so_far()];
    }

    /// Where the last turn that was sent began: what is known to have been sent.
    fn sent_so_far(&self) -> u64 {
        let sent = self.turns.iter().filter(|turn| turn.direction == Direction::Transmit);
        sent.map(|turn| turn.position).max().unwrap_or(self.base.bytes[record::TRANSMIT])
    }

    /// Whether it is older than tap.
    pub const fn is_preexisting(&self) -> bool {
        self.connection.flags & flags::PREEXISTING != 0
    }

    /// Whether every record that the close counts has come.
    pub fn is_complete(&self, close: &Close) -> bool {
        self.came.iter().zip(close.sent).all(|(came, sent)| *came >= sent)
    }

    /// The connection at its close.
    pub fn close(&mut self, close: &Close, terms: &Terms<'_>, told: &mut Told) -> Connection {
        if !self.is_complete(close) {
            self.quality.add(Quality::LOST_EVENTS);
            self.lost = true;
        }
        let ending = ending::of(close, self.is_unanswered());
        self.end_conversation(close, terms, told);
        self.make(close, ending, terms)
    }

    /// The connection, still open, as a snapshot shows it; the entry goes on as its next segment
    /// (of which nobody hears if the daemon leaves).
    pub fn cut(&mut self, snapshot: &Close, terms: &Terms<'_>) -> Connection {
        let connection = self.make(snapshot, Ending::OPEN, terms);
        self.segment += 1;
        self.since_ns = snapshot.header.time_ns;
        self.base = Totals { bytes: snapshot.bytes, turns: snapshot.turns };
        (self.about, self.identity) = (None, None);
        (self.cut_at, self.unkept) = ([u64::MAX; 2], 0);
        self.quality = Quality::default();
        // A turn that goes on over the border shows in the new segment from its begin.
        for direction in [Direction::Receive, Direction::Transmit] {
            let position = snapshot.bytes[direction.index()];
            self.turns.push(Turn { time_ns: self.since_ns, position, direction });
        }
        connection
    }

    /// What there is of it without any word from the kernel on how it stands.
    pub fn give_up(
        &mut self,
        cookie: u64,
        now_ns: u64,
        lost: bool,
        terms: &Terms<'_>,
    ) -> Connection {
        if lost {
            self.quality.add(Quality::LOST_EVENTS);
        }
        let mut bytes = self.base.bytes;
        for turn in &self.turns {
            let total = &mut bytes[turn.direction.index()];
            *total = (*total).max(turn.position);
        }
        let mut snapshot = without_word(self.connection, now_ns);
        snapshot.header.cookie = cookie;
        snapshot.bytes = bytes;
        self.cut(&snapshot, terms)
    }

    /// A request of the client was not answered: the last turn is the client's.
    fn is_unanswered(&self) -> bool {
        let request = match self.role_by_flags() {
            Some(Role::Server) => Direction::Receive,
            _ => Direction::Transmit,
        };
        self.turns.last().is_some_and(|turn| turn.direction == request)
    }

    const fn wall(&self, mono_ns: u64) -> u64 {
        mono_ns.saturating_add_signed(self.clock_offset)
    }
}

/// A close record for a connection of which the kernel says nothing.
pub fn without_word(connection: record::Connection, now_ns: u64) -> Close {
    Close {
        header: record::Header {
            kind: record::Kind::Close as u8,
            lane: Lane::Life as u8,
            flags: flags::SNAPSHOT,
            payload_len: 0,
            cookie: 0,
            generation: 0,
            number: 0,
            time_ns: now_ns,
        },
        connection,
        bytes: [0; 2],
        turns: [0; 2],
        cut_at: [u64::MAX; 2],
        last_ns: [0; 2],
        sent: [0; LANES],
        srtt_us: 0,
        retransmits: 0,
        error: 0,
        old_state: 0,
        error_known: 0,
        unacknowledged: 0,
        pad: 0,
    }
}

pub(super) const EMPTY: record::Connection = record::Connection {
    tuple: record::Tuple { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, pad: 0 },
    opened_ns: 0,
    cgroup: 0,
    tgid: 0,
    local_isn: 0,
    remote_isn: 0,
    flags: 0,
    pad: 0,
};

/// An address of a record: IPv4 out of its mapped form.
pub fn address(bytes: [u8; 16]) -> IpAddr {
    let six = Ipv6Addr::from(bytes);
    six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4)
}
