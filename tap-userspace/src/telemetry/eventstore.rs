//! [`Write`] → OTLP: what a write to a backend was and what became of it, as a span of the scope
//! `tap.eventstore` (SPEC §4). Owns the span's name, kind, status and attributes, and knows a
//! request that holds nothing else, so that these spans do not make more of themselves.

use std::{borrow::Cow, sync::Arc};

use super::{
    attributes::Sink,
    limits::Limits,
    protobuf::{self, Attributes, Message},
    semconv as key, span,
};

/// Instrumentation scope of these spans.
pub const SCOPE: &str = "tap.eventstore";

/// Their name. The backend and the signal are attributes.
pub const NAME: &str = "eventstore.Save";

/// `SpanKind`: a request that is waited for.
const KIND_CLIENT: u64 = 3;

/// Where writes go: the same for all of one exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The exporter's name, `otlp` for example.
    pub name: Arc<str>,
    /// What it carries: `traces`, `logs` or `metrics`.
    pub signal: &'static str,
    /// `OTEL_EXPORTER_OTLP_PROTOCOL`, or `file`.
    pub protocol: &'static str,
    /// Host and port; a file has none.
    pub server: Option<(String, u16)>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// All was taken.
    Ok,
    /// All but so many items.
    Partial(u64),
    /// The receiver refuses it for good.
    Refused,
    /// It was tried for too long.
    Dropped,
}

impl Became {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partial(_) => "partial",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// One request, from its first attempt to its end.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where to.
    pub backend: Arc<Backend>,
    /// Ids that are nobody else's.
    pub trace_id: [u8; 16],
    /// The same of the span.
    pub span_id: [u8; 8],
    /// Unix nanoseconds: the first attempt, the end.
    pub times: [u64; 2],
    /// Spans, log records or data points.
    pub items: u64,
    /// Bytes on the wire of each attempt, compressed where that was asked for.
    pub bytes: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// How it ended.
    pub became: Became,
    /// `error.type` of what was not taken: a status of HTTP or gRPC, or what kept the request from
    /// having one.
    pub error: Option<Cow<'static, str>>,
}

impl Write {
    /// Ids for one more. The first 32 bits are Unix time, which AWS X-Ray wants, whatever
    /// `trace.identity` says of connections; 96 bits are random.
    pub fn ids(now_ns: u64) -> ([u8; 16], [u8; 8]) {
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        // Without randomness they are the time's.
        getrandom::fill(&mut trace_id).unwrap_or_default();
        getrandom::fill(&mut span_id).unwrap_or_default();
        trace_id[..4].copy_from_slice(&((now_ns / 1_000_000_000) as u32).to_be_bytes());
        if span_id == [0; 8] {
            span_id = now_ns.to_be_bytes();
        }
        (trace_id, span_id)
    }
}

/// Encodes a write as the field `spans` of `ScopeSpans`.
pub fn encode(write: &Write, limits: &Limits, out: &mut Vec<u8>) {
    let message = Message::open(out, 2, 2);
    protobuf::bytes(out, 1, &write.trace_id);
    protobuf::bytes(out, 2, &write.span_id);
    protobuf::bytes(out, 5, NAME.as_bytes());
    protobuf::uint(out, 6, KIND_CLIENT);
    protobuf::fixed64(out, 7, write.times[0]);
    protobuf::fixed64(out, 8, write.times[1]);
    let mut attributes = Attributes::new(out, 9, limits, limits.attributes);
    of_span(write, &mut attributes);
    let dropped = attributes.dropped;
    protobuf::uint(out, 10, dropped.into());
    span::encode_end(None, limits, write.became != Became::Ok, out);
    message.close(out);
}

/// The span's attributes, whatever the encoding.
pub fn of_span(write: &Write, sink: &mut impl Sink) {
    let backend = &*write.backend;
    sink.text(&key::TAP_EVENTSTORE_BACKEND, &backend.name);
    sink.text(&key::TAP_EVENTSTORE_SIGNAL, backend.signal);
    sink.text(&key::TAP_EVENTSTORE_PROTOCOL, backend.protocol);
    if let Some((host, port)) = &backend.server {
        sink.text(&key::SERVER_ADDRESS, host);
        sink.int(&key::SERVER_PORT, (*port).into());
    }
    sink.int(&key::TAP_EVENTSTORE_BATCH_ITEMS, write.items.cast_signed());
    sink.int(&key::TAP_EVENTSTORE_BATCH_BYTES, write.bytes.cast_signed());
    sink.int(&key::TAP_EVENTSTORE_ATTEMPTS, write.attempts.into());
    sink.text(&key::TAP_EVENTSTORE_RESULT, write.became.name());
    if let Became::Partial(rejected) = write.became {
        sink.int(&key::TAP_EVENTSTORE_REJECTED, rejected.cast_signed());
    }
    if let Some(error) = &write.error {
        sink.text(&key::ERROR_TYPE, error);
    }
}

/// Whether a request, as protobuf, holds nothing but these spans. Requests are made by scope, so
/// the first one tells.
pub fn is_all_of(request: &[u8]) -> bool {
    let name = inner(request, 1) // resource_spans
        .and_then(|resource| inner(resource, 2)) // scope_spans
        .and_then(|scope| inner(scope, 1)) // scope
        .and_then(|scope| inner(scope, 1)); // name
    name == Some(SCOPE.as_bytes())
}

/// The first field `number` of a message whose fields before it have a length, all of them.
fn inner(mut message: &[u8], number: u8) -> Option<&[u8]> {
    loop {
        let (&tag, rest) = message.split_first()?;
        message = rest;
        let len = usize::try_from(prost::encoding::decode_varint(&mut message).ok()?).ok()?;
        let content = message.get(..len)?;
        if tag == protobuf::bytes_tag(number) {
            return Some(content);
        }
        if tag & 7 != 2 {
            return None;
        }
        message = &message[len..];
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{AnyValue, any_value::Value},
    };
    use prost::Message as _;

    use super::*;
    use crate::{
        config::environment::Environment,
        telemetry::{resource::Resource, span::Frame},
    };

    fn write(became: Became, error: Option<&'static str>) -> Write {
        let (trace_id, span_id) = Write::ids(1_700_000_000_000_000_000);
        Write {
            backend: Arc::new(Backend {
                name: "otlp/tempo".into(),
                signal: "logs",
                protocol: "grpc",
                server: Some(("tempo".into(), 4317)),
            }),
            trace_id,
            span_id,
            times: [1_700_000_000_000_000_000, 1_700_000_000_250_000_000],
            items: 512,
            bytes: 70_000,
            attempts: 3,
            became,
            error: error.map(Cow::Borrowed),
        }
    }

    /// A request of the scope `scope` with `write` in it.
    fn request(scope: &str, write: &Write) -> Vec<u8> {
        let environment = Environment::read::<&str, &str>([]).unwrap();
        let frame = Frame::new(&Resource::detect(&environment), scope);
        let mut out = Vec::new();
        frame.begin(&mut out);
        encode(write, &Limits::default(), &mut out);
        let start = frame.finish(&mut out);
        out.split_off(start)
    }

    #[test]
    fn a_write_is_a_span_that_tells_what_became_of_it() {
        for (became, error, result, rejected, status) in [
            (Became::Ok, None, "ok", None, 0),
            (Became::Partial(7), Some("partial_success"), "partial", Some(7), 2),
            (Became::Refused, Some("400"), "refused", None, 2),
            (Became::Dropped, Some("timeout"), "dropped", None, 2),
        ] {
            let request = request(SCOPE, &write(became, error));
            let request = ExportTraceServiceRequest::decode(request.as_slice()).unwrap();
            let scope = &request.resource_spans[0].scope_spans[0];
            assert_eq!(scope.scope.as_ref().unwrap().name, "tap.eventstore");
            let span = &scope.spans[0];
            assert_eq!((span.name.as_str(), span.kind), ("eventstore.Save", 3));
            assert_eq!(span.trace_id[..4], 1_700_000_000u32.to_be_bytes());
            assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 250_000_000);
            assert_eq!(span.status.as_ref().map_or(0, |status| status.code), status);
            let value = |key: &str| {
                let pair = span.attributes.iter().find(|pair| pair.key == key)?;
                pair.value.clone()?.value
            };
            let text = |text: &str| Some(Value::StringValue(text.to_owned()));
            assert_eq!(value("tap.eventstore.backend"), text("otlp/tempo"));
            assert_eq!(value("tap.eventstore.signal"), text("logs"));
            assert_eq!(value("tap.eventstore.batch.items"), Some(Value::IntValue(512)));
            assert_eq!(value("tap.eventstore.attempts"), Some(Value::IntValue(3)));
            assert_eq!(value("tap.eventstore.result"), text(result));
            assert_eq!(value("tap.eventstore.rejected"), rejected.map(Value::IntValue));
            assert_eq!(value("error.type"), error.and_then(text));
            for pair in &span.attributes {
                let key = key::ALL.iter().find(|key| key.name == pair.key);
                let kind = key.unwrap_or_else(|| panic!("{} is not in the table", pair.key)).kind;
                let of = |value: &AnyValue| match value.value {
                    Some(Value::StringValue(_)) => key::Type::Text,
                    _ => key::Type::Int,
                };
                assert_eq!(kind, of(pair.value.as_ref().unwrap()), "{}", pair.key);
            }
        }
    }

    #[test]
    fn a_request_of_nothing_else_is_known_and_nonsense_is_not_one() {
        let write = write(Became::Ok, None);
        assert!(is_all_of(&request(SCOPE, &write)));
        assert!(!is_all_of(&request(span::SCOPE, &write)));
        let whole = request(SCOPE, &write);
        // Whatever is cut off or changed, there is an answer.
        for at in 0..whole.len().min(400) {
            is_all_of(&whole[..at]);
            let mut bent = whole.clone();
            bent[at] = bent[at].wrapping_add(0x7f);
            is_all_of(&bent);
        }
        for bad in [&b""[..], b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x08\x01"]
        {
            assert!(!is_all_of(bad), "{bad:?}");
        }
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| Write::ids(0)).collect();
        assert_eq!(ids.len(), 1000);
    }
}
