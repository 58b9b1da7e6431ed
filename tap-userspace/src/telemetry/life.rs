//! [`Life`] → OTLP: a log record of a connection that opened, goes on or is over (SPEC §4: the log
//! attributes `event.type` and `event`), with its `connection.id` and its span's ids.
//!
//! Message numbers: opentelemetry-proto 1.9, `logs/v1/logs.proto`.

use std::{borrow::Cow, net::IpAddr};

use super::{
    attributes::{Address, Sink, of_process},
    log::{self, Head, Terms},
    semconv as key,
};
use crate::connection::{
    life::{Life, Moment},
    model::Role,
};

/// `event.type` of every such record.
const EVENT_TYPE: &str = "connection";

/// Encodes one record as the field `log_records` of `ScopeLogs`.
pub fn encode(life: &Life, terms: &Terms, observed_ns: u64, out: &mut Vec<u8>) {
    let head = Head {
        at_ns: life.at_ns,
        observed_ns,
        failed: life.error_type.is_some(),
        trace_id: &life.identity.trace_id,
        span_id: &life.identity.span_id,
    };
    log::encode_record(&head, &line(life), terms, out, |sink| of_record(life, sink));
}

/// The record's attributes, whatever the encoding.
pub fn of_record(life: &Life, sink: &mut impl Sink) {
    let id = life.id.encode();
    sink.text(&key::CONNECTION_ID, log::id(&id));
    sink.text(&key::EVENT_TYPE, EVENT_TYPE);
    sink.map(&key::EVENT, |map| of_event(life, log::id(&id), map));
    sink.text(&key::CONNECTION_DIRECTION, log::direction(life.role));
    sink.text(&key::CONNECTION_STATE, life.state.name());
    sink.text(&key::NETWORK_TRANSPORT, "tcp");
    sink.text(&key::NETWORK_TYPE, if life.local.0.is_ipv4() { "ipv4" } else { "ipv6" });
    if let Some(protocol) = life.protocol {
        sink.text(&key::NETWORK_PROTOCOL_NAME, protocol.network_name());
    }
    let (client, server) = ends(life);
    let mut text = Address::new();
    sink.text(&key::CLIENT_ADDRESS, text.format(client.0));
    sink.int(&key::CLIENT_PORT, client.1.into());
    let mut text = Address::new();
    let address = text.format(server.0);
    sink.text(&key::SERVER_ADDRESS, life.server.as_deref().unwrap_or(address));
    sink.int(&key::SERVER_PORT, server.1.into());
    let mut text = Address::new();
    sink.text(&key::NETWORK_PEER_ADDRESS, text.format(life.peer.0));
    sink.int(&key::NETWORK_PEER_PORT, life.peer.1.into());
    if life.moment != Moment::Opened {
        sink.int(&key::SEGMENT, life.segment.into());
    }
    if let Some(error) = life.error_type {
        sink.text(&key::ERROR_TYPE, error);
    }
    of_process(life.process.as_deref(), sink);
}

/// The map `event`.
fn of_event(life: &Life, id: &str, sink: &mut impl Sink) {
    use tap_common::record::{RECEIVE, TRANSMIT};
    sink.text(&key::SUMMARY_CONNECTION_ID, id);
    sink.text(&key::SUMMARY_CONNECTION_EVENT, life.moment.name());
    sink.text(&key::SUMMARY_DIRECTION, log::direction(life.role));
    if life.moment != Moment::Opened {
        let took_ns = life.at_ns.saturating_sub(life.opened_ns);
        sink.double(&key::SUMMARY_DURATION_MS, took_ns as f64 / 1e6);
        sink.int(&key::SUMMARY_BYTES_SENT, life.bytes[TRANSMIT].cast_signed());
        sink.int(&key::SUMMARY_BYTES_RECEIVED, life.bytes[RECEIVE].cast_signed());
    }
    if let Some(process) = &life.process {
        sink.text(&key::PROCESS_EXE, &process.executable);
    }
}

/// The record's text for people.
pub fn line(life: &Life) -> String {
    let (client, server) = ends(life);
    let mut text = [Address::new(), Address::new()];
    let [from, to] = &mut text;
    let at = life.server.as_deref().map_or_else(|| written(server.0, to), Cow::Borrowed);
    let (word, from) = (life.moment.name(), written(client.0, from));
    format!("Connection {word} {from}:{} -> {at}:{}", client.1, server.1)
}

/// An address that a port may follow.
fn written(address: IpAddr, text: &mut Address) -> Cow<'_, str> {
    let is_six = address.is_ipv6();
    let text = text.format(address);
    if is_six { Cow::Owned(format!("[{text}]")) } else { Cow::Borrowed(text) }
}

/// Client and server.
const fn ends(life: &Life) -> ((IpAddr, u16), (IpAddr, u16)) {
    match life.role {
        Role::Client => (life.local, life.peer),
        Role::Server => (life.peer, life.local),
    }
}
