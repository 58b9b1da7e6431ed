//! [`Span`], [`LogRecord`] and what they are from → OTLP's protobuf.

use super::{Attributes, Event, Link, LogRecord, Resource, Scope, Span, Value};
use crate::telemetry::protobuf::{self as put, Message};

/// Appends `span` as field 2 of its scope's message.
pub fn span(span: &Span, out: &mut Vec<u8>) {
    let message = Message::open(out, 2, 2);
    put::bytes(out, 1, &span.trace_id);
    put::bytes(out, 2, &span.span_id);
    text(out, 3, &span.trace_state);
    id(out, 4, &span.parent_span_id);
    text(out, 5, &span.name);
    put::uint(out, 6, span.kind.into());
    put::fixed64(out, 7, span.start_ns);
    put::fixed64(out, 8, span.end_ns);
    attributes(out, 9, &span.attributes);
    put::uint(out, 10, span.dropped_attributes.into());
    span.events.iter().for_each(|of| event(of, out));
    put::uint(out, 12, span.dropped_events.into());
    span.links.iter().for_each(|of| link(of, out));
    put::uint(out, 14, span.dropped_links.into());
    if span.status != 0 || !span.status_message.is_empty() {
        let status = Message::open(out, 15, 1);
        text(out, 2, &span.status_message);
        put::uint(out, 3, span.status.into());
        status.close(out);
    }
    if span.flags != 0 {
        // Field 16, fixed32: a tag of two bytes.
        out.extend_from_slice(&[0x85, 0x01]);
        out.extend_from_slice(&span.flags.to_le_bytes());
    }
    message.close(out);
}

fn event(event: &Event, out: &mut Vec<u8>) {
    let message = Message::open(out, 11, 1);
    put::fixed64(out, 1, event.time_ns);
    text(out, 2, &event.name);
    attributes(out, 3, &event.attributes);
    put::uint(out, 4, event.dropped_attributes.into());
    message.close(out);
}

fn link(link: &Link, out: &mut Vec<u8>) {
    let message = Message::open(out, 13, 1);
    put::bytes(out, 1, &link.trace_id);
    put::bytes(out, 2, &link.span_id);
    text(out, 3, &link.trace_state);
    attributes(out, 4, &link.attributes);
    put::uint(out, 5, link.dropped_attributes.into());
    fixed32(out, 6, link.flags);
    message.close(out);
}

/// Appends `record` as field 2 of its scope's message.
pub fn log_record(record: &LogRecord, out: &mut Vec<u8>) {
    let message = Message::open(out, 2, 2);
    put::fixed64(out, 1, record.time_ns);
    put::uint(out, 2, record.severity.into());
    text(out, 3, &record.severity_text);
    if record.body != Value::Empty {
        any(out, 5, &record.body);
    }
    attributes(out, 6, &record.attributes);
    put::uint(out, 7, record.dropped_attributes.into());
    fixed32(out, 8, record.flags);
    id(out, 9, &record.trace_id);
    id(out, 10, &record.span_id);
    put::fixed64(out, 11, record.observed_ns);
    text(out, 12, &record.event_name);
    message.close(out);
}

/// The `Resource` message.
pub fn resource(resource: &Resource) -> Vec<u8> {
    let mut out = Vec::new();
    attributes(&mut out, 1, &resource.attributes);
    out
}

/// The `InstrumentationScope` message.
pub fn scope(scope: &Scope) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, &scope.name);
    text(&mut out, 2, &scope.version);
    attributes(&mut out, 3, &scope.attributes);
    out
}

fn attributes(out: &mut Vec<u8>, field: u8, attributes: &Attributes) {
    for (key, value) in attributes.iter() {
        let message = Message::open(out, field, 1);
        put::bytes(out, 1, key.as_bytes());
        any(out, 2, value);
        message.close(out);
    }
}

/// An `AnyValue`, in `field`.
fn any(out: &mut Vec<u8>, field: u8, value: &Value) {
    let message = Message::open(out, field, 1);
    match value {
        Value::Empty => {}
        Value::Text(text) => put::bytes(out, 1, text.as_bytes()),
        // Members of a oneof are written even where they have their default.
        Value::Bool(value) => out.extend_from_slice(&[put::varint_tag(2), u8::from(*value)]),
        Value::Int(value) => {
            out.push(put::varint_tag(3));
            put::varint(out, value.cast_unsigned());
        }
        Value::Double(value) => put::fixed64(out, 4, value.to_bits()),
        Value::Array(values) => {
            let list = Message::open(out, 5, 1);
            values.iter().for_each(|value| any(out, 1, value));
            list.close(out);
        }
        Value::Map(map) => {
            let list = Message::open(out, 6, 1);
            attributes(out, 1, map);
            list.close(out);
        }
        Value::Bytes(bytes) => put::bytes(out, 7, bytes),
    }
    message.close(out);
}

fn text(out: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        put::bytes(out, field, text.as_bytes());
    }
}

fn id(out: &mut Vec<u8>, field: u8, id: &[u8]) {
    if id.iter().any(|&byte| byte != 0) {
        put::bytes(out, field, id);
    }
}

fn fixed32(out: &mut Vec<u8>, field: u8, value: u32) {
    if value != 0 {
        out.push(field << 3 | 5);
        out.extend_from_slice(&value.to_le_bytes());
    }
}
