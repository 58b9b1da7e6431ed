//! OTLP messages, as protobuf gives them, to [`Span`]s.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1 as otlp,
};

use crate::span::{Attributes, Event, Link, Span, Status, Value};

/// Every span of a request.
pub fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut out = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.map(|it| attributes(it.attributes)).unwrap_or_default();
        let resource = Arc::new(resource);
        for of_scope in of_resource.scope_spans {
            let scope = of_scope.scope.map(|it| it.name).unwrap_or_default();
            out.extend(of_scope.spans.into_iter().map(|it| span(it, &scope, &resource)));
        }
    }
    out
}

fn span(it: otlp::Span, scope: &str, resource: &Arc<Attributes>) -> Span {
    Span {
        trace_id: hex(&it.trace_id),
        span_id: hex(&it.span_id),
        parent_span_id: hex(&it.parent_span_id),
        name: it.name,
        kind: i64::from(it.kind),
        start_ns: it.start_time_unix_nano,
        end_ns: it.end_time_unix_nano,
        attributes: attributes(it.attributes),
        events: it.events.into_iter().map(event).collect(),
        dropped_events: it.dropped_events_count,
        links: it.links.into_iter().map(link).collect(),
        status: Status::from_wire(it.status.map_or(0, |status| i64::from(status.code))),
        scope: scope.to_owned(),
        resource: Arc::clone(resource),
    }
}

fn event(it: otlp::span::Event) -> Event {
    Event { time_ns: it.time_unix_nano, name: it.name, attributes: attributes(it.attributes) }
}

fn link(it: otlp::span::Link) -> Link {
    Link {
        trace_id: hex(&it.trace_id),
        span_id: hex(&it.span_id),
        trace_state: it.trace_state,
        flags: it.flags,
    }
}

pub(super) fn attributes(list: Vec<KeyValue>) -> Attributes {
    Attributes(list.into_iter().map(|pair| (pair.key, value(pair.value))).collect())
}

fn value(it: Option<AnyValue>) -> Value {
    use any_value::Value as Wire;
    match it.and_then(|it| it.value) {
        Some(Wire::StringValue(text)) => Value::Str(text),
        Some(Wire::IntValue(number)) => Value::Int(number),
        Some(Wire::BoolValue(yes)) => Value::Bool(yes),
        Some(Wire::DoubleValue(number)) => Value::Double(number),
        Some(Wire::BytesValue(bytes)) => Value::Bytes(bytes),
        Some(Wire::ArrayValue(list)) => {
            Value::Array(list.values.into_iter().map(|it| value(Some(it))).collect())
        }
        Some(Wire::KvlistValue(list)) => Value::Map(attributes(list.values)),
        // Strings of a table are of the profiles signal only.
        Some(_) | None => Value::Empty,
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
