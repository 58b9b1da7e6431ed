//! [`Transaction`] → OTLP. Owns the order and shape of the `LogRecord` message and what a record
//! says of an exchange (SPEC §4): the map `event` with its `summary.…` keys, and beside it the
//! attributes of the semantic conventions. Secrets are taken out here, before anything is encoded.
//!
//! Message numbers: opentelemetry-proto 1.9, `logs/v1/logs.proto`.

use std::{borrow::Cow, fmt::Write as _};

use super::{
    attributes::{Address, Sink, of_process},
    limits::Limits,
    protobuf::{self, Attributes, Message},
    semconv as key,
};
use crate::{
    connection::{model::Role, transaction::Transaction},
    policy::redact::Redaction,
    protocol::{
        exchange::{self, Exchange, Http, Query, Trouble, WebSocket},
        http2::grpc::{self, Grpc},
    },
};

/// Instrumentation scopes of log records.
pub const SCOPES: [&str; 2] = ["tap.http", "tap.db"];

/// `event.type` of every record.
const EVENT_TYPE: &str = "artifact_record";

/// `SeverityNumber`: INFO and ERROR.
const SEVERITIES: [(u64, &str); 2] = [(9, "INFO"), (17, "ERROR")];

const FLAGS_SAMPLED: u32 = 1;

/// What of an exchange goes into its record.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// How much a record may say.
    pub limits: Limits,
    /// What is taken out.
    pub redaction: Redaction,
    /// Whether header fields are attributes.
    pub headers: bool,
}

/// Index in [`SCOPES`] of a record's scope.
pub const fn scope(transaction: &Transaction) -> usize {
    match transaction.exchange.message {
        exchange::Message::Http(_) | exchange::Message::WebSocket(_) => 0,
        exchange::Message::Query(_) => 1,
    }
}

/// Encodes one record as the field `log_records` of `ScopeLogs`.
pub fn encode(transaction: &Transaction, terms: &Terms, observed_ns: u64, out: &mut Vec<u8>) {
    let (severity, severity_text) = SEVERITIES[usize::from(is_error(&transaction.exchange))];
    let record = Message::open(out, 2, 2);
    protobuf::fixed64(out, 1, transaction.exchange.ended_ns);
    protobuf::uint(out, 2, severity);
    protobuf::bytes(out, 3, severity_text.as_bytes());
    let body = Message::open(out, 5, 1);
    protobuf::bytes(out, 1, terms.limits.cut(&line(transaction, terms)).as_bytes());
    body.close(out);
    let mut attributes = Attributes::new(out, 6, &terms.limits, terms.limits.attributes);
    of_record(transaction, terms, &mut attributes);
    let dropped = attributes.dropped;
    protobuf::uint(out, 7, dropped.into());
    out.push(8 << 3 | 5);
    out.extend_from_slice(&FLAGS_SAMPLED.to_le_bytes());
    protobuf::bytes(out, 9, &transaction.about.identity.trace_id);
    protobuf::bytes(out, 10, &transaction.about.identity.span_id);
    protobuf::fixed64(out, 11, observed_ns);
    record.close(out);
}

/// Whether the exchange failed: the server's fault, or no answer.
fn is_error(exchange: &Exchange) -> bool {
    match &exchange.message {
        exchange::Message::Http(http) => {
            http.error.is_some() || http.status.is_some_and(|status| status >= 500)
        }
        exchange::Message::Query(query) => query.error.is_some() || query.trouble.is_some(),
        exchange::Message::WebSocket(_) => false,
    }
}

/// The record's attributes, whatever the encoding.
pub fn of_record(transaction: &Transaction, terms: &Terms, sink: &mut impl Sink) {
    sink.text(&key::CONNECTION_ID, id(&transaction.about.id.encode()));
    sink.text(&key::EVENT_TYPE, EVENT_TYPE);
    sink.map(&key::EVENT, |map| of_event(transaction, terms, map));
    of_ends(transaction, sink);
    match &transaction.exchange.message {
        exchange::Message::Http(http) => of_http(transaction, http, terms, sink),
        exchange::Message::WebSocket(session) => of_websocket(session, sink),
        exchange::Message::Query(query) => of_query(query, sink),
    }
    if transaction.exchange.gap {
        sink.texts(&key::TAP_EXCHANGE_QUALITY, ["gap"].into_iter());
    }
    of_process(transaction.about.process.as_deref(), sink);
}

/// The map `event`: what the seed of this format has, in one place.
fn of_event(transaction: &Transaction, terms: &Terms, sink: &mut impl Sink) {
    let exchange = &transaction.exchange;
    sink.text(&key::SUMMARY_CONNECTION_ID, id(&transaction.about.id.encode()));
    sink.text(&key::SUMMARY_REQUEST_ID, &request_id(transaction));
    match &exchange.message {
        exchange::Message::Http(http) => {
            sink.text(&key::SUMMARY_REQUEST_METHOD, &http.method);
            sink.text(&key::SUMMARY_REQUEST_SCHEME, scheme(http));
            if let Some(host) = &http.authority {
                sink.text(&key::SUMMARY_REQUEST_HOST, host);
            }
            let (path, query) = target(http, terms);
            sink.text(&key::SUMMARY_REQUEST_PATH, &path);
            if let Some(query) = query {
                sink.text(&key::SUMMARY_REQUEST_QUERY, &query);
            }
            if let Some(status) = http.status {
                sink.int(&key::SUMMARY_RESPONSE_STATUS, status.into());
            }
        }
        exchange::Message::WebSocket(_) => {}
        exchange::Message::Query(query) => {
            sink.text(&key::SUMMARY_REQUEST_METHOD, &query.operation);
            if let Some(target) = &query.target {
                sink.text(&key::SUMMARY_REQUEST_PATH, target);
            }
        }
    }
    sink.text(&key::SUMMARY_REQUEST_PROTOCOL, &protocol(exchange));
    sink.double(&key::SUMMARY_DURATION_MS, milliseconds(exchange));
    sink.text(&key::SUMMARY_DIRECTION, direction(transaction.about.role));
    sink.int(&key::SUMMARY_BYTES_SENT, ours(transaction, 0));
    sink.int(&key::SUMMARY_BYTES_RECEIVED, ours(transaction, 1));
    if let Some(process) = &transaction.about.process {
        sink.text(&key::PROCESS_EXE, &process.executable);
    }
}

/// Bytes of the exchange that this host sent (0) or received (1).
fn ours(transaction: &Transaction, which: usize) -> i64 {
    let client = transaction.about.role == Role::Client;
    let index = if client { which } else { 1 - which };
    transaction.exchange.bytes[index].cast_signed()
}

fn of_ends(transaction: &Transaction, sink: &mut impl Sink) {
    let about = &transaction.about;
    let (mut client_text, mut server_text) = (Address::new(), Address::new());
    let (client, server) = match about.role {
        Role::Client => (about.local, about.peer),
        Role::Server => (about.peer, about.local),
    };
    sink.text(&key::CONNECTION_DIRECTION, direction(about.role));
    sink.text(&key::NETWORK_TRANSPORT, "tcp");
    sink.text(&key::CLIENT_ADDRESS, client_text.format(client.0));
    sink.int(&key::CLIENT_PORT, client.1.into());
    let named = match &transaction.exchange.message {
        exchange::Message::Http(http) => http.host(),
        _ => None,
    };
    let address = server_text.format(server.0);
    sink.text(&key::SERVER_ADDRESS, named.unwrap_or(address));
    sink.int(&key::SERVER_PORT, server.1.into());
    let mut peer = Address::new();
    sink.text(&key::NETWORK_PEER_ADDRESS, peer.format(about.peer.0));
    sink.int(&key::NETWORK_PEER_PORT, about.peer.1.into());
}

fn of_http(transaction: &Transaction, http: &Http, terms: &Terms, sink: &mut impl Sink) {
    let exchange = &transaction.exchange;
    sink.text(&key::NETWORK_PROTOCOL_NAME, "http");
    sink.text(&key::NETWORK_PROTOCOL_VERSION, http.version);
    let known = KNOWN_METHODS.contains(&http.method.as_str());
    sink.text(&key::HTTP_REQUEST_METHOD, if known { &http.method } else { "_OTHER" });
    if !known {
        sink.text(&key::HTTP_REQUEST_METHOD_ORIGINAL, &http.method);
    }
    sink.text(&key::URL_SCHEME, scheme(http));
    let (path, query) = target(http, terms);
    sink.text(&key::URL_PATH, &path);
    if let Some(query) = query {
        sink.text(&key::URL_QUERY, &query);
    }
    if let Some(status) = http.status {
        sink.int(&key::HTTP_RESPONSE_STATUS_CODE, status.into());
    }
    sink.int(&key::HTTP_REQUEST_SIZE, exchange.bytes[0].cast_signed());
    sink.int(&key::HTTP_RESPONSE_SIZE, exchange.bytes[1].cast_signed());
    // How much of what is missing was framing is not known.
    if !exchange.gap {
        sink.int(&key::HTTP_REQUEST_BODY_SIZE, http.body[0].cast_signed());
        sink.int(&key::HTTP_RESPONSE_BODY_SIZE, http.body[1].cast_signed());
    }
    if let Some(agent) = http.request.get("user-agent") {
        sink.text(&key::USER_AGENT_ORIGINAL, agent);
    }
    if let Some(call) = grpc::grpc(http) {
        of_grpc(&call, sink);
    }
    if let Some(error) = http.error {
        sink.text(&key::ERROR_TYPE, trouble(error));
    } else if let Some(status) = http.status.filter(|status| *status >= 500) {
        let mut text = [0; 3];
        for (place, digit) in text.iter_mut().zip([status / 100, status / 10 % 10, status % 10]) {
            *place = b'0' + digit as u8 % 10;
        }
        sink.text(&key::ERROR_TYPE, id(&text));
    }
    if terms.headers {
        for (fields, prefix) in
            [(&http.request, "http.request.header."), (&http.response, "http.response.header.")]
        {
            for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(':')) {
                sink.named_text(prefix, name, &terms.redaction.header(name, value));
            }
        }
    }
}

/// Methods that the conventions know (RFC 9110, RFC 5789, and QUERY).
const KNOWN_METHODS: [&str; 10] =
    ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"];

fn of_grpc(call: &Grpc<'_>, sink: &mut impl Sink) {
    sink.text(&key::RPC_SYSTEM_NAME, "grpc");
    let mut method = String::with_capacity(call.service.len() + call.method.len() + 1);
    method.push_str(call.service);
    method.push('/');
    method.push_str(call.method);
    sink.text(&key::RPC_METHOD, &method);
    if let Some(status) = call.status {
        let mut text = String::new();
        // Writing to a string cannot fail.
        write!(text, "{status}").unwrap_or_default();
        sink.text(&key::RPC_STATUS_CODE, &text);
    }
}

fn of_websocket(session: &WebSocket, sink: &mut impl Sink) {
    sink.text(&key::NETWORK_PROTOCOL_NAME, "websocket");
    for (key, value) in [
        (&key::TAP_WEBSOCKET_CLIENT_MESSAGES, session.messages[0]),
        (&key::TAP_WEBSOCKET_SERVER_MESSAGES, session.messages[1]),
        (&key::TAP_WEBSOCKET_CLIENT_FRAMES, session.frames[0]),
        (&key::TAP_WEBSOCKET_SERVER_FRAMES, session.frames[1]),
    ] {
        sink.int(key, value.cast_signed());
    }
    if let Some(code) = session.close_code {
        sink.int(&key::TAP_WEBSOCKET_CLOSE_CODE, code.into());
    }
}

fn of_query(query: &Query, sink: &mut impl Sink) {
    if query.system == "kafka" {
        sink.text(&key::MESSAGING_SYSTEM, query.system);
        sink.text(&key::MESSAGING_OPERATION_NAME, &query.operation);
        if let Some(target) = &query.target {
            sink.text(&key::MESSAGING_DESTINATION_NAME, target);
        }
    } else {
        sink.text(&key::DB_SYSTEM_NAME, query.system);
        sink.text(&key::DB_OPERATION_NAME, &query.operation);
        for (key, value) in [
            (&key::DB_COLLECTION_NAME, &query.target),
            (&key::DB_NAMESPACE, &query.namespace),
            (&key::DB_QUERY_TEXT, &query.text),
        ] {
            if let Some(value) = value {
                sink.text(key, value);
            }
        }
        if query.batch > 1 {
            sink.int(&key::DB_OPERATION_BATCH_SIZE, query.batch.into());
        }
        if let Some(error) = &query.error {
            sink.text(&key::DB_RESPONSE_STATUS_CODE, error);
        }
    }
    if let Some(error) = &query.error {
        sink.text(&key::ERROR_TYPE, error);
    } else if let Some(error) = query.trouble {
        sink.text(&key::ERROR_TYPE, trouble(error));
    }
}

/// The record's text for people.
pub fn line(transaction: &Transaction, terms: &Terms) -> String {
    let exchange = &transaction.exchange;
    let took = milliseconds(exchange);
    match &exchange.message {
        exchange::Message::Http(http) => {
            let host = http.authority.as_deref().unwrap_or_default();
            let target = terms.redaction.target(&http.target);
            let method = &http.method;
            match (http.status, http.error) {
                (Some(status), None) => format!("{method} {host}{target} {status} {took:.3} ms"),
                (Some(status), Some(error)) => {
                    format!("{method} {host}{target} {status} {} {took:.3} ms", trouble(error))
                }
                (None, error) => {
                    let error = error.map_or("unknown", trouble);
                    format!("{method} {host}{target} {error} {took:.3} ms")
                }
            }
        }
        exchange::Message::WebSocket(session) => {
            let [client, server] = session.messages;
            format!(
                "WebSocket {client} messages of the client, {server} of the server {took:.3} ms"
            )
        }
        exchange::Message::Query(query) => {
            let target = query.target.as_deref().map(|target| format!(" {target}"));
            let target = target.unwrap_or_default();
            let end = query.error.as_deref().or(query.trouble.map(trouble)).unwrap_or("ok");
            format!("{} {}{target} {end} {took:.3} ms", query.system, query.operation)
        }
    }
}

/// `error.type` of an exchange that is not whole.
pub const fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::NoResponse => "no_response",
        Trouble::Truncated => "truncated",
        Trouble::Reset(..) => "reset",
        Trouble::Malformed => "malformed",
    }
}

/// `summary.request_id`: the program's own, else one of tap's.
fn request_id(transaction: &Transaction) -> Cow<'_, str> {
    if let exchange::Message::Http(http) = &transaction.exchange.message
        && let Some(id) = http.request.get("x-request-id")
    {
        return Cow::Borrowed(id);
    }
    let encoded = transaction.about.id.encode();
    Cow::Owned(format!("{}-{}", id(&encoded), transaction.number))
}

fn scheme(http: &Http) -> &str {
    http.scheme.as_deref().unwrap_or("http")
}

fn protocol(exchange: &Exchange) -> Cow<'static, str> {
    match &exchange.message {
        exchange::Message::Http(http) => Cow::Owned(format!("HTTP/{}", http.version)),
        exchange::Message::WebSocket(_) => Cow::Borrowed("websocket"),
        exchange::Message::Query(query) => Cow::Borrowed(query.system),
    }
}

/// Path and query of the target, without secrets.
fn target<'a>(http: &'a Http, terms: &Terms) -> (Cow<'a, str>, Option<Cow<'a, str>>) {
    let (path, query) = match http.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (http.target.as_str(), None),
    };
    (terms.redaction.target(path), query.map(|query| terms.redaction.query(query)))
}

const fn direction(role: Role) -> &'static str {
    match role {
        Role::Client => "egress",
        Role::Server => "ingress",
    }
}

fn milliseconds(exchange: &Exchange) -> f64 {
    exchange.ended_ns.saturating_sub(exchange.began_ns) as f64 / 1e6
}

/// Text that is ASCII by construction.
fn id(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
