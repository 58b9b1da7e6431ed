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
        trace_context,
    },
};

/// Instrumentation scopes of log records.
pub const SCOPES: [&str; 2] = ["tap.http", "tap.db"];

/// `event.type` of every record of an exchange.
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
    /// Whether exchanges have spans too, by [`SCOPES`].
    pub spans: [bool; SCOPES.len()],
    /// Whether writes to backends have spans ([`super::eventstore`]).
    pub writes: bool,
}

/// Index in [`SCOPES`] of a record's scope.
pub const fn scope(transaction: &Transaction) -> usize {
    match transaction.exchange.message {
        exchange::Message::Http(_) | exchange::Message::WebSocket(_) => 0,
        exchange::Message::Query(_) => 1,
    }
}

/// What stands in more than one place of a record, made once.
struct Common<'a> {
    /// `connection.id`.
    id: [u8; 20],
    /// The target without secrets; empty where there is none.
    target: Cow<'a, str>,
}

impl<'a> Common<'a> {
    fn of(transaction: &'a Transaction, terms: &Terms) -> Self {
        let id = transaction.about.id.encode();
        let target = match &transaction.exchange.message {
            exchange::Message::Http(http) => terms.redaction.target(&http.target),
            _ => Cow::Borrowed(""),
        };
        Self { id, target }
    }

    /// Path and query of the target.
    fn split(&self) -> (&str, Option<&str>) {
        let parts = self.target.split_once('?');
        parts.map_or((&self.target, None), |(path, query)| (path, Some(query)))
    }
}

/// Encodes one record as the field `log_records` of `ScopeLogs`.
pub fn encode(transaction: &Transaction, terms: &Terms, observed_ns: u64, out: &mut Vec<u8>) {
    let common = Common::of(transaction, terms);
    let head = Head {
        at_ns: transaction.exchange.ended_ns,
        observed_ns,
        failed: error_type(transaction).is_some(),
        trace_id: &transaction.about.identity.trace_id,
        span_id: &transaction.about.identity.span_id,
    };
    encode_record(&head, &line_of(transaction, &common), terms, out, |attributes| {
        all(transaction, terms, &common, attributes);
    });
}

/// What every record has besides its text and its attributes.
pub(super) struct Head<'a> {
    /// When it happened.
    pub at_ns: u64,
    /// When tap told of it.
    pub observed_ns: u64,
    /// Whether it is an error.
    pub failed: bool,
    /// The connection's.
    pub trace_id: &'a [u8; 16],
    /// Its span's.
    pub span_id: &'a [u8; 8],
}

/// Encodes the `LogRecord` message, whose attributes `fill` gives.
pub(super) fn encode_record(
    head: &Head<'_>,
    text: &str,
    terms: &Terms,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Attributes<'_>),
) {
    let (severity, severity_text) = SEVERITIES[usize::from(head.failed)];
    let record = Message::open(out, 2, 2);
    protobuf::fixed64(out, 1, head.at_ns);
    protobuf::uint(out, 2, severity);
    protobuf::bytes(out, 3, severity_text.as_bytes());
    let body = Message::open(out, 5, 1);
    protobuf::bytes(out, 1, terms.limits.cut(text).as_bytes());
    body.close(out);
    let mut attributes = Attributes::new(out, 6, &terms.limits, terms.limits.attributes);
    fill(&mut attributes);
    let dropped = attributes.dropped;
    protobuf::uint(out, 7, dropped.into());
    out.push(8 << 3 | 5);
    out.extend_from_slice(&FLAGS_SAMPLED.to_le_bytes());
    protobuf::bytes(out, 9, head.trace_id);
    protobuf::bytes(out, 10, head.span_id);
    protobuf::fixed64(out, 11, head.observed_ns);
    record.close(out);
}

/// `error.type` of an exchange that failed, as this end sees it: a request that was refused is the
/// client's failure alone (conventions for HTTP and gRPC spans, "Status").
pub(crate) fn error_type(transaction: &Transaction) -> Option<Cow<'_, str>> {
    let client = transaction.about.role == Role::Client;
    match &transaction.exchange.message {
        exchange::Message::Http(http) => {
            if let Some(error) = http.error.filter(|error| error.is_failure()) {
                return Some(Cow::Borrowed(trouble(error)));
            }
            let least = if client { 400 } else { 500 };
            if let Some(status) = http.status.filter(|status| *status >= least) {
                return Some(Cow::Owned(status.to_string()));
            }
            let status = grpc::grpc(http)?.status?;
            let failed = if client { status != 0 } else { grpc::is_server_error(status) };
            failed.then(|| grpc::status_name(status))
        }
        exchange::Message::Query(query) => {
            let trouble = query.trouble.filter(|error| error.is_failure()).map(trouble);
            query.error.as_deref().or(trouble).map(Cow::Borrowed)
        }
        exchange::Message::WebSocket(_) => None,
    }
}

/// The record's attributes, whatever the encoding.
pub fn of_record(transaction: &Transaction, terms: &Terms, sink: &mut impl Sink) {
    all(transaction, terms, &Common::of(transaction, terms), sink);
}

fn all(transaction: &Transaction, terms: &Terms, common: &Common<'_>, sink: &mut impl Sink) {
    sink.text(&key::CONNECTION_ID, id(&common.id));
    sink.text(&key::EVENT_TYPE, EVENT_TYPE);
    sink.map(&key::EVENT, |map| of_event(transaction, common, map));
    let error = error_type(transaction);
    told(transaction, terms, common, error.as_deref(), sink);
}

/// What the semantic conventions say of an exchange, whatever the signal. `error`: its
/// `error.type`.
pub(super) fn of_exchange(
    transaction: &Transaction,
    terms: &Terms,
    error: Option<&str>,
    sink: &mut impl Sink,
) {
    told(transaction, terms, &Common::of(transaction, terms), error, sink);
}

fn told(
    transaction: &Transaction,
    terms: &Terms,
    common: &Common<'_>,
    error: Option<&str>,
    sink: &mut impl Sink,
) {
    of_ends(transaction, sink);
    match &transaction.exchange.message {
        exchange::Message::Http(http) => of_http(transaction, http, terms, common, sink),
        exchange::Message::WebSocket(session) => of_websocket(session, sink),
        exchange::Message::Query(query) => of_query(query, sink),
    }
    if let Some(error) = error {
        sink.text(&key::ERROR_TYPE, error);
    }
    of_quality(&transaction.exchange, sink);
    if let exchange::Message::Http(http) = &transaction.exchange.message {
        of_headers(http, terms, sink);
    }
    of_process(transaction.about.process.as_deref(), sink);
}

/// What is not whole of an exchange by nobody's fault: bytes that were lost to tap, an end that it
/// did not see.
fn of_quality(exchange: &Exchange, sink: &mut impl Sink) {
    let trouble = match &exchange.message {
        exchange::Message::Http(http) => http.error,
        exchange::Message::Query(query) => query.trouble,
        exchange::Message::WebSocket(_) => None,
    };
    let marks = [("gap", exchange.gap), ("open", trouble == Some(Trouble::Open))];
    if marks.iter().any(|(_, is)| *is) {
        let marks = marks.iter().filter(|(_, is)| *is).map(|(mark, _)| *mark);
        sink.texts(&key::TAP_EXCHANGE_QUALITY, marks);
    }
}

/// The map `event`: what the seed of this format has, in one place.
fn of_event(transaction: &Transaction, common: &Common<'_>, sink: &mut impl Sink) {
    let exchange = &transaction.exchange;
    sink.text(&key::SUMMARY_CONNECTION_ID, id(&common.id));
    sink.text(&key::SUMMARY_REQUEST_ID, &request_id(transaction));
    match &exchange.message {
        exchange::Message::Http(http) => {
            sink.text(&key::SUMMARY_REQUEST_METHOD, &http.method);
            sink.text(&key::SUMMARY_REQUEST_SCHEME, scheme(http));
            if let Some(host) = &http.authority {
                sink.text(&key::SUMMARY_REQUEST_HOST, host);
            }
            let (path, query) = common.split();
            sink.text(&key::SUMMARY_REQUEST_PATH, path);
            if let Some(query) = query {
                sink.text(&key::SUMMARY_REQUEST_QUERY, query);
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
    if let Some(object) = &transaction.object {
        sink.text(&key::OBJECT_TYPE, "http_transaction");
        sink.text(&key::OBJECT_DIGEST, &object.digest);
        sink.text(&key::OBJECT_URL, &object.url);
    }
}

/// Bytes of the exchange that this host sent (0) or received (1).
pub(crate) fn ours(transaction: &Transaction, which: usize) -> i64 {
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

fn of_http(
    transaction: &Transaction,
    http: &Http,
    terms: &Terms,
    common: &Common<'_>,
    sink: &mut impl Sink,
) {
    let exchange = &transaction.exchange;
    sink.text(&key::NETWORK_PROTOCOL_NAME, "http");
    sink.text(&key::NETWORK_PROTOCOL_VERSION, http.version);
    let known = KNOWN_METHODS.contains(&http.method.as_str());
    sink.text(&key::HTTP_REQUEST_METHOD, if known { &http.method } else { "_OTHER" });
    if !known {
        sink.text(&key::HTTP_REQUEST_METHOD_ORIGINAL, &http.method);
    }
    sink.text(&key::URL_SCHEME, scheme(http));
    let (path, query) = common.split();
    sink.text(&key::URL_PATH, path);
    if let Some(query) = query {
        sink.text(&key::URL_QUERY, query);
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
        of_grpc(&call, terms, sink);
    }
}

/// The header fields, where they are wanted. The caller's span context is told in any case: it is
/// what ties the exchange to the program's own trace, and the conventions have no other name for it.
fn of_headers(http: &Http, terms: &Terms, sink: &mut impl Sink) {
    const REQUEST: &str = "http.request.header.";
    if terms.headers {
        for (fields, prefix) in
            [(&http.request, REQUEST), (&http.response, "http.response.header.")]
        {
            for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(':')) {
                sink.named_text(prefix, name, &terms.redaction.header(name, value));
            }
        }
    } else if let Some(context) = trace_context::of(&http.request) {
        if let Some(parent) = http.request.get("traceparent") {
            sink.named_text(REQUEST, "traceparent", parent);
        }
        if let Some(state) = &context.state {
            sink.named_text(REQUEST, "tracestate", state);
        }
    }
}

/// Methods that the conventions know (RFC 9110, RFC 5789, and QUERY).
pub const KNOWN_METHODS: [&str; 10] =
    ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"];

fn of_grpc(call: &Grpc<'_>, terms: &Terms, sink: &mut impl Sink) {
    sink.text(&key::RPC_SYSTEM_NAME, "grpc");
    sink.text(&key::RPC_METHOD, &rpc_method(call, terms));
    if let Some(status) = call.status {
        sink.text(&key::RPC_STATUS_CODE, &grpc::status_name(status));
    }
}

/// `rpc.method`: service and method. Whoever calls chooses them, so secrets are looked for.
pub(super) fn rpc_method(call: &Grpc<'_>, terms: &Terms) -> String {
    let method = format!("{}/{}", call.service, call.method);
    terms.redaction.target(&method).into_owned()
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
}

/// The record's text for people.
pub fn line(transaction: &Transaction, terms: &Terms) -> String {
    line_of(transaction, &Common::of(transaction, terms))
}

fn line_of(transaction: &Transaction, common: &Common<'_>) -> String {
    let exchange = &transaction.exchange;
    let mut line = String::with_capacity(128);
    let mut push = |parts: &[&str]| parts.iter().for_each(|part| line.push_str(part));
    match &exchange.message {
        exchange::Message::Http(http) => {
            push(&[
                &http.method,
                " ",
                http.authority.as_deref().unwrap_or_default(),
                &common.target,
            ]);
            if let Some(status) = http.status {
                push(&[" ", id(&digits(status))]);
            }
            match http.error {
                Some(error) => push(&[" ", trouble(error)]),
                None if http.status.is_none() => push(&[" unknown"]),
                None => {}
            }
        }
        exchange::Message::WebSocket(session) => {
            let [client, server] = session.messages;
            // Writing to a string cannot fail.
            let _ =
                write!(line, "WebSocket {client} messages of the client, {server} of the server");
        }
        exchange::Message::Query(query) => {
            push(&[query.system, " ", &query.operation]);
            if let Some(target) = &query.target {
                push(&[" ", target]);
            }
            let end = query.error.as_deref().or(query.trouble.map(trouble)).unwrap_or("ok");
            push(&[" ", end]);
        }
    }
    // Whole numbers: formatting a fraction takes as long as all the rest.
    let took_us = exchange.ended_ns.saturating_sub(exchange.began_ns).saturating_add(500) / 1000;
    let _ = write!(line, " {}.{:03} ms", took_us / 1000, took_us % 1000);
    line
}

/// A status as text.
fn digits(status: u16) -> [u8; 3] {
    [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8 % 10)
}

/// `error.type` of an exchange that is not whole.
pub const fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::NoResponse => "no_response",
        Trouble::Truncated => "truncated",
        Trouble::Reset(..) => "reset",
        Trouble::Malformed => "malformed",
        Trouble::Open => "open",
    }
}

/// `summary.request_id`: the program's own, else one of tap's.
pub(crate) fn request_id(transaction: &Transaction) -> Cow<'_, str> {
    if let exchange::Message::Http(http) = &transaction.exchange.message
        && let Some(id) = http.request.get("x-request-id")
    {
        return Cow::Borrowed(id);
    }
    let about = &transaction.about;
    Cow::Owned(format!("{}-{}", id(&about.id.encode()), transaction.number))
}

pub(crate) fn scheme(http: &Http) -> &str {
    http.scheme.as_deref().unwrap_or("http")
}

pub(crate) fn protocol(exchange: &Exchange) -> Cow<'static, str> {
    match &exchange.message {
        exchange::Message::Http(http) => match http.version {
            "1.1" => Cow::Borrowed("HTTP/1.1"),
            "2" => Cow::Borrowed("HTTP/2"),
            other => Cow::Owned(format!("HTTP/{other}")),
        },
        exchange::Message::WebSocket(_) => Cow::Borrowed("websocket"),
        exchange::Message::Query(query) => Cow::Borrowed(query.system),
    }
}

pub(crate) const fn direction(role: Role) -> &'static str {
    match role {
        Role::Client => "egress",
        Role::Server => "ingress",
    }
}

pub(crate) fn milliseconds(exchange: &Exchange) -> f64 {
    exchange.ended_ns.saturating_sub(exchange.began_ns) as f64 / 1e6
}

/// Text that is ASCII by construction.
pub(crate) fn id(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
