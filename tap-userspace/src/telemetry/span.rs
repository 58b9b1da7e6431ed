//! [`Connection`] → OTLP. Owns the order and shape of the `Span` message and of the request around
//! it; the attributes are [`super::attributes`]'s. Goes out: the bytes of an
//! `ExportTraceServiceRequest`, written once and not copied again.
//!
//! Message numbers: opentelemetry-proto 1.9, `trace/v1/trace.proto`.

use super::{
    attributes,
    limits::Limits,
    protobuf::{self, Attributes, Message},
    resource::Resource,
    semconv,
};
use crate::{
    connection::model::{Connection, Event},
    policy::data::{Source, encode},
};

/// Instrumentation scope of connection spans.
pub const SCOPE: &str = "tap.connection";

/// Name of connection spans.
pub const NAME: &str = "Connection";

/// `Span.flags`: sampled.
const SAMPLED: u32 = 0x001;
/// It is known whether the parent (or linked span) is remote.
const REMOTE_KNOWN: u32 = 0x100;
/// The linked span is on another host.
const REMOTE: u32 = 0x200;

const KIND_INTERNAL: u64 = 1;
const STATUS_ERROR: u8 = 2;

/// Encodes one span as the field `spans` of `ScopeSpans`.
pub fn encode(connection: &Connection, limits: &Limits, out: &mut Vec<u8>) {
    let span = Message::open(out, 2, 2);
    protobuf::bytes(out, 1, &connection.identity.trace_id);
    protobuf::bytes(out, 2, &connection.identity.span_id);
    protobuf::bytes(out, 5, NAME.as_bytes());
    protobuf::uint(out, 6, KIND_INTERNAL);
    protobuf::fixed64(out, 7, connection.start_ns);
    protobuf::fixed64(out, 8, connection.end_ns);
    let mut attributes = Attributes::new(out, 9, limits, limits.attributes);
    attributes::of_span(connection, &mut attributes);
    let dropped = attributes.dropped;
    protobuf::uint(out, 10, dropped.into());
    for event in &connection.events {
        encode_event(connection, event, limits, out);
    }
    protobuf::uint(out, 12, connection.dropped_events.into());
    // The span that the other end's tap makes.
    let link = connection.identity.peer_span_id.map(|span_id| Link {
        trace_id: connection.identity.trace_id,
        span_id,
        state: None,
        flags: SAMPLED as u8,
    });
    encode_end(link.as_ref(), limits, connection.error_type.is_some(), out);
    span.close(out);
}

/// The fields behind a span's events: its link, its status, its flags.
pub(super) fn encode_end(
    link: Option<&Link<'_>>,
    limits: &Limits,
    failed: bool,
    out: &mut Vec<u8>,
) {
    match link {
        Some(link) if limits.links > 0 => encode_link(link, out),
        Some(_) => protobuf::uint(out, 14, 1),
        None => {}
    }
    if failed {
        protobuf::bytes(out, 15, &[protobuf::varint_tag(3), STATUS_ERROR]);
    }
    // Field 16, fixed32: a tag of two bytes.
    out.extend_from_slice(&[0x85, 0x01]);
    out.extend_from_slice(&(SAMPLED | REMOTE_KNOWN).to_le_bytes());
}

fn encode_event(connection: &Connection, event: &Event, limits: &Limits, out: &mut Vec<u8>) {
    let message = Message::open(out, 11, 1);
    protobuf::fixed64(out, 1, event.time_ns);
    protobuf::bytes(out, 2, attributes::event_name(event).as_bytes());
    let mut attributes = Attributes::new(out, 3, limits, limits.event_attributes);
    attributes::of_event(connection, event, &mut attributes);
    let dropped = attributes.dropped;
    protobuf::uint(out, 4, dropped.into());
    message.close(out);
}

/// A link to a span of somebody else.
pub(super) struct Link<'a> {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// `tracestate`.
    pub state: Option<&'a str>,
    /// W3C's.
    pub flags: u8,
}

fn encode_link(link: &Link<'_>, out: &mut Vec<u8>) {
    let message = Message::open(out, 13, 1);
    protobuf::bytes(out, 1, &link.trace_id);
    protobuf::bytes(out, 2, &link.span_id);
    if let Some(state) = link.state {
        protobuf::bytes(out, 3, state.as_bytes());
    }
    out.push(6 << 3 | 5);
    out.extend_from_slice(&(u32::from(link.flags) | REMOTE_KNOWN | REMOTE).to_le_bytes());
    message.close(out);
}

/// The parts of a request that are the same in each.
#[derive(Debug)]
pub struct Frame {
    /// `ResourceSpans` without its `scope_spans`.
    resource: Vec<u8>,
    /// `ScopeSpans` without its `spans`.
    scope: Vec<u8>,
}

impl Frame {
    /// Space before a request's protobuf for what a transport puts there (gRPC's five bytes).
    pub const HEADROOM: usize = 5;

    /// Longest varint of a length that is below 4 GiB.
    const LENGTH: usize = 5;

    /// The frame of requests from `resource` with items of the instrumentation scope `name`. Those
    /// of spans and of log records have the same shape.
    pub fn new(resource: &Resource, name: &str) -> Self {
        let mut scope = Vec::new();
        protobuf::bytes(&mut scope, 1, name.as_bytes());
        protobuf::bytes(&mut scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
        let schema = semconv::SCHEMA_URL;
        Self::around((&resource.encode(), schema), (&scope, schema))
    }

    /// The frame of items that processors have changed.
    pub fn of(source: &Source) -> Self {
        let Source { resource, scope } = source;
        Self::around(
            (&encode::resource(resource), &resource.schema_url),
            (&encode::scope(scope), &scope.schema_url),
        )
    }

    /// Of encoded messages, each with its schema.
    fn around(resource: (&[u8], &str), scope: (&[u8], &str)) -> Self {
        let [resource, scope] = [resource, scope].map(|(message, schema)| {
            let mut out = Vec::new();
            protobuf::bytes(&mut out, 1, message);
            if !schema.is_empty() {
                protobuf::bytes(&mut out, 3, schema.as_bytes());
            }
            out
        });
        Self { resource, scope }
    }

    /// Bytes before the first span: the headroom, and the frame at its longest.
    fn front(&self) -> usize {
        Self::HEADROOM + 2 * (1 + Self::LENGTH) + self.resource.len() + self.scope.len()
    }

    /// Begins a request in `buffer`; spans are appended by [`encode`].
    pub fn begin(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.resize(self.front(), 0);
    }

    /// Writes the frame right before the spans. The request is `out[start..]`, and
    /// [`Self::HEADROOM`] bytes before `start` are free.
    pub fn finish(&self, out: &mut [u8]) -> usize {
        let mut start = self.front();
        let mut prepend = |bytes: &[u8]| {
            start -= bytes.len();
            out[start..start + bytes.len()].copy_from_slice(bytes);
            out.len() - start
        };
        let len = prepend(&self.scope);
        prepend(&length(2, len));
        let len = prepend(&self.resource);
        prepend(&length(1, len));
        start
    }
}

/// Tag and length of a message of `len` bytes in `field`.
fn length(field: u8, len: usize) -> Vec<u8> {
    let mut out = vec![protobuf::bytes_tag(field)];
    protobuf::varint(&mut out, len as u64);
    out
}
