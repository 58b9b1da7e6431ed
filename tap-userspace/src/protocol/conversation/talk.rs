//! What is spoken at the moment, and who reads it: ordered pieces in, what was found and exchanges
//! out.

use std::sync::Arc;

use smallvec::SmallVec;
use tap_common::record::{RECEIVE, TRANSMIT};

use super::{DNS_MIN, DNS_PORT, DnsMessage, Found, Interest, KEPT, What};
use crate::enrich::dns::DnsTcp;
use crate::protocol::{
    Protocol,
    content::Collect,
    detect::{self, Detected, Detection},
    exchange::{Exchange, Next, Outcome, Parser, Piece, Side},
    http1::Http1,
    http2::Http2,
    kafka::Kafka,
    mysql::Mysql,
    postgres::Postgres,
    redis::Redis,
    starttls::{StartTls, Upgrade},
    tls::{Handshake, TlsEvent},
    websocket::Session,
};

/// Looks at the beginnings of turns of a connection that was joined in the middle.
pub(super) const TRIES: u8 = 16;

#[derive(Debug)]
pub(super) struct Talk {
    pub(super) stage: Stage,
    /// Exchanges are wanted.
    pub(super) parse: bool,
    /// Their statements too.
    pub(super) statements: bool,
    /// Contents of HTTP messages are kept so.
    pub(super) collect: Option<Arc<Collect>>,
    /// The ports of this host and of the peer.
    pub(super) ports: [u16; 2],
    /// The direction in which the client speaks, once it is known.
    pub(super) client: Option<usize>,
    /// The outermost protocol's version, where its bytes told.
    pub(super) version: Option<&'static str>,
    /// Looks that may still fail.
    pub(super) tries: u8,
    /// There were bytes to look at.
    pub(super) looked: bool,
    /// The kernel side has seen by itself that nothing can be read.
    pub(super) is_known_below: bool,
    pub(super) gap: bool,
    pub(super) truncated: bool,
    pub(super) tls: Option<Box<Handshake>>,
    pub(super) exchanges: Vec<Exchange>,
    pub(super) dns: Vec<DnsMessage>,
    pub(super) found: SmallVec<[Found; 2]>,
}

#[derive(Debug)]
pub(super) enum Stage {
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
    pub(super) const LOOKING: Self = Self::Looking([(Vec::new(), 0), (Vec::new(), 0)]);
}

impl Talk {
    /// Whether the first bytes of a direction have not told yet what they are to tell.
    pub(super) fn wants_head(&self) -> bool {
        let hello = self.tls.as_ref().map(|tls| tls.client_hello().is_some());
        hello.map_or(matches!(self.stage, Stage::Looking(_)), |hello| !hello)
    }

    /// Whether the connection is at its beginning still.
    pub(super) const fn is_beginning(&self) -> bool {
        matches!(self.stage, Stage::Looking(_) | Stage::Handshake)
    }

    fn side(&self, direction: usize) -> Side {
        if self.client == Some(direction) { Side::Client } else { Side::Server }
    }

    /// The next piece of a direction, whatever it belongs to.
    pub(super) fn piece(&mut self, direction: usize, piece: Piece<'_>, at_ns: u64) {
        /// Protocols inside one another that a single piece may begin.
        const DEPTH: usize = 4;
        let mut piece = piece;
        for _ in 0..DEPTH {
            let side = self.side(direction);
            if matches!(piece, Piece::Missing(_)) && self.wants_head() {
                if !self.gap && !self.truncated {
                    // Lost on its way: as in a connection that was joined in the middle.
                    self.tries = TRIES;
                }
                self.gap = true;
            }
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
                self.parse(
                    Box::new(Http2::upgraded(*request).with_content(self.collect.clone())),
                    Interest::Everything,
                );
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
    pub(super) fn unknown(&mut self, at_ns: u64) {
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
            _ if self.parse || tunnel => {
                parser_of(detected.protocol, joined, self.statements, &self.collect)
                    .map_or(Stage::Over, |(parser, interest)| Stage::Parsing(parser, interest))
            }
            _ => Stage::Over,
        };
    }
}

/// Whether the exchanges of a protocol are read.
pub const fn is_read(protocol: Protocol) -> bool {
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
    collect: &Option<Arc<Collect>>,
) -> Option<(Box<dyn Parser>, Interest)> {
    Some(match protocol {
        Protocol::Http1 => (Box::new(Http1::new().with_content(collect.clone())), Interest::Turns),
        Protocol::Http2 if joined => {
            (Box::new(Http2::joined().with_content(collect.clone())), Interest::Everything)
        }
        Protocol::Http2 => {
            (Box::new(Http2::new().with_content(collect.clone())), Interest::Everything)
        }
        Protocol::Redis => (Box::new(Redis::new().with_text(statements)), Interest::Turns),
        Protocol::Postgresql => {
            (Box::new(Postgres::new().with_text(statements)), Interest::Everything)
        }
        Protocol::Mysql => (Box::new(Mysql::new().with_text(statements)), Interest::Everything),
        Protocol::Kafka => (Box::new(Kafka::new()), Interest::Turns),
        _ => return None,
    })
}
