//! Spans of exchanges as a receiver decodes them.

use std::{collections::BTreeMap, sync::Arc};

use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    logs::v1::ScopeLogs,
    trace::v1::{ScopeSpans, Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;

use super::*;
use crate::{
    connection::{identity::Xid, model::Identity, transaction::About},
    protocol::exchange::{Exchange, Headers, Message, Side, Trouble, WebSocket},
    telemetry::{limits::Limits, semconv},
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

fn transaction(role: Role, message: Message) -> Transaction {
    let (client, server) = (([127, 0, 0, 1], 40_000), ([192, 0, 2, 1], 8080));
    let (local, peer) = match role {
        Role::Client => (client, server),
        Role::Server => (server, client),
    };
    let about = About {
        id: Xid([7; 12]),
        identity: Identity { trace_id: [1; 16], span_id: [2; 8], peer_span_id: Some([3; 8]) },
        role,
        local: (local.0.into(), local.1),
        peer: (peer.0.into(), peer.1),
        process: None,
    };
    let exchange =
        Exchange { began_ns: 1_000, ended_ns: 5_000, bytes: [80, 90], message, gap: false };
    Transaction { about: Arc::new(about), number: 4, exchange, object: None }
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in fields {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    headers
}

fn http(method: &str, status: Option<u16>) -> Http {
    Http {
        version: "1.1",
        method: method.into(),
        authority: Some("a.example:8080".into()),
        target: "/x?token=secret&y=1".into(),
        status,
        ..Http::default()
    }
}

fn call(status: &str) -> Http {
    Http {
        target: "/a.Service/Method".into(),
        request: headers(&[("content-type", "application/grpc")]),
        trailers: headers(&[("grpc-status", status)]),
        ..http("POST", Some(200))
    }
}

fn of_http(http: Http) -> Message {
    Message::Http(Box::new(http))
}

fn of_query(system: &'static str, operation: &str, query: Query) -> Message {
    Message::Query(Box::new(Query { system, operation: operation.into(), ..query }))
}

fn decode(transaction: &Transaction, terms: &Terms) -> Span {
    let mut out = Vec::new();
    encode(transaction, terms, &mut out);
    let mut scope = ScopeSpans::decode(&out[..]).unwrap();
    assert_eq!(scope.encoded_len(), out.len());
    scope.spans.remove(0)
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let shown: BTreeMap<_, _> = span
        .attributes
        .iter()
        .map(|pair| {
            let value = match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
                Value::StringValue(text) => text.clone(),
                Value::IntValue(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            (pair.key.as_str(), value)
        })
        .collect();
    assert_eq!(shown.len(), span.attributes.len(), "a key is there twice");
    shown
}

#[test]
fn a_span_stands_in_its_connection() {
    for (role, kind) in [(Role::Client, SpanKind::Client), (Role::Server, SpanKind::Server)] {
        let transaction = transaction(role, of_http(http("GET", Some(200))));
        let span = decode(&transaction, &Terms::default());
        assert_eq!(span.trace_id, [1; 16]);
        assert_eq!(span.parent_span_id, [2; 8]);
        assert_eq!(span.span_id, transaction.about.identity.child(4));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_000, 5_000));
        assert_eq!((span.name.as_str(), span.kind, span.flags), ("GET", kind as i32, 0x101));
        assert!(span.links.is_empty() && span.status.is_none() && span.events.is_empty());
        let attributes = attributes(&span);
        let client = role == Role::Client;
        for (key, want) in [
            ("url.full", client.then_some("http://a.example:8080/x?token=REDACTED&y=1")),
            ("url.path", Some("/x")),
            ("url.query", Some("token=REDACTED&y=1")),
            ("url.scheme", Some("http")),
            ("http.request.method", Some("GET")),
            ("http.response.status_code", Some("200")),
            ("network.protocol.name", Some("http")),
            ("network.protocol.version", Some("1.1")),
            ("server.address", Some("a.example")),
            ("server.port", Some("8080")),
            ("client.address", Some("127.0.0.1")),
            ("client.port", Some("40000")),
            ("network.peer.address", Some(if client { "192.0.2.1" } else { "127.0.0.1" })),
            ("error.type", None),
            ("event.type", None),
            ("event", None),
        ] {
            assert_eq!(attributes.get(key).map(String::as_str), want, "{key}");
        }
    }
}

/// Name, and `error.type` at the client's and the server's end; with it the status is Error.
#[test]
fn names_and_errors_are_the_conventions() {
    let failed = |error| of_http(Http { error: Some(error), ..http("GET", None) });
    let query = |target: Option<&str>, namespace: Option<&str>, error: Option<&str>| Query {
        target: target.map(Into::into),
        namespace: namespace.map(Into::into),
        error: error.map(Into::into),
        ..Query::default()
    };
    let long = Http { target: format!("/{}/é", "s".repeat(253)), ..call("0") };
    let leaky = Http { target: "/a.Service/Method?token=secret".into(), ..call("0") };
    let cases = [
        (of_http(http("GET", Some(200))), "GET", None, None),
        (of_http(http("POST", Some(302))), "POST", None, None),
        (of_http(http("GET", Some(404))), "GET", Some("404"), None),
        (of_http(http("GET", Some(500))), "GET", Some("500"), Some("500")),
        (of_http(http("GET", Some(101))), "GET", None, None),
        (of_http(http("get", Some(200))), "HTTP", None, None),
        (of_http(http("BREW", Some(418))), "HTTP", Some("418"), None),
        (failed(Trouble::NoResponse), "GET", Some("no_response"), Some("no_response")),
        (failed(Trouble::Truncated), "GET", Some("truncated"), Some("truncated")),
        (failed(Trouble::Reset(Side::Client, 8)), "GET", Some("reset"), Some("reset")),
        (failed(Trouble::Malformed), "GET", Some("malformed"), Some("malformed")),
        (of_http(call("0")), "a.Service/Method", None, None),
        (of_http(call("5")), "a.Service/Method", Some("NOT_FOUND"), None),
        (of_http(call("13")), "a.Service/Method", Some("INTERNAL"), Some("INTERNAL")),
        (of_http(call("12")), "grpc", Some("UNIMPLEMENTED"), Some("UNIMPLEMENTED")),
        (of_http(call("99")), "a.Service/Method", Some("99"), None),
        (of_http(long), &format!("{}/", "s".repeat(253)), None, None),
        (of_http(leaky), "a.Service/Method?token=REDACTED", None, None),
        (Message::WebSocket(WebSocket::default()), "WebSocket", None, None),
        (
            of_query("postgresql", "SELECT", query(Some("t"), Some("d"), None)),
            "SELECT t",
            None,
            None,
        ),
        (
            of_query("mysql", "SELECT", query(None, Some("d"), Some("1146"))),
            "SELECT d",
            Some("1146"),
            Some("1146"),
        ),
        (of_query("redis", "GET", query(None, Some("3"), None)), "GET 192.0.2.1:8080", None, None),
        (of_query("postgresql", "", query(Some("t"), None, None)), "t", None, None),
        (
            of_query(
                "redis",
                "GET",
                Query { trouble: Some(Trouble::NoResponse), ..Query::default() },
            ),
            "GET 192.0.2.1:8080",
            Some("no_response"),
            Some("no_response"),
        ),
        (
            of_query("kafka", "Produce", query(Some("topic"), None, None)),
            "Produce topic",
            None,
            None,
        ),
    ];
    for (message, name, client, server) in cases {
        for (role, error) in [(Role::Client, client), (Role::Server, server)] {
            let transaction = transaction(role, message.clone());
            let span = decode(&transaction, &Terms::default());
            assert_eq!(span.name, name, "{message:?}");
            assert!(span.name.len() <= NAME_MAX);
            let attributes = attributes(&span);
            assert_eq!(attributes.get("error.type").map(String::as_str), error, "{message:?}");
            let status = span.status.as_ref().map(|status| status.code);
            assert_eq!(status, error.map(|_| StatusCode::Error as i32), "{message:?}");
            assert!(!format!("{span:?}").contains("secret"), "{span:?}");
            // Its log record says the same.
            let mut out = Vec::new();
            log::encode(&transaction, &Terms::default(), 0, &mut out);
            let record = ScopeLogs::decode(&out[..]).unwrap().log_records.remove(0);
            let same = record.attributes.iter().find(|it| it.key == "error.type");
            let said = span.attributes.iter().find(|it| it.key == "error.type");
            assert_eq!(same.map(|it| &it.value), said.map(|it| &it.value), "{message:?}");
            assert_eq!(record.severity_text == "ERROR", error.is_some(), "{message:?}");
        }
    }
}

#[test]
fn the_callers_span_is_linked() {
    let with = |fields: &[(&str, &str)]| {
        let http = Http { request: headers(fields), ..http("GET", Some(200)) };
        transaction(Role::Server, of_http(http))
    };
    let carried = with(&[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]);
    let span = decode(&carried, &Terms::default());
    let [link] = &span.links[..] else { panic!("{span:?}") };
    assert_eq!(link.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(link.span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!((link.trace_state.as_str(), link.flags), ("a=1,b=2", 0x303));
    assert_eq!(span.dropped_links_count, 0);
    // The field itself is told where header fields are not, once.
    for (terms, want) in [(false, 1), (true, 1)] {
        let terms = Terms { headers: terms, ..Terms::default() };
        let told = decode(&carried, &terms).attributes;
        let parents = told.iter().filter(|pair| pair.key == "http.request.header.traceparent");
        assert_eq!(parents.count(), want);
    }
    let none = Limits { links: 0, ..Limits::default() };
    let span = decode(&carried, &Terms { limits: none, ..Terms::default() });
    assert_eq!((span.links.len(), span.dropped_links_count), (0, 1));
    for fields in [&[][..], &[("traceparent", "00-x")], &[("tracestate", "a=1")]] {
        let span = decode(&with(fields), &Terms::default());
        assert!(span.links.is_empty(), "{fields:?}");
        assert!(attributes(&span).keys().all(|key| !key.starts_with("http.request.header.")));
    }
}

/// What is printed is what is exported, and moves no cursor.
#[test]
fn a_line_of_json_says_the_same() {
    let state = ("tracestate", "a=1");
    let request = headers(&[("traceparent", PARENT), state, ("user-agent", "\x1b[2J")]);
    let http = Http { request, ..http("GET", Some(404)) };
    let transaction = transaction(Role::Client, of_http(http));
    let terms = Terms::default();
    let mut out = Vec::new();
    crate::export::line::child(&transaction, &terms, &mut out);
    let text = std::str::from_utf8(&out).unwrap();
    assert!(
        text.ends_with("}\n") && text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    let line: serde_json::Value = serde_json::from_str(text).unwrap();
    let span = decode(&transaction, &terms);
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let link = &span.links[0];
    for (key, want) in [
        ("scope", "tap.http"),
        ("name", "GET"),
        ("kind", "client"),
        ("start", "1970-01-01T00:00:00.000001000Z"),
        ("end", "1970-01-01T00:00:00.000005000Z"),
        ("trace_id", &hex(&span.trace_id)),
        ("span_id", &hex(&span.span_id)),
        ("parent_span_id", &hex(&span.parent_span_id)),
        ("error.type", "404"),
    ] {
        assert_eq!(line[key], want, "{key}");
    }
    assert_eq!(line["links"][0]["trace_id"], hex(&link.trace_id));
    assert_eq!(line["links"][0]["span_id"], hex(&link.span_id));
    assert_eq!(line["links"][0]["trace_state"], "a=1");
    for pair in &span.attributes {
        assert!(line.get(&pair.key).is_some(), "{}", pair.key);
    }
}

/// A row for people: what was asked and what came of it.
#[test]
fn a_row_tells_what_came_of_it() {
    for (message, want) in [
        (of_http(http("GET", Some(404))), "http        GET 404 "),
        (
            of_http(Http { error: Some(Trouble::NoResponse), ..http("GET", None) }),
            "GET no_response ",
        ),
        (of_http(http("G\x1b[2JT", Some(200))), "G\u{fffd}[2JT 200 "),
        (of_query("redis", "GET", Query::default()), "redis       GET ok "),
        (Message::WebSocket(WebSocket::default()), "websocket   session "),
    ] {
        let mut out = Vec::new();
        crate::export::table::exchange(&transaction(Role::Client, message), &mut out);
        let row = String::from_utf8(out).unwrap();
        assert!(row.contains(want) && row.ends_with("80 B/90 B      4 µs\n"), "{row}");
    }
}

#[test]
fn a_url_is_whole_or_none() {
    let cases = [
        (Some("a.example"), None, "/x", Some("http://a.example/x")),
        (Some("a.example"), Some("https"), "/", Some("https://a.example/")),
        (Some("u:p@a.example"), None, "/", Some("http://REDACTED:REDACTED@a.example/")),
        (None, None, "/x", Some("http://192.0.2.1:8080/x")),
        (Some("a.example"), None, "*", None),
        (Some("a.example:443"), None, "", None),
    ];
    for (authority, scheme, target, want) in cases {
        let http = Http {
            authority: authority.map(Into::into),
            scheme: scheme.map(Into::into),
            target: target.into(),
            ..http("GET", Some(200))
        };
        let span = decode(&transaction(Role::Client, of_http(http)), &Terms::default());
        assert_eq!(attributes(&span).get("url.full").map(String::as_str), want, "{target}");
    }
}

/// Every key is in the table, which is held against the conventions.
#[test]
fn keys_are_those_of_the_table() {
    let query = Query {
        target: Some("t".into()),
        namespace: Some("d".into()),
        text: Some("SELECT ?".into()),
        batch: 2,
        error: Some("1".into()),
        ..Query::default()
    };
    let request = headers(&[("traceparent", PARENT), ("user-agent", "x")]);
    for message in [
        of_http(Http { request, ..http("BREW", Some(404)) }),
        of_http(call("5")),
        Message::WebSocket(WebSocket { close_code: Some(1000), ..WebSocket::default() }),
        of_query("postgresql", "SELECT", query.clone()),
        of_query("kafka", "Fetch", query),
    ] {
        let span = decode(&transaction(Role::Client, message), &Terms::default());
        for pair in &span.attributes {
            let known = semconv::ALL.iter().any(|key| key.name == pair.key);
            assert!(known || pair.key.starts_with("http.request.header."), "{}", pair.key);
        }
    }
}
