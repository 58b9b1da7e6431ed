//! What the two ends of a connection say to one another. Comes in: captured bytes of both
//! directions with their places in the streams. Goes out: [`Found`]s (which protocols, the TLS
//! ClientHello), [`Exchange`]s and [`DnsMessage`]s.
//!
//! Each direction is put in order by a [`Stream`]. Until the protocol is known its first bytes are
//! kept; then its parser gets them and all that follows, and where one protocol ends in another
//! (an upgrade, a tunnel, STARTTLS) that one's.
#![forbid(unsafe_code)]

use smallvec::SmallVec;
use tap_common::record::{RECEIVE, TRANSMIT};

use super::{
    Protocol,
    detect::{self, Detected, Detection},
    exchange::{Exchange, Next, Outcome, Parser, Piece, Side},
    http1::Http1,
    http2::Http2,
    kafka::Kafka,
    mysql::Mysql,
    postgres::Postgres,
    redis::Redis,
    starttls::{StartTls, Upgrade},
    stream::Stream,
    tls::{ClientHello, Handshake, ServerHello, TlsEvent},
    websocket::Session,
};
use crate::enrich::dns::DnsTcp;

/// Looks at the beginnings of turns of a connection that was joined in the middle.
const TRIES: u8 = 16;

/// Bytes kept of each direction until its protocol is known. A head of HTTP is known by its first
/// line; the rest is room for what a server says before its client.
const KEPT: usize = 16 << 10;

/// Pieces of the beginning that are kept: it is looked through at each piece that comes in, and a
/// hostile peer sends it byte by byte.
const KEPT_PIECES: usize = 64;

/// Port of DNS (RFC 1035 §4.2).
pub const DNS_PORT: u16 = 53;

/// Shortest DNS message that asks something: header, the root's name, type and class.
const DNS_MIN: usize = 17;

/// What the kernel side should capture of a connection from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nobody reads on.
    Nothing,
    /// The beginning of each turn: the parser skips the rest of bodies by their length.
    Turns,
    /// Every byte: the framing of many messages runs through all of it.
    Everything,
}

/// Something that the bytes told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// When its last byte went.
    pub at_ns: u64,
    /// What it is.
    pub what: What,
}

/// What can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// What is spoken from here on.
    Protocol(Protocol),
    /// A TLS ClientHello is whole; it is [`Conversation::client_hello`].
    ClientHello,
}

/// Captured bytes of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// [`RECEIVE`] or [`TRANSMIT`].
    pub direction: usize,
    /// Where they begin in the stream.
    pub offset: u64,
    /// What was captured.
    pub bytes: &'a [u8],
    /// How many there were.
    pub len: u32,
    /// Everything before this place of the stream had crossed.
    pub position: u64,
    /// When that was.
    pub previous_ns: u64,
    /// When these crossed.
    pub at_ns: u64,
}

/// A DNS message that went over TCP, as far as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsMessage {
    /// [`RECEIVE`] or [`TRANSMIT`].
    pub direction: usize,
    /// When its last byte went.
    pub at_ns: u64,
    /// Without its length.
    pub bytes: Vec<u8>,
}

/// One connection's conversation.
#[derive(Debug)]
pub struct Conversation {
    /// By direction, as in the records.
    streams: [Stream; 2],
    talk: Talk,
    /// What was captured until the beginning has told all that it can, and the kernel has taken it.
    kept: Vec<Kept>,
    /// How far the received bytes among them go.
    kept_to: u64,
}

/// Captured bytes, kept.
#[derive(Debug)]
struct Kept {
    direction: usize,
    offset: u64,
    bytes: Box<[u8]>,
    at_ns: u64,
}

#[derive(Debug)]
struct Talk {
    stage: Stage,
    /// Exchanges are wanted.
    parse: bool,
    /// Their statements too.
    statements: bool,
    /// The ports of this host and of the peer.
    ports: [u16; 2],
    /// The direction in which the client speaks, once it is known.
    client: Option<usize>,
    /// The outermost protocol's version, where its bytes told.
    version: Option<&'static str>,
    /// Looks that may still fail.
    tries: u8,
    /// There were bytes to look at.
    looked: bool,
    /// The kernel side has seen by itself that nothing can be read.
    is_known_below: bool,
    gap: bool,
    truncated: bool,
    tls: Option<Box<Handshake>>,
    exchanges: Vec<Exchange>,
    dns: Vec<DnsMessage>,
    found: SmallVec<[Found; 2]>,
}

#[derive(Debug)]
enum Stage {
    /// What is spoken is not known yet: the first bytes of both directions, and when they went.
    Looking([(Vec<u8>, u64); 2]),
    /// A TLS handshake, which is [`Talk::tls`].
    Handshake,
    Parsing(Box<dyn Parser>, Interest),
    /// DNS, read for the names in it: by direction.
    Dns(Box<[DnsTcp; 2]>),
    /// Nothing is read any more.
    Over,
}

impl Stage {
    const LOOKING: Self = Self::Looking([(Vec::new(), 0), (Vec::new(), 0)]);
}

impl Kept {
    /// Whether `bytes` at `offset` of what was received say otherwise.
    fn contradicts(&self, offset: u64, bytes: &[u8]) -> bool {
        let begin = self.offset.max(offset);
        let from = |of: u64, bytes: &'_ [u8]| {
            usize::try_from(begin - of).map_or(0, |skip| skip.min(bytes.len()))
        };
        let ours = &self.bytes[from(self.offset, &self.bytes)..];
        let theirs = &bytes[from(offset, bytes)..];
        let len = ours.len().min(theirs.len());
        self.direction == RECEIVE && ours[..len] != theirs[..len]
    }
}

impl Conversation {
    /// A conversation of which nothing was heard, between these ports of this host and the peer.
    /// `joined`: its beginning is not known. `parse`: exchanges are wanted, not just names.
    pub const fn new(ports: [u16; 2], joined: bool, parse: bool) -> Self {
        let talk = Talk {
            stage: Stage::LOOKING,
            parse,
            statements: false,
            ports,
            client: None,
            version: None,
            tries: if joined { TRIES } else { 0 },
            looked: false,
            is_known_below: false,
            gap: false,
            truncated: false,
            tls: None,
            exchanges: Vec::new(),
            dns: Vec::new(),
            found: SmallVec::new_const(),
        };
        Self { streams: [Stream::begin(0), Stream::begin(0)], talk, kept: Vec::new(), kept_to: 0 }
    }

    /// Whether exchanges of databases have their statement's text, without its values.
    #[must_use]
    pub const fn with_statements(mut self, statements: bool) -> Self {
        self.talk.statements = statements;
        self
    }

    /// Takes in captured bytes.
    pub fn take(&mut self, captured: &Captured<'_>) {
        self.start_anew_if_forged(captured);
        self.feed(captured);
        let beginning = self.talk.is_beginning();
        let over = !beginning && self.talk.tls.is_none();
        if !over {
            self.keep(captured);
        }
        let taken = captured.direction == RECEIVE && captured.position >= self.kept_to;
        if over || (taken && !beginning) {
            self.kept = Vec::new();
        }
    }

    fn feed(&mut self, captured: &Captured<'_>) {
        let Self { streams, talk, .. } = self;
        if matches!(talk.stage, Stage::Over) {
            return;
        }
        let Captured { direction, offset, bytes, .. } = *captured;
        if bytes.len() < captured.len as usize && talk.wants_head() {
            talk.truncated = true;
        }
        let stream = &mut streams[direction];
        let mut sink = |piece: Piece<'_>, at_ns| talk.piece(direction, piece, at_ns);
        stream.missing_until(captured.position.min(offset), captured.previous_ns, &mut sink);
        stream.put(offset, bytes, captured.at_ns, &mut sink);
        if stream.told() == offset.saturating_add(bytes.len() as u64) {
            // The rest of this segment has crossed too.
            let whole = offset.saturating_add(captured.len.into());
            stream.missing_until(whole, captured.at_ns, &mut sink);
        }
        if matches!(talk.stage, Stage::Over) {
            *streams = [Stream::begin(0), Stream::begin(0)];
        }
    }

    /// What comes in is seen before the kernel has checked it. Where other bytes come for a place
    /// beyond the kernel's position, those before were forged or damaged, and not taken. Where they
    /// may have spoilt the beginning, it is told again without them.
    fn start_anew_if_forged(&mut self, captured: &Captured<'_>) {
        let Captured { direction, offset, position, bytes, .. } = *captured;
        if direction != RECEIVE || bytes.is_empty() {
            return;
        }
        let unknown = matches!(self.talk.stage, Stage::Over) && self.talk.client.is_none();
        let first_again = unknown && offset == 0 && position == 0;
        if !first_again && !self.kept.iter().any(|kept| kept.contradicts(offset, bytes)) {
            return;
        }
        let Talk { ports, tries, parse, statements, .. } = self.talk;
        let kept = std::mem::take(&mut self.kept);
        *self = Self::new(ports, tries > 0, parse).with_statements(statements);
        for Kept { direction, offset, bytes, at_ns } in kept {
            let good =
                if direction == RECEIVE { position.saturating_sub(offset) } else { u64::MAX };
            let good = usize::try_from(good).unwrap_or(usize::MAX).min(bytes.len());
            if good > 0 {
                self.take(&Captured {
                    direction,
                    offset,
                    bytes: &bytes[..good],
                    len: good as u32,
                    position: offset,
                    previous_ns: at_ns,
                    at_ns,
                });
            }
        }
    }

    fn keep(&mut self, captured: &Captured<'_>) {
        let len: usize = self.kept.iter().map(|kept| kept.bytes.len()).sum();
        let room = self.kept.len() < KEPT_PIECES && len + captured.bytes.len() <= KEPT;
        if !captured.bytes.is_empty() && room {
            if captured.direction == RECEIVE {
                let end = captured.offset.saturating_add(captured.bytes.len() as u64);
                self.kept_to = self.kept_to.max(end);
            }
            self.kept.push(Kept {
                direction: captured.direction,
                offset: captured.offset,
                bytes: captured.bytes.into(),
                at_ns: captured.at_ns,
            });
        }
    }

    /// The connection is over, or this tap's view of it: so many bytes went in each direction, the
    /// last of them then.
    pub fn end(&mut self, totals: [u64; 2], last_ns: [u64; 2], now_ns: u64) {
        let Self { streams, talk, .. } = self;
        let mut order = [RECEIVE, TRANSMIT];
        order.sort_by_key(|direction| last_ns[*direction]);
        for direction in order {
            let last = if last_ns[direction] == 0 { now_ns } else { last_ns[direction] };
            let mut sink = |piece: Piece<'_>, at_ns| talk.piece(direction, piece, at_ns);
            streams[direction].end(totals[direction], last, &mut sink);
        }
        match &mut talk.stage {
            Stage::Parsing(parser, _) => parser.finish(now_ns, &mut talk.exchanges),
            // There will not be more to know it by.
            Stage::Looking(_) => talk.unknown(now_ns),
            _ => {}
        }
        talk.stage = Stage::Over;
    }

    /// What was found since the last time.
    pub fn found(&mut self) -> SmallVec<[Found; 2]> {
        std::mem::take(&mut self.talk.found)
    }

    /// Exchanges that are over since the last time. Their times are the kernel's.
    pub fn exchanges(&mut self) -> Vec<Exchange> {
        std::mem::take(&mut self.talk.exchanges)
    }

    /// DNS messages since the last time, where a port is that of DNS.
    pub fn dns(&mut self) -> Vec<DnsMessage> {
        std::mem::take(&mut self.talk.dns)
    }

    /// What the kernel side should capture.
    pub const fn interest(&self) -> Interest {
        match &self.talk.stage {
            Stage::Parsing(_, interest) => *interest,
            Stage::Over if !self.talk.is_known_below => Interest::Nothing,
            Stage::Looking(_) | Stage::Handshake | Stage::Dns(_) | Stage::Over => Interest::Turns,
        }
    }

    /// Direction (as in the records) in which the client speaks, where the bytes told.
    pub const fn client(&self) -> Option<usize> {
        self.talk.client
    }

    /// Version of the outermost protocol, where the bytes told.
    pub const fn version(&self) -> Option<&'static str> {
        self.talk.version
    }

    /// The TLS handshake, if there was one.
    fn tls(&self) -> Option<&Handshake> {
        self.talk.tls.as_deref()
    }

    /// The TLS ClientHello.
    pub fn client_hello(&self) -> Option<&ClientHello> {
        self.tls()?.client_hello()
    }

    /// What the TLS server chose.
    pub fn server_hello(&self) -> Option<&ServerHello> {
        self.tls()?.server_hello()
    }

    /// Whether the TLS handshake ended well.
    pub fn is_established(&self) -> bool {
        self.tls().is_some_and(Handshake::established)
    }

    /// Whether the TLS session was resumed, where that is known.
    pub fn is_resumed(&self) -> Option<bool> {
        self.tls()?.resumed()
    }

    /// From the ClientHello to the end of the TLS handshake, nanoseconds.
    pub fn handshake_ns(&self) -> Option<u64> {
        let tls = self.tls()?;
        Some(tls.ended_ns()?.saturating_sub(tls.client_hello_ns()?))
    }

    /// Whether something is missing in what was wanted.
    pub fn has_gap(&self) -> bool {
        self.talk.gap && !self.talk.truncated && self.talk.wants_head()
    }

    /// Whether a head that was wanted goes past what is captured.
    pub fn is_truncated(&self) -> bool {
        self.talk.truncated && self.talk.wants_head()
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        let stage = match &self.talk.stage {
            Stage::Looking(heads) => heads.iter().map(|(head, _)| head.capacity()).sum(),
            Stage::Parsing(parser, _) => parser.memory(),
            Stage::Dns(readers) => readers.iter().map(DnsTcp::memory).sum(),
            Stage::Handshake | Stage::Over => 0,
        };
        let tls = self.tls().map_or(0, |tls| size_of::<Handshake>() + tls.memory());
        let kept: usize = self.kept.iter().map(|kept| kept.bytes.len() + size_of::<Kept>()).sum();
        self.streams.iter().map(Stream::memory).sum::<usize>() + stage + tls + kept
    }
}

impl Talk {
    /// Whether the first bytes of a direction have not told yet what they are to tell.
    fn wants_head(&self) -> bool {
        let hello = self.tls.as_ref().map(|tls| tls.client_hello().is_some());
        hello.map_or(matches!(self.stage, Stage::Looking(_)), |hello| !hello)
    }

    /// Whether the connection is at its beginning still.
    const fn is_beginning(&self) -> bool {
        matches!(self.stage, Stage::Looking(_) | Stage::Handshake)
    }

    fn side(&self, direction: usize) -> Side {
        if self.client == Some(direction) { Side::Client } else { Side::Server }
    }

    /// The next piece of a direction, whatever it belongs to.
    fn piece(&mut self, direction: usize, piece: Piece<'_>, at_ns: u64) {
        /// Protocols inside one another that a single piece may begin.
        const DEPTH: usize = 4;
        let mut piece = piece;
        for _ in 0..DEPTH {
            let side = self.side(direction);
            self.gap |= matches!(piece, Piece::Missing(_)) && self.wants_head();
            let rest = match &mut self.stage {
                Stage::Over => return,
                Stage::Looking(_) => return self.look(direction, piece, at_ns),
                Stage::Handshake => return self.handshake(side, piece, at_ns),
                Stage::Dns(readers) => {
                    let told = &mut self.dns;
                    return readers[direction].take(piece, &mut |message| {
                        if message.len() >= DNS_MIN {
                            told.push(DnsMessage { direction, at_ns, bytes: message.into() });
                        }
                    });
                }
                Stage::Parsing(parser, _) => {
                    match parser.take(side, piece, at_ns, &mut self.exchanges) {
                        Outcome::Continue => return,
                        Outcome::Lost => {
                            parser.finish(at_ns, &mut self.exchanges);
                            self.stage = Stage::Over;
                            return;
                        }
                        Outcome::Switch { to, rest } => {
                            self.switch(to, at_ns);
                            rest
                        }
                    }
                }
            };
            piece = match piece {
                Piece::Bytes(bytes) => match bytes.get(bytes.len().saturating_sub(rest)..) {
                    Some([]) | None => return,
                    Some(left) => Piece::Bytes(left),
                },
                Piece::Missing(_) | Piece::End => return,
            };
        }
        self.stage = Stage::Over;
    }

    fn switch(&mut self, to: Next, at_ns: u64) {
        match to {
            Next::Detect => self.stage = Stage::LOOKING,
            Next::Tls => self.begin_tls(at_ns),
            Next::WebSocket => {
                self.find(Protocol::WebSocket, at_ns);
                self.parse(Box::new(Session::new()), Interest::Everything);
            }
            Next::Http2(request) => {
                self.find(Protocol::Http2, at_ns);
                self.parse(Box::new(Http2::upgraded(*request)), Interest::Everything);
            }
        }
    }

    fn find(&mut self, protocol: Protocol, at_ns: u64) {
        self.found.push(Found { at_ns, what: What::Protocol(protocol) });
    }

    fn parse(&mut self, parser: Box<dyn Parser>, interest: Interest) {
        self.stage = if self.parse { Stage::Parsing(parser, interest) } else { Stage::Over };
    }

    fn begin_tls(&mut self, at_ns: u64) {
        self.find(Protocol::Tls, at_ns);
        self.tls = Some(Box::new(Handshake::new()));
        self.stage = Stage::Handshake;
    }

    fn handshake(&mut self, side: Side, piece: Piece<'_>, at_ns: u64) {
        let Some(tls) = &mut self.tls else { return };
        for event in tls.take(side, piece, at_ns) {
            if event == TlsEvent::ClientHello {
                self.found.push(Found { at_ns, what: What::ClientHello });
            }
        }
        if tls.done() {
            self.stage = Stage::Over;
        }
    }

    /// Keeps first bytes until they tell what is spoken.
    fn look(&mut self, direction: usize, piece: Piece<'_>, at_ns: u64) {
        let Stage::Looking(heads) = &mut self.stage else { return };
        let bytes = match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Missing(_) => return self.failed(at_ns),
            Piece::End => return,
        };
        self.looked = true;
        let nothing_kept = heads.iter().all(|(head, _)| head.is_empty());
        if nothing_kept {
            // Mostly the first segment tells, and then nothing has to be kept.
            let mut ends: [&[u8]; 2] = [&[], &[]];
            ends[direction] = bytes;
            if let Detection::Known(detected) =
                detect::detect_with(ends[RECEIVE], ends[TRANSMIT], self.ports)
            {
                self.begin(&detected, bytes, at_ns);
                return self.piece(direction, piece, at_ns);
            }
        }
        let (head, last_ns) = &mut heads[direction];
        *last_ns = at_ns;
        if head.len() + bytes.len() > KEPT {
            return self.failed(at_ns);
        }
        head.extend_from_slice(bytes);
        match detect::detect_with(&heads[RECEIVE].0, &heads[TRANSMIT].0, self.ports) {
            Detection::Known(detected) => self.begin_with_kept(&detected, at_ns),
            Detection::NeedMore => {}
            Detection::Unknown => self.failed(at_ns),
        }
    }

    /// These bytes told nothing. In the middle of a connection the next may.
    fn failed(&mut self, at_ns: u64) {
        if self.tries == 0 {
            self.stage = Stage::Over;
            self.unknown(at_ns);
        } else {
            self.stage = Stage::LOOKING;
            self.tries -= 1;
        }
    }

    /// Nobody knows what is spoken. That is not told inside of a protocol that is known, and where
    /// nothing was there to look at.
    fn unknown(&mut self, at_ns: u64) {
        if self.looked && self.client.is_none() {
            self.find(Protocol::Unknown, at_ns);
        }
    }

    /// The protocol is known: its parser gets what was kept, in the order of its times.
    fn begin_with_kept(&mut self, detected: &Detected, at_ns: u64) {
        let Stage::Looking(heads) = std::mem::replace(&mut self.stage, Stage::Over) else { return };
        let client = detected.client.index();
        self.begin(detected, &heads[client].0, at_ns);
        let mut order = [client, 1 - client];
        if heads[order[1]].1 < heads[order[0]].1 {
            order.swap(0, 1);
        }
        for direction in order {
            let (head, head_ns) = &heads[direction];
            if !head.is_empty() {
                self.piece(direction, Piece::Bytes(head), *head_ns);
            }
        }
    }

    /// The protocol is known by `head`.
    fn begin(&mut self, detected: &Detected, head: &[u8], at_ns: u64) {
        let outermost = self.client.is_none();
        self.client = Some(detected.client.index());
        if outermost {
            self.version = detected.version;
        }
        if detected.protocol == Protocol::Tls {
            self.is_known_below = outermost && self.tries == 0;
            return self.begin_tls(at_ns);
        }
        self.find(detected.protocol, at_ns);
        if detected.protocol == Protocol::Dns && self.ports.contains(&DNS_PORT) {
            self.stage = Stage::Dns(Box::default());
            return;
        }
        let joined = self.tries > 0;
        // A tunnel's inside is looked at whether or not its exchanges are wanted.
        let tunnel = detected.protocol == Protocol::Http1 && head.starts_with(b"CONNECT ");
        self.stage = match upgrade_of(detected.protocol) {
            Some(upgrade) if !(self.parse && is_read(detected.protocol)) => {
                Stage::Parsing(Box::new(StartTls::new(upgrade)), Interest::Turns)
            }
            _ if self.parse || tunnel => parser_of(detected.protocol, joined, self.statements)
                .map_or(Stage::Over, |(parser, interest)| Stage::Parsing(parser, interest)),
            _ => Stage::Over,
        };
    }
}

/// Whether the exchanges of a protocol are read.
const fn is_read(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::Http1
            | Protocol::Http2
            | Protocol::Redis
            | Protocol::Postgresql
            | Protocol::Mysql
            | Protocol::Kafka
    )
}

/// How a protocol may go on with TLS.
const fn upgrade_of(protocol: Protocol) -> Option<Upgrade> {
    match protocol {
        Protocol::Smtp => Some(Upgrade::Smtp),
        Protocol::Imap => Some(Upgrade::Imap),
        Protocol::Pop3 => Some(Upgrade::Pop3),
        Protocol::Ftp => Some(Upgrade::Ftp),
        Protocol::Ldap => Some(Upgrade::Ldap),
        Protocol::Postgresql => Some(Upgrade::PostgreSql),
        Protocol::Mysql => Some(Upgrade::MySql),
        _ => None,
    }
}

/// The parser of a protocol, and what it wants to see; none where the name is all that is told.
fn parser_of(
    protocol: Protocol,
    joined: bool,
    statements: bool,
) -> Option<(Box<dyn Parser>, Interest)> {
    Some(match protocol {
        Protocol::Http1 => (Box::new(Http1::new()), Interest::Turns),
        Protocol::Http2 if joined => (Box::new(Http2::joined()), Interest::Everything),
        Protocol::Http2 => (Box::new(Http2::new()), Interest::Everything),
        Protocol::Redis => (Box::new(Redis::new().with_text(statements)), Interest::Turns),
        Protocol::Postgresql => {
            (Box::new(Postgres::new().with_text(statements)), Interest::Everything)
        }
        Protocol::Mysql => (Box::new(Mysql::new().with_text(statements)), Interest::Everything),
        Protocol::Kafka => (Box::new(Kafka::new()), Interest::Turns),
        _ => return None,
    })
}

/// Heap bytes that one conversation may hold: its parser's (PostgreSQL's is the largest), what both
/// streams hold back, and what is kept of its beginning.
pub const MEMORY_MAX: usize = (5 << 20) / 2;

#[doc(hidden)]
pub fn fuzz_conversation(bytes: &[u8]) {
    let (how, mut rest) = bytes.split_first().map_or((0, bytes), |(how, rest)| (*how, rest));
    let port = if how & 8 != 0 { DNS_PORT } else { 443 };
    let mut conversation =
        Conversation::new([port, 50_000], how & 1 != 0, how & 2 != 0).with_statements(how & 4 != 0);
    let mut at = [0u64; 2];
    let mut now = 0;
    // Each piece: direction, where it lies from what was expected, how much of it was captured.
    while let [direction, skew, cut, more @ ..] = rest {
        let direction = usize::from(direction & 1);
        let len = more.len().min(1 + usize::from(*cut) * 8);
        let (piece, next) = more.split_at(len);
        rest = next;
        now += 1000;
        let offset = match skew % 8 {
            0 => at[direction].saturating_add(u64::from(*skew)),
            1 => at[direction].saturating_sub(u64::from(*skew)),
            2 if *skew > 250 => u64::MAX - u64::from(*cut),
            _ => at[direction],
        };
        conversation.take(&Captured {
            direction,
            offset,
            bytes: &piece[..len - usize::from(*skew == 3).min(len)],
            len: len as u32,
            position: at[direction].min(offset),
            previous_ns: now - 500,
            at_ns: now,
        });
        at[direction] = at[direction].saturating_add(len as u64);
        conversation.found();
        conversation.exchanges();
        let told: usize = conversation.dns().iter().map(|message| message.bytes.len()).sum();
        assert!(told <= DnsTcp::HELD_MAX + 2 * usize::from(u16::MAX), "{told}");
        assert!(conversation.memory() <= MEMORY_MAX, "{}", conversation.memory());
    }
    conversation.end(at, [now; 2], now);
    assert_eq!(conversation.exchanges().iter().filter(|it| it.ended_ns < it.began_ns).count(), 0);
}

#[cfg(test)]
#[path = "conversation/tests.rs"]
mod tests;
