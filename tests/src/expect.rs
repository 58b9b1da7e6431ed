//! What every span must be, and finding those of one connection.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, ensure};

use crate::{
    receiver::Receiver,
    span::{Span, Status},
    wait::PATIENCE,
    workload::Ends,
};

const STATES: [&str; 7] =
    ["closed", "reset", "refused", "unreachable", "timeout", "aborted", "open"];
const MARKS: [&str; 6] =
    ["preexisting", "truncated", "lost_events", "gap", "no_owner", "event_limit"];

/// Both spans of a connection within the host.
#[derive(Clone, Debug)]
pub struct Both {
    /// Of the end that connected.
    pub client: Arc<Span>,
    /// Of the end that accepted.
    pub server: Arc<Span>,
}

impl Receiver {
    /// The span of the connection from `local` to `peer`, as `local` sees it; it is sound.
    pub fn end(&self, local: SocketAddr, peer: SocketAddr) -> Result<Arc<Span>> {
        let what = format!("the span {local} -> {peer}");
        let spans = self.wait_for(&what, 1, PATIENCE, |span| span.is_between(local, peer))?;
        ensure!(spans.len() == 1, "{what} came {} times: {spans:#?}", spans.len());
        sound(&spans[0]).with_context(|| format!("{what}: {:#?}", spans[0]))?;
        Ok(Arc::clone(&spans[0]))
    }

    /// The client's span of a connection.
    pub fn client(&self, ends: Ends) -> Result<Arc<Span>> {
        self.end(ends.client, ends.server)
    }

    /// The server's span of a connection.
    pub fn server(&self, ends: Ends) -> Result<Arc<Span>> {
        self.end(ends.server, ends.client)
    }

    /// Both spans of a connection.
    pub fn both(&self, ends: Ends) -> Result<Both> {
        Ok(Both { client: self.client(ends)?, server: self.server(ends)? })
    }
}

impl Both {
    /// Asserts the bytes of both ends: what the client sent is what the server received.
    #[track_caller]
    pub fn assert_bytes(&self, to_server: u64, to_client: u64) {
        let (to_server, to_client) = (to_server.cast_signed(), to_client.cast_signed());
        assert_eq!(self.client.bytes(), (to_server, to_client), "{:#?}", self.client);
        assert_eq!(self.server.bytes(), (to_client, to_server), "{:#?}", self.server);
    }

    /// Asserts how both ended.
    #[track_caller]
    pub fn assert_state(&self, state: &str) {
        assert_eq!(self.client.state(), state, "{:#?}", self.client);
        assert_eq!(self.server.state(), state, "{:#?}", self.server);
    }

    /// Asserts that nothing is missing from either.
    #[track_caller]
    pub fn assert_whole(&self) {
        assert!(self.client.quality().is_empty(), "{:#?}", self.client);
        assert!(self.server.quality().is_empty(), "{:#?}", self.server);
    }

    /// Asserts that they are in one trace, apart, and that each links the other.
    #[track_caller]
    pub fn assert_tied(&self) {
        let (client, server) = (&self.client, &self.server);
        assert_eq!(client.trace_id, server.trace_id);
        assert_ne!(client.span_id, server.span_id);
        for (from, to) in [(client, server), (server, client)] {
            let linked = from
                .links
                .iter()
                .any(|link| link.trace_id == to.trace_id && link.span_id == to.span_id);
            assert!(linked, "{} does not link {}: {:?}", from.span_id, to.span_id, from.links);
        }
    }
}

/// Whether a span keeps what SPEC §3 promises of every one.
pub fn sound(span: &Span) -> Result<()> {
    ensure!(span.name == "Connection" && span.scope == "tap.connection", "name or scope");
    ensure!(span.kind == 1, "kind {}", span.kind);
    ensure!(span.parent_span_id.is_empty(), "it has a parent");
    ensure!(span.trace_id.bytes().any(|digit| digit != b'0'), "no trace id");
    ensure!(span.span_id.bytes().any(|digit| digit != b'0'), "no span id");
    ensure!(STATES.contains(&span.state()), "state {:?}", span.state());
    let strange: Vec<_> = span.quality().into_iter().filter(|it| !MARKS.contains(it)).collect();
    ensure!(strange.is_empty(), "quality {strange:?}");
    let failed = span.attributes.value("error.type").is_some();
    ensure!(failed == (span.status == Status::Error), "status and error.type differ");
    names(span)?;
    addresses(span)?;
    events(span)?;
    totals(span)
}

fn names(span: &Span) -> Result<()> {
    let id = span.str("connection.id");
    let xid = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'v').contains(&byte);
    ensure!(id.len() == 20 && id.bytes().all(xid), "connection.id {id:?}");
    ensure!(span.int("connection.cookie") > 0, "no connection.cookie");
    ensure!(span.str("connection.handler") == "raw", "connection.handler");
    ensure!(span.str("connection.strategy") == "observe", "connection.strategy");
    ensure!(span.str("network.transport") == "tcp", "network.transport");
    Ok(())
}

fn addresses(span: &Span) -> Result<()> {
    let local = span.local().context("no local end")?;
    let peer = span.peer().context("no peer")?;
    let family = if peer.is_ipv6() { "ipv6" } else { "ipv4" };
    ensure!(span.str("network.type") == family, "network.type {:?}", span.str("network.type"));
    let (client, server) = match span.str("connection.direction") {
        "egress" => (local, peer),
        "ingress" => (peer, local),
        other => anyhow::bail!("direction {other:?}"),
    };
    ensure!(span.str("client.address") == client.ip().to_string(), "client.address");
    ensure!(span.int("client.port") == i64::from(client.port()), "client.port");
    ensure!(!span.str("server.address").is_empty(), "no server.address");
    ensure!(span.int("server.port") == i64::from(server.port()), "server.port");
    Ok(())
}

fn events(span: &Span) -> Result<()> {
    ensure!(span.start_ns <= span.end_ns, "it ends before it starts");
    let first = span.events.first().context("no events")?;
    let later_segment = span.int("tap.connection.segment") > 0;
    ensure!(first.name == "OpenEvent" || later_segment, "the first event is {}", first.name);
    let last = span.events.last().context("no events")?;
    ensure!(last.name == "CloseEvent", "the last event is {}", last.name);
    ensure!(span.events_named("CloseEvent").count() == 1, "it closes more than once");
    ensure!(span.events.is_sorted_by_key(|event| event.time_ns), "events out of order");
    ensure!(first.time_ns >= span.start_ns && last.time_ns <= span.end_ns, "events outside of it");
    Ok(())
}

/// The turns add up to the bytes, or the span says that some are missing.
fn totals(span: &Span) -> Result<()> {
    for turn in span.turns() {
        ensure!(turn.bytes > 0, "a turn of {} bytes", turn.bytes);
        ensure!(["transmit", "receive"].contains(&turn.direction), "{:?}", turn.direction);
    }
    if span.marked("lost_events") || span.marked("event_limit") {
        return Ok(());
    }
    ensure!(span.dropped_events == 0, "{} events dropped without a mark", span.dropped_events);
    let turns = (span.turn_bytes("transmit"), span.turn_bytes("receive"));
    ensure!(turns == span.bytes(), "turns of {turns:?}, bytes {:?}", span.bytes());
    Ok(())
}
