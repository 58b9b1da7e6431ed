//! What goes in comes out, and another implementation reads the same.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    logs::v1::LogRecord as TheirRecord,
    trace::v1::Span as TheirSpan,
};
use prost::Message as _;

use super::{decode, *};

fn values() -> Attributes {
    let map = Attributes(vec![("inner".into(), Value::Array(vec![1i64.into(), "x".into()]))]);
    Attributes(vec![
        ("text".into(), "täxt".into()),
        ("empty".into(), "".into()),
        ("yes".into(), true.into()),
        ("no".into(), false.into()),
        ("zero".into(), 0i64.into()),
        ("negative".into(), (-5i64).into()),
        ("double".into(), 1.5f64.into()),
        ("bytes".into(), Value::Bytes(Bytes::from_static(&[0, 255]))),
        ("nothing".into(), Value::Empty),
        ("map".into(), Value::Map(map)),
        ("long".into(), "x".repeat(300).into()),
    ])
}

fn span() -> Span {
    Span {
        trace_id: [1; 16],
        span_id: [2; 8],
        parent_span_id: [3; 8],
        trace_state: "ot=th:8".into(),
        name: "Connection".into(),
        kind: 1,
        start_ns: 5,
        end_ns: 6,
        attributes: values(),
        dropped_attributes: 7,
        events: vec![Event {
            time_ns: 8,
            name: "OpenEvent".into(),
            attributes: values(),
            dropped_attributes: 9,
        }],
        dropped_events: 10,
        links: vec![Link {
            trace_id: [4; 16],
            span_id: [5; 8],
            trace_state: "a=b".into(),
            attributes: values(),
            dropped_attributes: 11,
            flags: 0x301,
        }],
        dropped_links: 12,
        status: 2,
        status_message: "why".into(),
        flags: 0x101,
        source: Source::default(),
    }
}

fn record() -> LogRecord {
    LogRecord {
        time_ns: 1,
        observed_ns: 2,
        severity: 17,
        severity_text: "ERROR".into(),
        body: Value::Map(values()),
        attributes: values(),
        dropped_attributes: 3,
        flags: 1,
        trace_id: [1; 16],
        span_id: [2; 8],
        event_name: "name".into(),
        source: Source::default(),
    }
}

/// A message behind the tag and length that encoders write.
fn message(field: &[u8]) -> Bytes {
    let head = 2 + field.iter().skip(1).take_while(|&&byte| byte >= 0x80).count();
    Bytes::copy_from_slice(&field[head..])
}

#[test]
fn spans_come_back_as_they_were() {
    for span in [span(), Span::default()] {
        let mut out = Vec::new();
        span.encode(&mut out);
        let bytes = message(&out);
        assert_eq!(Span::decode(&bytes, Source::default()).unwrap(), span);
        // Through somebody else's hands.
        let theirs = TheirSpan::decode(bytes).unwrap();
        let again = Bytes::from(theirs.encode_to_vec());
        assert_eq!(Span::decode(&again, Source::default()).unwrap(), span);
    }
}

#[test]
fn log_records_come_back_as_they_were() {
    for record in [record(), LogRecord::default()] {
        let mut out = Vec::new();
        record.encode(&mut out);
        let bytes = message(&out);
        assert_eq!(LogRecord::decode(&bytes, Source::default()).unwrap(), record);
        let theirs = TheirRecord::decode(bytes).unwrap();
        let again = Bytes::from(theirs.encode_to_vec());
        assert_eq!(LogRecord::decode(&again, Source::default()).unwrap(), record);
    }
}

/// The examples of opentelemetry-proto's repository, with every level of a request.
#[test]
fn requests_of_others_are_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/otlp");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    let theirs: ExportTraceServiceRequest = serde_json::from_str(&read("trace.json")).unwrap();
    let spans = decode::request(&theirs.encode_to_vec().into(), Span::decode).unwrap();
    let count: usize =
        theirs.resource_spans.iter().flat_map(|it| &it.scope_spans).map(|it| it.spans.len()).sum();
    assert_eq!(spans.len(), count);
    assert_eq!(&*spans[0].source.scope.name, "my.library");
    assert_eq!(
        spans[0].source.resource.attributes.get("service.name").and_then(Value::text),
        Some("my.service")
    );
    let theirs: ExportLogsServiceRequest = serde_json::from_str(&read("logs.json")).unwrap();
    let records = decode::request(&theirs.encode_to_vec().into(), LogRecord::decode).unwrap();
    assert_eq!(records[0].body.text(), Some("Example log record"));
}

#[test]
fn no_bytes_break_it() {
    let mut out = Vec::new();
    span().encode(&mut out);
    let whole = message(&out);
    for len in 0..whole.len() {
        // Cut off anywhere: an error or less of a span, and no panic.
        drop(Span::decode(&whole.slice(..len), Source::default()));
        let mut changed = whole.to_vec();
        changed[len] ^= 0xff;
        drop(Span::decode(&changed.into(), Source::default()));
    }
    let mut deep = vec![];
    for _ in 0..100 {
        let mut outer = vec![10, 0];
        outer.extend(&deep);
        deep =
            [vec![42, 0x80 | (outer.len() as u8 & 0x7f), (outer.len() >> 7) as u8], outer].concat();
    }
    // As the resource of a request, where it is an attribute's value.
    drop(decode::request(&deep.into(), Span::decode));
}
