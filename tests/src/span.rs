//! A span as a test looks at it, whatever protocol brought it.

mod show;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Value of an attribute.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// A string.
    Str(String),
    /// An integer.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// A floating point number.
    Double(f64),
    /// A list.
    Array(Vec<Self>),
    /// A map.
    Map(Attributes),
    /// Bytes.
    Bytes(Vec<u8>),
    /// No value was given.
    Empty,
}

/// Attributes by name.
#[derive(Clone, Default, PartialEq)]
pub struct Attributes(pub BTreeMap<String, Value>);

impl Attributes {
    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The string `key`.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The integer `key`.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.0.get(key)? {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The boolean `key`.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.0.get(key)? {
            Value::Bool(yes) => Some(*yes),
            _ => None,
        }
    }

    /// The strings of the list `key`; empty where it is absent.
    pub fn strings(&self, key: &str) -> Vec<&str> {
        let Some(Value::Array(values)) = self.0.get(key) else {
            return Vec::new();
        };
        values
            .iter()
            .filter_map(|value| match value {
                Value::Str(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Every name.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// An event of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unix nanoseconds.
    pub time_ns: u64,
    /// `OpenEvent`, `DataEvent`, …
    pub name: String,
    /// Its attributes.
    pub attributes: Attributes,
}

/// A link of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Hex.
    pub trace_id: String,
    /// Hex.
    pub span_id: String,
    /// W3C's `tracestate`.
    pub trace_state: String,
    /// W3C's, and from bit 8 on OTLP's.
    pub flags: u32,
}

/// Status code of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not set.
    Unset,
    /// Ok.
    Ok,
    /// Error.
    Error,
    /// A number that OTLP does not have.
    Unknown(i64),
}

impl Status {
    /// From its number on the wire.
    pub const fn from_wire(code: i64) -> Self {
        match code {
            0 => Self::Unset,
            1 => Self::Ok,
            2 => Self::Error,
            other => Self::Unknown(other),
        }
    }
}

/// A span that arrived.
#[derive(Clone, PartialEq)]
pub struct Span {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits, or empty.
    pub parent_span_id: String,
    /// `Connection`.
    pub name: String,
    /// `SpanKind` on the wire; 1 is internal.
    pub kind: i64,
    /// Unix nanoseconds.
    pub start_ns: u64,
    /// Unix nanoseconds.
    pub end_ns: u64,
    /// Its attributes.
    pub attributes: Attributes,
    /// Its events in the order in which they came.
    pub events: Vec<Event>,
    /// Events that were left out.
    pub dropped_events: u32,
    /// Its links.
    pub links: Vec<Link>,
    /// Its status.
    pub status: Status,
    /// Name of the instrumentation scope.
    pub scope: String,
    /// Attributes of the resource.
    pub resource: Arc<Attributes>,
}

impl Span {
    /// The string attribute `key`, or an empty string.
    pub fn str(&self, key: &str) -> &str {
        self.attributes.str(key).unwrap_or_default()
    }

    /// The integer attribute `key`; -1, which no attribute of tap has, where it is absent.
    pub fn int(&self, key: &str) -> i64 {
        self.attributes.int(key).unwrap_or(-1)
    }

    /// `connection.state`.
    pub fn state(&self) -> &str {
        self.str("connection.state")
    }

    /// `tap.bytes.sent` and `tap.bytes.received`.
    pub fn bytes(&self) -> (i64, i64) {
        (self.int("tap.bytes.sent"), self.int("tap.bytes.received"))
    }

    /// `process.pid`, where it is known.
    pub fn pid(&self) -> Option<i64> {
        self.attributes.int("process.pid")
    }

    /// `connection.quality`.
    pub fn quality(&self) -> Vec<&str> {
        self.attributes.strings("connection.quality")
    }

    /// Whether `connection.quality` holds `mark`.
    pub fn marked(&self, mark: &str) -> bool {
        self.quality().contains(&mark)
    }

    /// This host's end.
    pub fn local(&self) -> Option<SocketAddr> {
        self.end("network.local.address", "network.local.port")
    }

    /// The other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.end("network.peer.address", "network.peer.port")
    }

    /// Whether it is of the connection from `local` to `peer`, as `local` sees it.
    pub fn is_between(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        self.name == "Connection" && self.local() == Some(local) && self.peer() == Some(peer)
    }

    /// Whether one of its ends has `port`.
    pub fn has_port(&self, port: u16) -> bool {
        let port = i64::from(port);
        self.int("network.local.port") == port || self.int("network.peer.port") == port
    }

    /// Its events called `name`.
    pub fn events_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.name == name)
    }

    /// Its first event called `name`.
    pub fn event(&self, name: &str) -> Option<&Event> {
        self.events.iter().find(|event| event.name == name)
    }

    /// Names of its events in order.
    pub fn event_names(&self) -> Vec<&str> {
        self.events.iter().map(|event| event.name.as_str()).collect()
    }

    /// Its turns in order: time, direction and bytes of each `DataEvent`.
    pub fn turns(&self) -> Vec<Turn<'_>> {
        self.events_named("DataEvent")
            .map(|event| Turn {
                time_ns: event.time_ns,
                direction: event.attributes.str("network.io.direction").unwrap_or_default(),
                bytes: event.attributes.int("bytes").unwrap_or(-1),
            })
            .collect()
    }

    /// Bytes of its turns in `direction`.
    pub fn turn_bytes(&self, direction: &str) -> i64 {
        self.turns().iter().filter(|turn| turn.direction == direction).map(|turn| turn.bytes).sum()
    }

    fn end(&self, address: &str, port: &str) -> Option<SocketAddr> {
        let address: IpAddr = self.attributes.str(address)?.parse().ok()?;
        Some(SocketAddr::new(address, u16::try_from(self.attributes.int(port)?).ok()?))
    }
}

/// One `DataEvent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    /// Unix nanoseconds of its first byte.
    pub time_ns: u64,
    /// `transmit` or `receive`.
    pub direction: &'a str,
    /// Its payload bytes.
    pub bytes: i64,
}
