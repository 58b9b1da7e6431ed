//! What the two ends of a connection say to one another. Comes in: captured bytes of both
//! directions with their places in the streams. Goes out: [`Found`]s (which protocols, the TLS
//! ClientHello), [`Exchange`]s and [`DnsMessage`]s.
//!
//! Each direction is put in order by a [`Stream`]. Until the protocol is known its first bytes are
//! kept; then its parser gets them and all that follows, and where one protocol ends in another
//! (an upgrade, a tunnel, STARTTLS) that one's.
#![forbid(unsafe_code)]

mod talk;

use std::sync::Arc;

use smallvec::SmallVec;
use tap_common::record::{RECEIVE, TRANSMIT};

pub use self::talk::is_read;
use self::talk::{Stage, TRIES, Talk};
use super::{
    Protocol,
    content::Collect,
    exchange::{Exchange, Piece},
    stream::Stream,
    tls::{ClientHello, Handshake, ServerHello},
};
use crate::enrich::dns::DnsTcp;

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
            collect: None,
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

    /// Contents of HTTP messages are kept as `collect` says, if at all.
    #[must_use]
    pub fn with_content(mut self, collect: Option<Arc<Collect>>) -> Self {
        self.talk.collect = collect;
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
        let collect = self.talk.collect.take();
        let kept = std::mem::take(&mut self.kept);
        *self =
            Self::new(ports, tries > 0, parse).with_statements(statements).with_content(collect);
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

    /// Nobody hears any more of the connection, which may go on: what is under way is told as open,
    /// so much of it.
    pub fn leave(&mut self, now_ns: u64) -> u64 {
        let talk = &mut self.talk;
        let told = talk.exchanges.len();
        if let Stage::Parsing(parser, _) = &mut talk.stage {
            parser.finish(now_ns, &mut talk.exchanges);
        }
        talk.stage = Stage::Over;
        let open = talk.exchanges.get_mut(told..).unwrap_or_default();
        open.iter_mut().for_each(Exchange::leave_open);
        open.len() as u64
    }

    /// Heap bytes of the exchanges that are over and were not taken yet.
    pub fn waiting(&self) -> usize {
        let each = |exchange: &Exchange| size_of::<Exchange>() + exchange.memory();
        self.talk.exchanges.iter().map(each).sum()
    }

    /// Requests that their parser had no room for, since the last time.
    pub fn crowded_out(&mut self) -> u64 {
        match &mut self.talk.stage {
            Stage::Parsing(parser, _) => parser.crowded_out(),
            _ => 0,
        }
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

/// Heap bytes of exchanges that may wait until it is known whose they are.
pub const WAITING_MAX: usize = 1 << 20;

/// Heap bytes that one conversation may hold: its parser's (PostgreSQL's is the largest), what both
/// streams hold back, what is kept of its beginning, and exchanges that wait.
pub const MEMORY_MAX: usize = (5 << 20) / 2 + WAITING_MAX;

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
