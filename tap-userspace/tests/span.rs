//! Spans as a receiver decodes them, and their names against the semantic conventions.

mod support;

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;
use support::{START, full, plain};
use tap_userspace::{
    config::environment::Environment,
    connection::model::Connection,
    telemetry::{
        limits::Limits,
        resource::Resource,
        semconv::{self, Type},
        span::{Frame, encode},
    },
};

/// Encodes connections into one request and decodes it as a receiver would.
fn round_trip(connections: &[Connection], limits: &Limits) -> ExportTraceServiceRequest {
    let variables =
        [("OTEL_SERVICE_NAME", "x".repeat(300)), ("OTEL_RESOURCE_ATTRIBUTES", "a=ü".into())];
    let environment = Environment::read(variables).unwrap();
    let frame = Frame::new(&Resource::detect(&environment), tap_userspace::telemetry::span::SCOPE);
    let mut out = vec![7; 9];
    frame.begin(&mut out);
    for connection in connections {
        encode(connection, limits, &mut out);
    }
    let start = frame.finish(&mut out);
    assert!(start >= Frame::HEADROOM);
    let request = ExportTraceServiceRequest::decode(&out[start..]).unwrap();
    // Every byte is where an encoder would put it, lengths included.
    assert_eq!(request.encoded_len(), out.len() - start);
    request
}

fn span(connection: &Connection, limits: &Limits) -> Span {
    let request = round_trip(std::slice::from_ref(connection), limits);
    request.resource_spans[0].scope_spans[0].spans[0].clone()
}

fn show(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    fn value(of: &Value) -> String {
        match of {
            Value::StringValue(text) => format!("{text:?}"),
            Value::IntValue(int) => int.to_string(),
            Value::BoolValue(flag) => flag.to_string(),
            Value::ArrayValue(array) => {
                let values = array.values.iter().map(|v| value(v.value.as_ref().unwrap()));
                format!("[{}]", values.collect::<Vec<_>>().join(", "))
            }
            other => panic!("{other:?}"),
        }
    }
    let shown: BTreeMap<_, _> = attributes
        .iter()
        .map(|pair| {
            let any = pair.value.as_ref().unwrap();
            (pair.key.as_str(), value(any.value.as_ref().unwrap()))
        })
        .collect();
    assert_eq!(shown.len(), attributes.len(), "a key is there twice");
    shown
}

#[test]
fn a_request_has_its_frame() {
    let many: Vec<_> = (0..3).map(plain).collect();
    let request = round_trip(&many, &Limits::default());
    let [resource] = &request.resource_spans[..] else { panic!("{request:?}") };
    let attributes = show(&resource.resource.as_ref().unwrap().attributes);
    assert_eq!(attributes["service.name"], format!("{:?}", "x".repeat(300)));
    assert_eq!(attributes["a"], "\"ü\"");
    assert_eq!(resource.schema_url, semconv::SCHEMA_URL);
    let [scope] = &resource.scope_spans[..] else { panic!("{resource:?}") };
    let name = scope.scope.as_ref().unwrap();
    assert_eq!((name.name.as_str(), name.version.as_str()), ("tap.connection", "0.1.0"));
    let ids: Vec<_> = scope.spans.iter().map(|span| span.span_id.clone()).collect();
    assert_eq!(ids, [1u64, 2, 3].map(|id| id.to_be_bytes().to_vec()));
}

#[test]
fn a_plain_connection() {
    let span = span(&plain(7), &Limits::default());
    assert_eq!(span.name, "Connection");
    assert_eq!(span.kind, 1);
    assert_eq!(span.trace_id, plain(7).identity.trace_id);
    assert_eq!(span.span_id, plain(7).identity.span_id);
    assert!(span.parent_span_id.is_empty() && span.links.is_empty() && span.status.is_none());
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (START, START + 12_345_678));
    assert_eq!(span.flags, 0x101);
    let expected = [
        ("connection.id", "\"0000000000000000003g\""),
        ("connection.cookie", "7"),
        ("connection.handler", "\"raw\""),
        ("connection.strategy", "\"observe\""),
        ("connection.direction", "\"egress\""),
        ("connection.state", "\"closed\""),
        ("connection.quality", "[]"),
        ("network.transport", "\"tcp\""),
        ("network.type", "\"ipv4\""),
        ("network.protocol.name", "\"http\""),
        ("network.protocol.version", "\"2\""),
        ("client.address", "\"10.1.2.3\""),
        ("client.port", "45678"),
        ("server.address", "\"192.168.100.200\""),
        ("server.port", "443"),
        ("network.local.address", "\"10.1.2.3\""),
        ("network.local.port", "45678"),
        ("network.peer.address", "\"192.168.100.200\""),
        ("network.peer.port", "443"),
        ("tap.bytes.sent", "789"),
        ("tap.bytes.received", "123456"),
        ("tap.connection.segment", "0"),
        ("tap.tcp.rtt_us", "250"),
        ("tap.tcp.retransmits", "1"),
        ("process.pid", "4242"),
        ("process.executable.path", "\"/usr/bin/curl\""),
        ("process.executable.name", "\"curl\""),
        ("process.command_args", "[\"curl\", \"-s\", \"https://example.org/\"]"),
        ("process.owner", "\"root\""),
    ];
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
    assert_eq!(show(&span.attributes), expected);
    let events: Vec<_> = span
        .events
        .iter()
        .map(|e| format!("{} {} {:?}", e.time_unix_nano - START, e.name, show(&e.attributes)))
        .collect();
    assert_eq!(
        events,
        [
            "0 OpenEvent {}",
            r#"1000 ProtocolEvent {"protocol": "\"http2\""}"#,
            r#"1000 DataEvent {"bytes": "789", "network.io.direction": "\"transmit\""}"#,
            r#"2000 DataEvent {"bytes": "123456", "network.io.direction": "\"receive\""}"#,
            "12345678 CloseEvent {}",
        ]
    );
}

#[test]
fn a_full_connection() {
    let span = span(&full(), &Limits::default());
    let attributes = show(&span.attributes);
    for (key, value) in [
        ("connection.direction", "\"ingress\""),
        ("connection.state", "\"reset\""),
        ("connection.quality", r#"["truncated", "event_limit"]"#),
        ("network.type", "\"ipv6\""),
        ("network.protocol.name", "\"tls\""),
        ("client.address", "\"2001:db8::2\""),
        ("client.port", "50000"),
        ("server.address", "\"bücher.example\""),
        ("server.port", "443"),
        ("network.local.address", "\"2001:db8::1\""),
        ("network.peer.address", "\"2001:db8::2\""),
        ("tap.connection.segment", "2"),
        ("tap.reset.by", "\"peer\""),
        ("error.type", "\"reset\""),
        ("tls.established", "true"),
        ("tls.client.supported_ciphers", r#"["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"]"#),
        ("tap.tls.client.alpn", r#"["h2", "http/1.1"]"#),
        ("tls.protocol.version", "\"1.3\""),
        ("tls.cipher", "\"TLS_AES_128_GCM_SHA256\""),
    ] {
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(!attributes.contains_key("network.protocol.version"));
    assert_eq!(span.status.as_ref().unwrap().code, 2);
    assert_eq!(span.dropped_events_count, 3);
    let [link] = &span.links[..] else { panic!("{:?}", span.links) };
    assert_eq!((&link.trace_id, &link.span_id, link.flags), (&span.trace_id, &vec![9; 8], 0x301));
    let event = |name: &str| span.events.iter().find(|event| event.name == name).unwrap();
    let hello = show(&event("TLSClientHelloEvent").attributes);
    assert_eq!(hello["duration_from_open_ns"], "500");
    assert_eq!(hello["server.address"], "\"bücher.example\"");
    assert_eq!(hello["tap.tls.client.version"], "\"1.3\"");
    assert_eq!(hello["tap.tls.client.alpn"], r#"["h2", "http/1.1"]"#);
    assert_eq!(show(&event("ErrorEvent").attributes)["error.type"], "\"reset\"");
}

#[test]
fn what_is_offered_is_not_agreed_on() {
    let mut connection = full();
    connection.server_hello = None;
    let span = span(&connection, &Limits::default());
    let attributes = show(&span.attributes);
    assert!(attributes.contains_key("tls.client.supported_ciphers"));
    for key in ["tls.protocol.version", "tls.cipher", "tls.next_protocol"] {
        assert!(!attributes.contains_key(key), "{key}");
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut connection = plain(0);
    (connection.process, connection.protocol, connection.rtt_us) = (None, None, 0);
    let span = span(&connection, &Limits::default());
    let attributes = show(&span.attributes);
    for prefix in ["process.", "network.protocol.", "tls.", "tap.tls.", "tap.tcp.rtt_us", "error"] {
        assert!(attributes.keys().all(|key| !key.starts_with(prefix)), "{prefix}");
    }
}

#[test]
fn limits_hold_and_what_is_beyond_is_counted() {
    let all = span(&full(), &Limits::default());
    let count = all.attributes.len() as u32;
    for attributes in [0, 1, count - 1, count, count + 1] {
        let limited = span(&full(), &Limits { attributes, ..Limits::default() });
        assert_eq!(limited.attributes[..], all.attributes[..attributes.min(count) as usize]);
        assert_eq!(limited.dropped_attributes_count, count.saturating_sub(attributes));
    }
    for event_attributes in [0, 1, 2] {
        let limited = span(&full(), &Limits { event_attributes, ..Limits::default() });
        for (event, whole) in limited.events.iter().zip(&all.events) {
            let kept = whole.attributes.len().min(event_attributes as usize);
            assert_eq!(event.attributes[..], whole.attributes[..kept]);
            assert_eq!(event.dropped_attributes_count, (whole.attributes.len() - kept) as u32);
        }
    }
    let limited = span(&full(), &Limits { links: 0, ..Limits::default() });
    assert_eq!((limited.links.len(), limited.dropped_links_count), (0, 1));
    for length in [0, 1, 2, 100] {
        let limited = span(&full(), &Limits { value_length: Some(length), ..Limits::default() });
        let lists =
            [&limited.attributes].into_iter().chain(limited.events.iter().map(|e| &e.attributes));
        for pair in lists.flatten() {
            for text in texts(pair) {
                assert!(text.chars().count() <= length, "{pair:?}");
            }
        }
        let cut: String = "bücher.example".chars().take(length).collect();
        assert_eq!(show(&limited.attributes)["server.address"], format!("{cut:?}"));
    }
}

#[test]
fn long_values_make_longer_lengths() {
    for len in [100, 127, 128, 200, 16_383, 16_384, 3_000_000] {
        let mut connection = plain(0);
        let process = std::sync::Arc::make_mut(connection.process.as_mut().unwrap());
        process.executable = "x".repeat(len).into();
        process.args = ["y".repeat(len), String::new()].map(Into::into).into();
        let span = span(&connection, &Limits::default());
        assert_eq!(show(&span.attributes)["process.executable.path"].len(), len + 2);
        assert_eq!(show(&span.attributes)["process.command_args"].len(), len + 8);
    }
}

fn texts(pair: &KeyValue) -> Vec<String> {
    match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => vec![text.clone()],
        Value::ArrayValue(array) => array
            .values
            .iter()
            .map(|value| match value.value.as_ref().unwrap() {
                Value::StringValue(text) => text.clone(),
                other => panic!("{other:?}"),
            })
            .collect(),
        _ => vec![],
    }
}

#[test]
fn names_and_types_are_the_conventions() {
    let text = include_str!("fixtures/semconv/attributes.json");
    let registry: serde_json::Value = serde_json::from_str(text).unwrap();
    let registry = &registry["attributes"];
    // The seed contract's own: connection.*, event*, and what its events say.
    let of_events = ["duration_from_open_ns", "protocol", "bytes"];
    for key in semconv::ALL {
        let known = &registry[key.name];
        if known.is_null() {
            assert!(
                key.name.starts_with("tap.")
                    || key.name.starts_with("connection.")
                    || key.name.starts_with("event")
                    // Inside the map `event`.
                    || key.name.starts_with("summary.")
                    || ["process.exe", "type", "digest", "url"].contains(&key.name)
                    || of_events.contains(&key.name),
                "{} is no name of the conventions",
                key.name
            );
            continue;
        }
        assert!(known["deprecated"].is_null(), "{} is deprecated", key.name);
        let kind = match key.kind {
            Type::Text => &["string", "enum<string>"][..],
            Type::Texts => &["string[]"],
            Type::Int => &["int"],
            Type::Bool => &["boolean"],
            Type::Double => &["double"],
            Type::Map => &["map"],
        };
        assert!(kind.contains(&known["type"].as_str().unwrap()), "{}: {}", key.name, known["type"]);
    }
    // The encoder uses these keys and no others, with values of their types.
    for connection in [full(), plain(0)] {
        let span = span(&connection, &Limits::default());
        let lists = [&span.attributes].into_iter().chain(span.events.iter().map(|e| &e.attributes));
        for pair in lists.flatten() {
            let key = semconv::ALL.iter().find(|key| key.name == pair.key);
            let key = key.unwrap_or_else(|| panic!("{} is not in the table", pair.key));
            let kind = match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
                Value::StringValue(_) => Type::Text,
                Value::IntValue(_) => Type::Int,
                Value::BoolValue(_) => Type::Bool,
                _ => Type::Texts,
            };
            assert_eq!(kind, key.kind, "{}", key.name);
            // Enumerations that are not open have only their members.
            let members = &registry[key.name]["members"];
            if let (Some(members), false) = (members.as_array(), key.name == "error.type") {
                assert!(members.iter().any(|member| texts(pair)[0] == *member), "{pair:?}");
            }
        }
    }
}
