//! The finished [`Connection`]: all that is known of one connection (or of one segment of a long
//! one), ready to become a span. Comes out of [`super::table`], goes into `telemetry`.

use std::{net::IpAddr, sync::Arc};

use crate::{
    enrich::process::Process,
    protocol::tls::{ClientHello, ServerHello},
};

/// Which end of the connection this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This host opened it (`egress`).
    Client,
    /// This host accepted it (`ingress`).
    Server,
}

/// How the connection stands or ended (`connection.state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both directions ended orderly.
    Closed,
    /// By an RST after it was established.
    Reset,
    /// The connect was answered by an RST.
    Refused,
    /// The connect or connection ended by an ICMP error or for want of a route.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The program gave up connecting.
    Aborted,
    /// Still open when the span was made.
    Open,
}

impl State {
    /// The value of `connection.state`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timeout",
            Self::Aborted => "aborted",
            Self::Open => "open",
        }
    }
}

/// Which end sent the RST (`tap.reset.by`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetBy {
    /// This host.
    Local,
    /// The peer.
    Peer,
}

/// Direction of bytes as `network.io.direction` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This host received them.
    Receive,
    /// This host sent them.
    Transmit,
}

impl Direction {
    /// The value of `network.io.direction`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Transmit => "transmit",
        }
    }

    /// Its place in the two-element arrays of the records.
    pub const fn index(self) -> usize {
        match self {
            Self::Receive => tap_common::record::RECEIVE,
            Self::Transmit => tap_common::record::TRANSMIT,
        }
    }
}

/// What keeps a span from being whole (`connection.quality`), as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality(u8);

impl Quality {
    /// The connection is older than tap.
    pub const PREEXISTING: Self = Self(1);
    /// A head is longer than what is captured and its parser wanted more.
    pub const TRUNCATED: Self = Self(1 << 1);
    /// Records of this connection were lost.
    pub const LOST_EVENTS: Self = Self(1 << 2);
    /// A captured head has a hole.
    pub const GAP: Self = Self(1 << 3);
    /// The owning process could not be proven.
    pub const NO_OWNER: Self = Self(1 << 4);
    /// More events than the span's limit.
    pub const EVENT_LIMIT: Self = Self(1 << 5);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::PREEXISTING, "preexisting"),
        (Self::TRUNCATED, "truncated"),
        (Self::LOST_EVENTS, "lost_events"),
        (Self::GAP, "gap"),
        (Self::NO_OWNER, "no_owner"),
        (Self::EVENT_LIMIT, "event_limit"),
    ];

    /// Adds `mark`.
    pub const fn add(&mut self, mark: Self) {
        self.0 |= mark.0;
    }

    /// Whether `mark` is in it.
    pub const fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    /// The values of `connection.quality`, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(mark, _)| self.has(*mark)).map(|(_, name)| name)
    }
}

/// Something that happened in the connection's life, at wall-clock nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unix time in nanoseconds, by the kernel's clock.
    pub time_ns: u64,
    /// What happened.
    pub what: What,
}

/// The kinds of span events (SPEC §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// `OpenEvent`.
    Open,
    /// `TLSClientHelloEvent`; its data is [`Connection::client_hello`].
    ClientHello {
        /// From the connection's open to the hello, nanoseconds (`duration_from_open_ns`).
        since_open_ns: u64,
    },
    /// `ProtocolEvent`.
    Protocol(crate::protocol::Protocol),
    /// `DataEvent`: one turn.
    Data {
        /// Its direction.
        direction: Direction,
        /// Its payload bytes.
        bytes: u64,
    },
    /// `ErrorEvent`; `error.type` is [`Connection::error_type`].
    Error,
    /// `CloseEvent`.
    Close,
}

/// The identity of a connection's spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// W3C trace id, not zero.
    pub trace_id: [u8; 16],
    /// Span id of this end, not zero.
    pub span_id: [u8; 8],
    /// Span id that the other end's tap gives its span; absent where identities are random.
    pub peer_span_id: Option<[u8; 8]>,
}

/// One connection, or one segment of it, for export.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `connection.id`: a 20-character xid.
    pub id: crate::connection::identity::Xid,
    /// `connection.cookie`.
    pub cookie: u64,
    /// Trace and span ids.
    pub identity: Identity,
    /// This host's part.
    pub role: Role,
    /// How it ended.
    pub state: State,
    /// Which end reset it.
    pub reset_by: Option<ResetBy>,
    /// `error.type`; its presence makes the span's status `Error`.
    pub error_type: Option<&'static str>,
    /// What is not whole.
    pub quality: Quality,
    /// This host's address and port (IPv4 is never in its IPv6-mapped form).
    pub local: (IpAddr, u16),
    /// The peer's address and port.
    pub peer: (IpAddr, u16),
    /// When it was opened, Unix nanoseconds: the begin of its first segment.
    pub opened_ns: u64,
    /// Begin, Unix nanoseconds.
    pub start_ns: u64,
    /// End, Unix nanoseconds; not before `start_ns`.
    pub end_ns: u64,
    /// `tap.bytes.received` and `tap.bytes.sent`, by [`Direction::index`].
    pub bytes: [u64; 2],
    /// `tap.connection.segment`.
    pub segment: u32,
    /// `tap.tcp.rtt_us`; 0 if not measured.
    pub rtt_us: u32,
    /// `tap.tcp.retransmits`.
    pub retransmits: u32,
    /// Innermost protocol known.
    pub protocol: Option<crate::protocol::Protocol>,
    /// Its version, where the bytes told (`1.1`).
    pub protocol_version: Option<&'static str>,
    /// What the TLS ClientHello said.
    pub client_hello: Option<Box<ClientHello>>,
    /// What the TLS ServerHello said.
    pub server_hello: Option<Box<ServerHello>>,
    /// Whether the TLS handshake came as far as encrypted data of both ends.
    pub tls_established: bool,
    /// Whether the TLS session was resumed, where that is known.
    pub tls_resumed: Option<bool>,
    /// From the ClientHello to the end of the handshake.
    pub tls_handshake_ns: Option<u64>,
    /// The server's name, by its client's first request (`Host`, `:authority`).
    pub host: Option<Box<str>>,
    /// The peer's name, by the DNS answers seen before the connection was opened.
    pub peer_name: Option<Box<str>>,
    /// Owner of the local end.
    pub process: Option<Arc<Process>>,
    /// The span's events in order of time; `OpenEvent` first, `CloseEvent` last.
    pub events: Vec<Event>,
    /// Events beyond the limit.
    pub dropped_events: u32,
}
