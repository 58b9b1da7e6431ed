//! The course of one TLS handshake. In: pieces of both directions. Out: [`TlsEvent`]s, each once,
//! and what is known after them.
//!
//! Each direction collects facts by itself, and the end is concluded from those of both, so that
//! it does not matter much in which order the pieces of the two come.
#![forbid(unsafe_code)]

use smallvec::SmallVec;

use super::{
    ClientHello, HelloError, ServerHello, alert_name,
    record::{
        CERTIFICATE, CLIENT_HELLO, Item, SERVER_HELLO, SERVER_HELLO_DONE, SERVER_KEY_EXCHANGE,
        Stream,
    },
};
use crate::protocol::exchange::{Piece, Side};

/// Bytes of a direction after which a handshake that has not ended is given up. Certificate chains
/// are below 64 KiB and early data mostly below 16 KiB; the rest is room for what was missed.
const WATCHED_MAX: u64 = 1 << 20;

/// Header (4), HMAC-SHA-256 (32), content type (1) and the shortest tag (CCM_8, 8) of a Finished in
/// TLS 1.3; an encrypted alert is 11 to 19 bytes long.
const FINISHED_MIN: usize = 45;

/// Something that the handshake told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEvent {
    /// The ClientHello is whole: [`Handshake::client_hello`].
    ClientHello,
    /// The ServerHello is whole, the real one where there was a HelloRetryRequest:
    /// [`Handshake::server_hello`].
    ServerHello,
    /// The handshake has ended well.
    Established,
    /// The handshake has ended by a fatal alert.
    Failed(Alert),
    /// It is no handshake that tap reads.
    Broken(HelloError),
}

/// What one piece told.
pub type TlsEvents = SmallVec<[TlsEvent; 3]>;

/// A fatal alert in plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Who sent it.
    pub from: Side,
    /// AlertDescription.
    pub code: u8,
}

impl Alert {
    /// The description as the RFCs write it (`unknown_ca`); absent for unassigned codes.
    pub const fn description(self) -> Option<&'static str> {
        alert_name(self.code)
    }
}

/// One TLS handshake. It ends when [`done`](Self::done), and costs nothing from then on.
#[derive(Debug, Default)]
pub struct Handshake {
    streams: [Stream; 2],
    course: Course,
    /// Bytes that each direction said, while it was watched.
    watched: [u64; 2],
    over: [bool; 2],
}

/// What is known of it.
#[derive(Debug, Default)]
struct Course {
    client_hello: Option<Box<ClientHello>>,
    client_hello_ns: Option<u64>,
    server_hello: Option<Box<ServerHello>>,
    seen: [Seen; 2],
    retried: bool,
    /// A message of the server that only a full handshake has, up to TLS 1.2.
    full: bool,
    resumed: Option<bool>,
    established: bool,
    ended_ns: Option<u64>,
    alert: Option<Alert>,
    error: Option<HelloError>,
    done: bool,
}

/// What one direction has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Anything.
    begun: bool,
    gap: bool,
    /// A handshake record after ChangeCipherSpec.
    finished: bool,
    application_data: bool,
    /// An application data record that may be a Finished of TLS 1.3.
    finished_13: bool,
}

impl Handshake {
    /// A handshake of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next piece that `side` said. `at_ns` is the kernel's time of its last byte.
    pub fn take(&mut self, side: Side, mut piece: Piece<'_>, at_ns: u64) -> TlsEvents {
        let mut events = TlsEvents::new();
        if self.course.done {
            return events;
        }
        let index = side as usize;
        self.watched[index] = self.watched[index].saturating_add(match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Missing(count) => count,
            Piece::End => 0,
        });
        self.over[index] |= piece == Piece::End;
        let (stream, course) = (&mut self.streams[index], &mut self.course);
        while let Some(item) = stream.next(&mut piece, course.retried) {
            course.on(side, item, at_ns, &mut events);
            if course.done {
                break;
            }
        }
        course.done |= self.over == [true; 2] || self.watched[index] > WATCHED_MAX;
        if course.done {
            self.streams = Default::default();
        }
        events
    }

    /// The ClientHello; after a HelloRetryRequest the second one, with the first one's
    /// fingerprints.
    pub fn client_hello(&self) -> Option<&ClientHello> {
        self.course.client_hello.as_deref()
    }

    /// When the (first) ClientHello was whole.
    pub const fn client_hello_ns(&self) -> Option<u64> {
        self.course.client_hello_ns
    }

    /// What the server chose.
    pub fn server_hello(&self) -> Option<&ServerHello> {
        self.course.server_hello.as_deref()
    }

    /// The server asked for another ClientHello (RFC 8446 §4.1.4).
    pub const fn retried(&self) -> bool {
        self.course.retried
    }

    /// Whether both ends came to encrypted data (`tls.established`), as far as it can be told from
    /// outside. In TLS 1.3 the server's refusal of a client's certificate comes too late to count.
    pub const fn established(&self) -> bool {
        self.course.established
    }

    /// Whether an earlier session is resumed (`tls.resumed`); absent while it is not known.
    pub const fn resumed(&self) -> Option<bool> {
        self.course.resumed
    }

    /// When the handshake ended, well or by an alert. Behind a gap: when that was plain.
    pub const fn ended_ns(&self) -> Option<u64> {
        self.course.ended_ns
    }

    /// The fatal alert that ended it.
    pub const fn alert(&self) -> Option<Alert> {
        self.course.alert
    }

    /// Why it is no handshake.
    pub const fn error(&self) -> Option<HelloError> {
        self.course.error
    }

    /// Bytes were missing that were of interest, so that something above may be missing too.
    pub const fn gap(&self) -> bool {
        self.course.seen[0].gap || self.course.seen[1].gap
    }

    /// Nothing more will be told: [`take`](Self::take) need not be called any more.
    pub const fn done(&self) -> bool {
        self.course.done
    }

    /// Heap bytes held for messages that are not whole yet: below 64 KiB for each direction.
    pub fn memory(&self) -> usize {
        self.streams.iter().map(Stream::memory).sum()
    }
}

impl Course {
    fn on(&mut self, side: Side, item: Item<'_>, at_ns: u64, events: &mut TlsEvents) {
        let seen = &mut self.seen[side as usize];
        let first = !std::mem::replace(&mut seen.begun, true);
        match (side, item) {
            (_, Item::Gap) => seen.gap = true,
            (_, Item::Broken(error)) => return self.broken(error, events),
            (Side::Client, Item::Message(CLIENT_HELLO, body)) => {
                self.on_client_hello(body, at_ns, events);
            }
            (Side::Server, Item::Message(SERVER_HELLO, body)) => {
                self.on_server_hello(body, events);
            }
            (_, Item::Message(kind, _)) if first => {
                return self.broken(HelloError::OtherMessage(kind), events);
            }
            (Side::Server, Item::Message(SERVER_KEY_EXCHANGE, body)) => {
                if let Some(hello) = &mut self.server_hello {
                    hello.key_exchange(body);
                }
            }
            (Side::Server, Item::Message(CERTIFICATE | SERVER_HELLO_DONE, _)) => {
                self.full = true;
                self.resumed = Some(false);
            }
            (_, Item::Message(..)) => {}
            (from, Item::Alert(level, code)) => {
                const FATAL: u8 = 2;
                if level == FATAL {
                    let alert = Alert { from, code };
                    self.alert = Some(alert);
                    self.ended_ns = Some(at_ns);
                    self.done = true;
                    events.push(TlsEvent::Failed(alert));
                }
            }
            // Nobody begins with these, unless something is missing before.
            (_, Item::ChangeCipherSpec | Item::Finished | Item::ApplicationData(_)) if first => {
                return self.broken(HelloError::NotTls, events);
            }
            (Side::Server, Item::ChangeCipherSpec) => self.on_server_change(),
            (Side::Client, Item::ChangeCipherSpec) => {}
            (_, Item::Finished) => seen.finished = true,
            (_, Item::ApplicationData(length)) => {
                seen.application_data = true;
                let early = self.client_hello.as_ref().is_some_and(|hello| hello.early_data);
                // Early data may be as long as it likes, but such a client proves itself by the
                // key only, so that its Finished has no certificate beside it.
                seen.finished_13 |= match &self.server_hello {
                    Some(hello) if early => length == hello.finished_len(),
                    None if early => false,
                    _ => length >= FINISHED_MIN,
                };
            }
        }
        if !self.done && self.is_established() {
            self.established = true;
            self.ended_ns = Some(at_ns);
            self.done = true;
            events.push(TlsEvent::Established);
        }
    }

    fn on_client_hello(&mut self, body: &[u8], at_ns: u64, events: &mut TlsEvents) {
        if self.client_hello.is_some() && !self.retried {
            return;
        }
        match ClientHello::parse(body) {
            Ok(mut hello) => match &mut self.client_hello {
                Some(before) => {
                    hello.ja3 = std::mem::take(&mut before.ja3);
                    hello.ja4 = std::mem::take(&mut before.ja4);
                    **before = hello;
                }
                None => {
                    self.client_hello = Some(Box::new(hello));
                    self.client_hello_ns = Some(at_ns);
                    events.push(TlsEvent::ClientHello);
                }
            },
            Err(error) => self.broken(error, events),
        }
    }

    fn on_server_hello(&mut self, body: &[u8], events: &mut TlsEvents) {
        if self.server_hello.is_some() {
            return;
        }
        match ServerHello::parse(body) {
            Ok(None) => self.retried = true,
            Ok(Some(hello)) => {
                let same_session = !hello.session_id.is_empty()
                    && self
                        .client_hello
                        .as_ref()
                        .is_some_and(|offered| offered.session_id == hello.session_id);
                self.resumed = match hello.is_tls13() {
                    true => Some(hello.pre_shared_key),
                    // A client with a ticket need not name a session (RFC 5077 §3.4): then the
                    // messages that follow tell.
                    false => same_session.then_some(true),
                };
                self.server_hello = Some(Box::new(hello));
                events.push(TlsEvent::ServerHello);
            }
            Err(error) => self.broken(error, events),
        }
    }

    /// Up to TLS 1.2 the server ends its flight so at once when it resumes a session (RFC 5246
    /// §7.3).
    fn on_server_change(&mut self) {
        let gap = self.seen[Side::Server as usize].gap;
        if self.server_hello.as_ref().is_some_and(|hello| !hello.is_tls13()) && !self.full && !gap {
            self.resumed = Some(true);
        }
    }

    /// Up to TLS 1.2: both sent their Finished. In TLS 1.3 the server's first application record is
    /// the rest of its handshake, and the client's answer to it is its Finished, or an alert if it
    /// refuses: those are encrypted alike and differ in length only.
    ///
    /// Behind a gap application data stands for a Finished; the client's also for the server's,
    /// before which it comes in no handshake but a false start (RFC 7918).
    fn is_established(&self) -> bool {
        let [client, server] = &self.seen;
        let (client_is, server_is) = match &self.server_hello {
            Some(hello) if hello.is_tls13() => (client.finished_13, server.application_data),
            Some(_) => (
                client.finished || client.gap && client.application_data,
                server.finished || server.gap && server.application_data,
            ),
            None => (
                client.finished_13 || client.finished && client.application_data,
                server.application_data || server.finished,
            ),
        };
        client_is && (server_is || server.gap && client.application_data)
    }

    fn broken(&mut self, error: HelloError, events: &mut TlsEvents) {
        self.error = Some(error);
        self.done = true;
        events.push(TlsEvent::Broken(error));
    }
}

/// For the fuzzer: any bytes as pieces of both directions. A byte says which, its length and
/// whether it is missing.
#[doc(hidden)]
pub fn fuzz_handshake(mut bytes: &[u8]) {
    const HELD_MAX: usize = 2 * (64 << 10);
    let mut handshake = Handshake::new();
    let mut told = TlsEvents::new();
    let mut at_ns = 0;
    while let [how, rest @ ..] = bytes {
        let side = if how & 1 == 0 { Side::Client } else { Side::Server };
        let length = usize::from(how >> 3) * if how & 4 == 0 { 1 } else { 64 };
        let (part, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        let piece = match how {
            0x02 | 0x03 => Piece::End,
            _ if how & 2 == 0 => Piece::Bytes(part),
            _ => Piece::Missing(length as u64),
        };
        at_ns += 1;
        told.extend(handshake.take(side, piece, at_ns));
        assert!(handshake.memory() <= HELD_MAX);
    }
    for (n, event) in told.iter().enumerate() {
        assert!(!told[..n].contains(event), "told twice: {event:?}");
    }
    assert_eq!(handshake.established(), told.contains(&TlsEvent::Established));
    assert_eq!(handshake.client_hello().is_some(), told.contains(&TlsEvent::ClientHello));
    assert_eq!(handshake.server_hello().is_some(), told.contains(&TlsEvent::ServerHello));
    assert_eq!(handshake.client_hello().is_some(), handshake.client_hello_ns().is_some());
    assert!(!(handshake.established() && handshake.alert().is_some()));
    assert!(!handshake.done() || handshake.memory() == 0);
    if let Some(hello) = handshake.client_hello() {
        hello.check();
    }
}
