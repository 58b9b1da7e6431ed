//! Spans and log records as processors see them: OTLP's own model, whoever made them. Comes in: their
//! protobuf ([`decode`]), of which texts and bytes stay slices; goes out: the same, changed ([`encode`]).
//!
//! Names are those of opentelemetry-proto 1.9: `trace/v1/trace.proto`, `logs/v1/logs.proto`.
#![forbid(unsafe_code)]

pub mod decode;
pub mod encode;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

/// Attributes in their order. A key stands there once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(pub Vec<(ByteString, Value)>);

/// `AnyValue`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// None is set.
    #[default]
    Empty,
    /// Text.
    Text(ByteString),
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// Bytes.
    Bytes(Bytes),
    /// A list.
    Array(Vec<Self>),
    /// A map.
    Map(Attributes),
}

/// Who made an item, and with what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// What it is about.
    pub resource: Arc<Resource>,
    /// The instrumentation scope.
    pub scope: Arc<Scope>,
}

impl Source {
    /// Whether both are the same in memory: then one request can have both items.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.resource, &other.resource) && Arc::ptr_eq(&self.scope, &other.scope)
    }

    /// Where they lie, so that those of one source can be brought together.
    pub fn order(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.resource).addr(), Arc::as_ptr(&self.scope).addr())
    }
}

/// `Resource`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// Its attributes.
    pub attributes: Attributes,
    /// `schema_url` of the message around it.
    pub schema_url: ByteString,
}

/// `InstrumentationScope`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Its name.
    pub name: ByteString,
    /// Its version.
    pub version: ByteString,
    /// Its attributes.
    pub attributes: Attributes,
    /// `schema_url` of the message around it.
    pub schema_url: ByteString,
}

/// `Span`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Its id.
    pub span_id: [u8; 8],
    /// Its parent's; zeros: it has none.
    pub parent_span_id: [u8; 8],
    /// W3C `tracestate`.
    pub trace_state: ByteString,
    /// Its name.
    pub name: ByteString,
    /// `SpanKind`'s number.
    pub kind: u32,
    /// Begin, ns since 1970.
    pub start_ns: u64,
    /// End, ns since 1970.
    pub end_ns: u64,
    /// Its attributes.
    pub attributes: Attributes,
    /// Attributes that limits left out.
    pub dropped_attributes: u32,
    /// Its events.
    pub events: Vec<Event>,
    /// Events that limits left out.
    pub dropped_events: u32,
    /// Its links.
    pub links: Vec<Link>,
    /// Links that limits left out.
    pub dropped_links: u32,
    /// `StatusCode`'s number.
    pub status: u32,
    /// What the status says.
    pub status_message: ByteString,
    /// W3C flags, and OTLP's.
    pub flags: u32,
    /// Who made it.
    pub source: Source,
}

/// `Span.Event`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Time, ns since 1970.
    pub time_ns: u64,
    /// Its name.
    pub name: ByteString,
    /// Its attributes.
    pub attributes: Attributes,
    /// Attributes that limits left out.
    pub dropped_attributes: u32,
}

/// `Span.Link`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// The linked trace.
    pub trace_id: [u8; 16],
    /// The linked span.
    pub span_id: [u8; 8],
    /// W3C `tracestate`.
    pub trace_state: ByteString,
    /// Its attributes.
    pub attributes: Attributes,
    /// Attributes that limits left out.
    pub dropped_attributes: u32,
    /// W3C flags, and OTLP's.
    pub flags: u32,
}

/// `LogRecord`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogRecord {
    /// When it happened, ns since 1970.
    pub time_ns: u64,
    /// When it was seen, ns since 1970.
    pub observed_ns: u64,
    /// `SeverityNumber`.
    pub severity: u32,
    /// The severity as its source calls it.
    pub severity_text: ByteString,
    /// What it says.
    pub body: Value,
    /// Its attributes.
    pub attributes: Attributes,
    /// Attributes that limits left out.
    pub dropped_attributes: u32,
    /// W3C flags.
    pub flags: u32,
    /// Its trace; zeros: none.
    pub trace_id: [u8; 16],
    /// Its span; zeros: none.
    pub span_id: [u8; 8],
    /// Its kind of event.
    pub event_name: ByteString,
    /// Who made it.
    pub source: Source,
}

/// What spans and log records have in common.
pub trait Record: Clone + Send + Sized + 'static {
    /// `traces` or `logs`.
    const SIGNAL: &'static str;
    /// Its trace; zeros: none.
    fn trace_id(&self) -> &[u8; 16];
    /// Its own attributes.
    fn attributes(&self) -> &Attributes;
    /// Its own attributes, to change them.
    fn attributes_mut(&mut self) -> &mut Attributes;
    /// Who made it.
    fn source(&self) -> &Source;
    /// Who made it, to change that.
    fn source_mut(&mut self) -> &mut Source;
    /// Reads one off the protobuf of its message.
    fn decode(bytes: &Bytes, source: Source) -> Result<Self, decode::Malformed>;
    /// Appends its message as field 2 (`spans`, `log_records`) of the scope's message.
    fn encode(&self, out: &mut Vec<u8>);
    /// Memory of it, about.
    fn weight(&self) -> usize;
}

impl Span {
    /// How long it took.
    pub const fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

impl Record for Span {
    const SIGNAL: &'static str = "traces";

    fn trace_id(&self) -> &[u8; 16] {
        &self.trace_id
    }

    fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    fn attributes_mut(&mut self) -> &mut Attributes {
        &mut self.attributes
    }

    fn source(&self) -> &Source {
        &self.source
    }

    fn source_mut(&mut self) -> &mut Source {
        &mut self.source
    }

    fn decode(bytes: &Bytes, source: Source) -> Result<Self, decode::Malformed> {
        decode::span(bytes, source)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode::span(self, out);
    }

    fn weight(&self) -> usize {
        let events: usize =
            self.events.iter().map(|it| size_of::<Event>() + it.attributes.weight()).sum();
        let links: usize =
            self.links.iter().map(|it| size_of::<Link>() + it.attributes.weight()).sum();
        size_of::<Self>() + self.attributes.weight() + events + links
    }
}

impl Record for LogRecord {
    const SIGNAL: &'static str = "logs";

    fn trace_id(&self) -> &[u8; 16] {
        &self.trace_id
    }

    fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    fn attributes_mut(&mut self) -> &mut Attributes {
        &mut self.attributes
    }

    fn source(&self) -> &Source {
        &self.source
    }

    fn source_mut(&mut self) -> &mut Source {
        &mut self.source
    }

    fn decode(bytes: &Bytes, source: Source) -> Result<Self, decode::Malformed> {
        decode::log_record(bytes, source)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode::log_record(self, out);
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.attributes.weight() + self.body.weight()
    }
}

impl Attributes {
    /// The value behind a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == *key).map(|(_, value)| value)
    }

    /// The value behind a key, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.0.iter_mut().find(|(known, _)| *known == *key).map(|(_, value)| value)
    }

    /// Puts a value behind a key: in the place of the old one, else at the end.
    pub fn set(&mut self, key: impl Into<ByteString>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.get_mut(&key) {
            Some(old) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| *known == *key)?;
        Some(self.0.remove(at).1)
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&ByteString, &Value)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Memory of them, about.
    pub fn weight(&self) -> usize {
        let of = |(key, value): &(ByteString, Value)| key.len() + value.weight();
        self.0.iter().map(of).sum::<usize>() + self.0.capacity() * size_of::<(ByteString, Value)>()
    }
}

impl Value {
    /// Its text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Memory behind it, about.
    pub fn weight(&self) -> usize {
        match self {
            Self::Empty | Self::Bool(_) | Self::Int(_) | Self::Double(_) => 0,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(values) => {
                values.iter().map(|value| size_of::<Self>() + value.weight()).sum()
            }
            Self::Map(attributes) => attributes.weight(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<ByteString> for Value {
    fn from(text: ByteString) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}
