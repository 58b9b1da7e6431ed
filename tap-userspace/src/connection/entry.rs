//! One connection in the table: what its records have told so far, and how it becomes a
//! [`Connection`].

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use tap_common::record::{self, Close, Data, LANES, Lane, flags};

use super::{
    ending::{self, Ending},
    identity::{Identities, Xid},
    model::{Connection, Direction, Event, Identity, Quality, Role, What},
    transaction::{About, Transaction},
};
use crate::{
    enrich::process::Process,
    protocol::{
        Protocol,
        conversation::{self, Captured, Conversation, DnsMessage, Found, Interest},
        exchange::Message,
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
            Box::new(new.with_statements(terms.statements))
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

    /// What the ends have said to one another since the last time, and whether the kernel side
    /// should capture otherwise from now on.
    pub fn transactions(
        &mut self,
        terms: &Terms<'_>,
        out: &mut Vec<Transaction>,
    ) -> Option<Interest> {
        let conversation = self.conversation.as_deref_mut()?;
        let interest = conversation.interest();
        let exchanges = conversation.exchanges();
        for found in conversation.found() {
            self.found(found);
        }
        if !terms.parse {
            return None;
        }
        for mut exchange in exchanges {
            exchange.began_ns = self.wall(exchange.began_ns);
            exchange.ended_ns = self.wall(exchange.ended_ns).max(exchange.began_ns);
            if self.host.is_none()
                && let Message::Http(http) = &exchange.message
            {
                self.host = http.host().map(Box::from);
            }
            let about = self.about(terms);
            out.push(Transaction { about, number: self.transactions, exchange });
            self.transactions += 1;
        }
        let changed = interest != self.interest;
        self.interest = interest;
        changed.then_some(interest)
    }

    /// The connection is over as far as its exchanges are concerned.
    fn end_conversation(&mut self, close: &Close) {
        if let Some(conversation) = &mut self.conversation {
            conversation.end(close.bytes, close.last_ns, close.header.time_ns);
        }
    }

    /// Whose exchanges these are.
    fn about(&mut self, terms: &Terms<'_>) -> Arc<About> {
        let known =
            self.about.as_ref().filter(|about| about.process.is_some() || self.process.is_none());
        if let Some(about) = known {
            return about.clone();
        }
        let (local, peer) = self.ends();
        let role = self.role(local, peer, terms);
        let about = Arc::new(About {
            id: self.id,
            identity: self.identity(role, terms),
            role,
            local,
            peer,
            process: self.process.clone(),
        });
        self.identity = Some(about.identity);
        self.about = Some(about.clone());
        about
    }

    /// DNS messages that went over this connection since the last time.
    pub fn dns(&mut self) -> Vec<DnsMessage> {
        self.conversation.as_deref_mut().map(Conversation::dns).unwrap_or_default()
    }

    fn found(&mut self, found: Found) {
        let what = match found.what {
            // Looked at anew after a forged segment, or the same inside a tunnel.
            conversation::What::Protocol(protocol) if self.protocol == Some(protocol) => return,
            conversation::What::Protocol(protocol) => {
                // Bytes that were forged told nothing.
                let unknown = What::Protocol(Protocol::Unknown);
                self.found.retain(|event| event.what != unknown);
                self.protocol = Some(protocol);
                What::Protocol(protocol)
            }
            conversation::What::ClientHello => {
                // One that was told before was forged.
                self.found.retain(|event| !matches!(event.what, What::ClientHello { .. }));
                let since_open_ns = found.at_ns.saturating_sub(self.connection.opened_ns);
                What::ClientHello { since_open_ns }
            }
        };
        self.found.push(Event { time_ns: self.wall(found.at_ns), what });
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
    pub fn close(
        &mut self,
        close: &Close,
        terms: &Terms<'_>,
        transactions: &mut Vec<Transaction>,
    ) -> Connection {
        if !self.is_complete(close) {
            self.quality.add(Quality::LOST_EVENTS);
        }
        let ending = ending::of(close, self.is_unanswered());
        self.end_conversation(close);
        self.transactions(terms, transactions);
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

    fn make(&mut self, close: &Close, ending: Ending, terms: &Terms<'_>) -> Connection {
        let (local, peer) = self.ends();
        let role = self.role(local, peer, terms);
        let start_ns = self.wall(self.since_ns);
        let end_ns = self.wall(close.header.time_ns).max(start_ns);
        let (events, dropped_events) = self.events(close, ending, start_ns, end_ns, terms);
        let mut quality = self.quality;
        self.judge(&mut quality, dropped_events);
        let said = self.conversation.as_deref();
        Connection {
            id: self.id,
            cookie: close.header.cookie,
            identity: self.identity(role, terms),
            role,
            state: ending.state,
            reset_by: ending.reset_by,
            error_type: ending.error_type,
            quality,
            local,
            peer,
            start_ns,
            end_ns,
            bytes: [0, 1].map(|way| close.bytes[way].saturating_sub(self.base.bytes[way])),
            segment: self.segment,
            rtt_us: close.srtt_us,
            retransmits: close.retransmits,
            protocol: self.protocol,
            protocol_version: said.and_then(Conversation::version),
            client_hello: said.and_then(Conversation::client_hello).cloned().map(Box::new),
            server_hello: said.and_then(Conversation::server_hello).cloned().map(Box::new),
            tls_established: said.is_some_and(Conversation::is_established),
            tls_resumed: said.and_then(Conversation::is_resumed),
            tls_handshake_ns: said.and_then(Conversation::handshake_ns),
            host: self.host.clone(),
            peer_name: self.peer_name.clone(),
            process: self.process.clone(),
            events,
            dropped_events,
        }
    }

    fn judge(&self, quality: &mut Quality, dropped_events: u32) {
        if self.connection.flags & flags::PREEXISTING != 0 {
            quality.add(Quality::PREEXISTING);
        }
        if self.process.is_none() {
            quality.add(Quality::NO_OWNER);
        }
        if dropped_events > 0 {
            quality.add(Quality::EVENT_LIMIT);
        }
        if self.conversation.as_ref().is_some_and(|said| said.has_gap()) {
            quality.add(Quality::GAP);
        }
        if self.conversation.as_ref().is_some_and(|said| said.is_truncated()) {
            quality.add(Quality::TRUNCATED);
        }
    }

    /// The ids: derived where both sequence numbers are the wire's, else those drawn. A later
    /// segment keeps the trace and has a span id of its own.
    fn identity(&self, role: Role, terms: &Terms<'_>) -> Identity {
        if let Some(identity) = self.identity {
            return identity;
        }
        let connection = &self.connection;
        let whole = connection.flags & flags::ESTABLISHED != 0
            && connection.flags & flags::PREEXISTING == 0;
        let (client, server) = match role {
            Role::Client => (connection.local_isn, connection.remote_isn),
            Role::Server => (connection.remote_isn, connection.local_isn),
        };
        let derived = if whole { terms.derive(client, server, role) } else { None };
        let mut identity = derived.unwrap_or(self.drawn);
        if self.segment > 0 {
            let salt = u64::from(self.segment).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let id = u64::from_be_bytes(identity.span_id) ^ salt;
            identity.span_id = id.max(1).to_be_bytes();
        }
        identity
    }

    /// This host's address and port, and the peer's.
    pub fn ends(&self) -> ((IpAddr, u16), (IpAddr, u16)) {
        let tuple = self.connection.tuple;
        ((address(tuple.local), tuple.local_port), (address(tuple.remote), tuple.remote_port))
    }

    fn role_by_flags(&self) -> Option<Role> {
        match self.connection.flags {
            set if set & flags::ACTIVE != 0 => Some(Role::Client),
            set if set & flags::PREEXISTING == 0 => Some(Role::Server),
            _ => None,
        }
    }

    /// Which end this host is. Of a connection older than tap the sockets that listen tell, then
    /// who spoke first as a client; that servers have the lower port is the last resort.
    fn role(&self, local: (IpAddr, u16), peer: (IpAddr, u16), terms: &Terms<'_>) -> Role {
        if let Some(role) = self.role_by_flags() {
            return role;
        }
        if terms.listens(local.0, local.1) {
            return Role::Server;
        }
        match self.conversation.as_ref().and_then(|said| said.client()) {
            Some(record::TRANSMIT) => Role::Client,
            Some(_) => Role::Server,
            None if terms.listens(peer.0, peer.1) => Role::Client,
            None if local.1 > peer.1 => Role::Client,
            None => Role::Server,
        }
    }

    /// The segment's events in order of time, and how many were left out. The open is there for
    /// the first segment, the close for all.
    fn events(
        &mut self,
        close: &Close,
        ending: Ending,
        start_ns: u64,
        end_ns: u64,
        terms: &Terms<'_>,
    ) -> (Vec<Event>, u32) {
        let mut events = Vec::with_capacity(self.turns.len() + self.found.len() + 3);
        if self.segment == 0 {
            events.push(Event { time_ns: start_ns, what: What::Open });
        }
        events.append(&mut self.found);
        let recorded = self.data_events(close, &mut events);
        for event in &mut events {
            // What came with the handshake's last segment was seen before the socket was there.
            event.time_ns = event.time_ns.clamp(start_ns, end_ns);
        }
        events.sort_by_key(|event| event.time_ns);
        if ending.error_type.is_some() {
            events.push(Event { time_ns: end_ns, what: What::Error });
        }
        let room = terms.event_limit.saturating_sub(1);
        let mut dropped = self.turns_not_recorded(close, recorded) + self.unkept;
        if events.len() > room {
            dropped += (events.len() - room) as u32;
            events.truncate(room);
        }
        events.push(Event { time_ns: end_ns, what: What::Close });
        (events, dropped)
    }

    /// One event per turn that has bytes; says how many turns were recorded. A turn of no bytes is
    /// one that a forged or repeated segment seemed to begin.
    fn data_events(&mut self, close: &Close, events: &mut Vec<Event>) -> u32 {
        let turns = std::mem::take(&mut self.turns);
        let mut ends =
            [0, 1].map(|way| close.bytes[way].min(close.cut_at[way]).min(self.cut_at[way]));
        for turn in turns.iter().rev() {
            let end = &mut ends[turn.direction.index()];
            let bytes = end.saturating_sub(turn.position);
            *end = turn.position.min(*end);
            if bytes > 0 {
                let what = What::Data { direction: turn.direction, bytes };
                events.push(Event { time_ns: self.wall(turn.time_ns), what });
            }
        }
        let carried = if self.segment > 0 { 2 } else { 0 };
        (turns.len() as u32 + self.unkept).saturating_sub(carried)
    }

    /// Turns that the kernel only counted, after the connection had its number of records.
    fn turns_not_recorded(&self, close: &Close, recorded: u32) -> u32 {
        if close.cut_at == [u64::MAX; 2] {
            return 0;
        }
        let all = [0, 1].map(|way| close.turns[way].saturating_sub(self.base.turns[way]));
        (all[0] + all[1]).saturating_sub(recorded)
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
