//! The receiver against a client that is not the daemon's.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    trace::v1 as otlp,
};
use prost::Message;

use super::*;
use crate::span::Status;

fn request() -> ExportTraceServiceRequest {
    let attribute = |key: &str, value| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let span = otlp::Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "Connection".into(),
        kind: 1,
        start_time_unix_nano: 5,
        end_time_unix_nano: 9,
        attributes: vec![
            attribute("network.peer.port", any_value::Value::IntValue(443)),
            attribute("connection.state", any_value::Value::StringValue("closed".into())),
        ],
        events: vec![otlp::span::Event {
            time_unix_nano: 6,
            name: "OpenEvent".into(),
            ..Default::default()
        }],
        status: Some(otlp::Status { code: 2, message: String::new() }),
        ..otlp::Span::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![otlp::ResourceSpans {
            scope_spans: vec![otlp::ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "tap.connection".into(),
                    ..Default::default()
                }),
                spans: vec![span],
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn assert_is_the_span(span: &Span) {
    assert_eq!(span.trace_id, "01".repeat(16));
    assert_eq!(span.span_id, "02".repeat(8));
    assert_eq!(span.int("network.peer.port"), 443);
    assert_eq!(span.state(), "closed");
    assert_eq!(span.event_names(), ["OpenEvent"]);
    assert_eq!((span.start_ns, span.end_ns), (5, 9));
    assert_eq!(span.status, Status::Error);
    assert_eq!(span.scope, "tap.connection");
}

fn post(receiver: &Receiver, content_type: &str, extra: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(receiver.address(Protocol::HttpJson)).unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
         {extra}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn takes_spans_over_grpc_and_refuses_when_told() {
    let receiver = Receiver::start().unwrap();
    receiver.fail_next(Fault::Unavailable);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let endpoint = receiver.endpoint(Protocol::Grpc);
        let mut client = TraceServiceClient::connect(endpoint).await.unwrap();
        let refused = client.export(request()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        client.export(request()).await.unwrap();
    });
    let spans = receiver.wait_for("the span", 1, PATIENCE, |_| true).unwrap();
    assert_is_the_span(&spans[0]);
    assert_eq!(receiver.store().requests().len(), 1);
}

#[test]
fn takes_protobuf_plain_and_gzip() {
    let receiver = Receiver::start().unwrap();
    let plain = request().encode_to_vec();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let answer = post(&receiver, "application/x-protobuf", "", &plain);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let gzip = gzip.finish().unwrap();
    let answer = post(&receiver, "application/x-protobuf", "content-encoding: gzip\r\n", &gzip);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let spans = receiver.wait_for("both spans", 2, PATIENCE, |_| true).unwrap();
    spans.iter().for_each(|span| assert_is_the_span(span));
}

#[test]
fn takes_json_as_the_specification_writes_it_and_complains_otherwise() {
    let receiver = Receiver::start().unwrap();
    let id = ("01".repeat(16), "02".repeat(8));
    let body = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[]}},"scopeSpans":[{{"scope":{{"name":"tap.connection"}},
        "spans":[{{"traceId":"{}","spanId":"{}","name":"Connection","kind":1,"startTimeUnixNano":"5",
        "endTimeUnixNano":"9","attributes":[{{"key":"network.peer.port","value":{{"intValue":"443"}}}},
        {{"key":"connection.state","value":{{"stringValue":"closed"}}}}],
        "events":[{{"timeUnixNano":"6","name":"OpenEvent"}}],"status":{{"code":2}}}}]}}]}}]}}"#,
        id.0, id.1
    );
    let answer = post(&receiver, "application/json", "", body.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_is_the_span(&receiver.wait_for("the span", 1, PATIENCE, |_| true).unwrap()[0]);
    for bad in [
        body.replace(&id.0, "AQEBAQEBAQEBAQEBAQEBAQ=="),
        body.replace("\"443\"", "443"),
        body.replace("traceId", "trace_id"),
    ] {
        let answer = post(&receiver, "application/json", "", bad.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert_eq!(receiver.store().complaints().len(), 3);
}

#[test]
fn reports_a_partial_success() {
    let receiver = Receiver::start().unwrap();
    receiver.fail_next(Fault::Partial(1));
    let answer = post(&receiver, "application/json", "", b"{\"resourceSpans\":[]}");
    assert!(answer.contains("rejectedSpans"), "{answer}");
}
