//! [`Transaction`] → OTLP: a span within its connection's (SPEC §4). Owns its name, kind, status and
//! link; what it says of the exchange is [`super::log`]'s, so that secrets are taken out alike.
//!
//! Conventions: HTTP, database and RPC spans of OpenTelemetry's semantic conventions 1.44.

use std::{borrow::Cow, net::SocketAddr};

use super::{
    attributes::Sink,
    log::{self, Terms},
    protobuf::{self, Attributes, Message},
    semconv as key,
    span::{self, Link},
};
use crate::{
    connection::{model::Role, transaction::Transaction},
    protocol::{
        exchange::{self, Http, Query},
        http2::grpc::{self, Grpc},
        trace_context::{self, TraceContext},
    },
};

/// Bytes of a name that somebody else chooses.
const NAME_MAX: usize = 255;

/// `SpanKind`: the server answers, the client asks.
const KINDS: [(u64, &str); 2] = [(2, "server"), (3, "client")];

/// Encodes the span of an exchange as the field `spans` of `ScopeSpans`.
pub fn encode(transaction: &Transaction, terms: &Terms, out: &mut Vec<u8>) {
    let identity = &transaction.about.identity;
    let message = Message::open(out, 2, 2);
    protobuf::bytes(out, 1, &identity.trace_id);
    protobuf::bytes(out, 2, &span_id(transaction));
    protobuf::bytes(out, 4, &identity.span_id);
    protobuf::bytes(out, 5, name(transaction, terms).as_bytes());
    protobuf::uint(out, 6, KINDS[usize::from(is_client(transaction))].0);
    protobuf::fixed64(out, 7, transaction.exchange.began_ns);
    protobuf::fixed64(out, 8, transaction.exchange.ended_ns);
    let mut attributes = Attributes::new(out, 9, &terms.limits, terms.limits.attributes);
    of_span(transaction, terms, &mut attributes);
    let dropped = attributes.dropped;
    protobuf::uint(out, 10, dropped.into());
    let caller = caller(transaction);
    let link = caller.as_ref().map(|caller| Link {
        trace_id: caller.trace_id,
        span_id: caller.span_id,
        state: caller.state.as_deref(),
        flags: caller.flags,
    });
    span::encode_end(link.as_ref(), &terms.limits, log::error_type(transaction).is_some(), out);
    message.close(out);
}

/// The span's id.
pub fn span_id(transaction: &Transaction) -> [u8; 8] {
    transaction.about.identity.child(transaction.number)
}

/// Which end this host is, as `SpanKind` has it, in lower case.
pub fn kind(transaction: &Transaction) -> &'static str {
    KINDS[usize::from(is_client(transaction))].1
}

/// The program's own span that the request was made in, where it says so.
pub fn caller(transaction: &Transaction) -> Option<TraceContext<'_>> {
    match &transaction.exchange.message {
        exchange::Message::Http(http) => trace_context::of(&http.request),
        exchange::Message::WebSocket(_) | exchange::Message::Query(_) => None,
    }
}

/// The span's attributes, whatever the encoding.
pub fn of_span(transaction: &Transaction, terms: &Terms, sink: &mut impl Sink) {
    sink.text(&key::CONNECTION_ID, log::id(&transaction.about.id.encode()));
    if let exchange::Message::Http(http) = &transaction.exchange.message
        && is_client(transaction)
        && let Some(url) = url(transaction, http)
    {
        sink.text(&key::URL_FULL, &terms.redaction.url(&url));
    }
    log::of_exchange(transaction, terms, log::error_type(transaction).as_deref(), sink);
}

/// The span's name: few different ones, as the conventions ask, and nothing of a URL.
pub fn name<'a>(transaction: &'a Transaction, terms: &Terms) -> Cow<'a, str> {
    let name = match &transaction.exchange.message {
        exchange::Message::Http(http) => match grpc::grpc(http) {
            Some(call) => of_call(&call, terms),
            None if log::KNOWN_METHODS.contains(&http.method.as_str()) => {
                Cow::Borrowed(http.method.as_str())
            }
            None => Cow::Borrowed("HTTP"),
        },
        exchange::Message::WebSocket(_) => Cow::Borrowed("WebSocket"),
        exchange::Message::Query(query) => of_query(transaction, query),
    };
    match name {
        Cow::Owned(mut long) if long.len() > NAME_MAX => {
            long.truncate(long.floor_char_boundary(NAME_MAX));
            Cow::Owned(long)
        }
        name => name,
    }
}

/// `{rpc.method}`; of a method that the server does not have, any client could make names.
fn of_call(call: &Grpc<'_>, terms: &Terms) -> Cow<'static, str> {
    match call.status {
        Some(grpc::UNIMPLEMENTED) => Cow::Borrowed("grpc"),
        _ => Cow::Owned(log::rpc_method(call, terms)),
    }
}

/// `{operation} {target}`: the collection, else the namespace (Redis numbers its own, and wants
/// none), else the server.
fn of_query(transaction: &Transaction, query: &Query) -> Cow<'static, str> {
    let namespace = query.namespace.as_deref().filter(|_| query.system != "redis");
    let target = query.target.as_deref().or(namespace).map_or_else(
        || Cow::Owned(SocketAddr::from(server(transaction)).to_string()),
        Cow::Borrowed,
    );
    match query.operation.as_str() {
        "" => Cow::Owned(target.into_owned()),
        operation => Cow::Owned(format!("{operation} {target}")),
    }
}

/// `url.full`; none where the target is no path (`*`, a tunnel).
fn url(transaction: &Transaction, http: &Http) -> Option<String> {
    let path = http.target.strip_prefix('/')?;
    let scheme = log::scheme(http);
    Some(match http.authority.as_deref() {
        Some(authority) => format!("{scheme}://{authority}/{path}"),
        None => format!("{scheme}://{}/{path}", SocketAddr::from(server(transaction))),
    })
}

fn server(transaction: &Transaction) -> (std::net::IpAddr, u16) {
    let about = &transaction.about;
    if is_client(transaction) { about.peer } else { about.local }
}

fn is_client(transaction: &Transaction) -> bool {
    transaction.about.role == Role::Client
}

#[cfg(test)]
#[path = "child_tests.rs"]
mod tests;
