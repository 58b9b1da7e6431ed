//! A trace of exchanges with a packet capture beside it: what the daemon told live, and what it
//! tells of the capture.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    programs::tcpdump::Tcpdump,
    receiver::{Protocol, Receiver},
    record::{Record, Words},
    span::{Event, Span},
    stage::Session,
    tap::Launch,
    wait::{self, PATIENCE},
};

/// Between the last packet and the end of the capture.
const SETTLE: Duration = Duration::from_millis(100);

/// Both ends of a connection.
const ENDS: [&str; 2] = ["egress", "ingress"];

/// Whether judges agree on the order of exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One after the other, over all connections.
    Time,
    /// One after the other on each connection.
    Connection,
    /// None: several at a time on one connection.
    Any,
}

/// How the turns of a connection are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// One by one.
    Each,
    /// By their sums: where both ends speak at once, a capture shows their packets in another order
    /// than the one in which an end sent and received them.
    Sums,
    /// By the sum of what was sent: where a client leaves first, as `nghttp` does, the server's last
    /// frames are in the capture, but its socket does not take them in any more.
    Sent,
}

/// A daemon that prints log records and exports spans, and tcpdump.
#[derive(Debug)]
pub struct Scene {
    session: Session,
    capture: Tcpdump,
    ports: Vec<u16>,
    home: TempDir,
}

/// `launch` with log records on its output.
pub fn logging(launch: Launch) -> Launch {
    launch
        .env("OTEL_LOGS_EXPORTER", "console")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_BLRP_SCHEDULE_DELAY", "100")
}

impl Scene {
    /// Starts both for connections to these ports.
    pub fn start(ports: &[u16]) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("tap-scene-").tempdir()?;
        let session = Session::with(&logging(Launch::new()))?;
        let capture = Tcpdump::start(&home.path().join("capture.pcap"), ports)?;
        Ok(Self { session, capture, ports: ports.to_vec(), home })
    }

    /// Waits until both ends of every connection to the ports are over and told, the ports of
    /// `counts` with so many exchanges; ends the capture, then the daemon, whose books are checked.
    pub fn finish(self, counts: &[(u16, usize)]) -> Result<Evidence> {
        let Self { session, capture, ports, home } = self;
        let live = wait::until("the records of both ends", PATIENCE, || {
            let records = Record::all(&session.tap.output().all());
            let told = |end, server, count| {
                records.iter().filter(|it| it.is_of(end, server)).count() >= count
            };
            let all = |end| counts.iter().all(|&(server, count)| told(end, server, count));
            ENDS.into_iter().all(all).then_some(records)
        })
        .with_context(|| summary(&Record::all(&session.tap.output().all()), counts))?;
        for record in &live {
            let server = record.number("server.port").unwrap_or(0) as u16;
            if ports.contains(&server) {
                let client = record.client() as u16;
                let what = format!("both spans of {client} -> {server}");
                let its = |span: &Span| span.has_port(client) && span.has_port(server);
                session.receiver.wait_for(&what, 2, PATIENCE, its)?;
            }
        }
        thread::sleep(SETTLE);
        let capture = capture.finish()?;
        let Session { tap, receiver } = session;
        let ended = tap.stop()?;
        ended.check()?;
        let live = Record::all(&ended.stdout);
        Ok(Evidence { live, spans: receiver.spans(), ports, capture, _home: home })
    }
}

/// What is left of a [`Scene`].
#[derive(Debug)]
pub struct Evidence {
    /// Every record, in order.
    pub live: Vec<Record>,
    /// Every span.
    pub spans: Vec<Arc<Span>>,
    /// The packet capture.
    pub capture: PathBuf,
    ports: Vec<u16>,
    _home: TempDir,
}

impl Evidence {
    /// What the records of one end of the connections to `server` say.
    pub fn told(&self, end: &str, server: u16, words: Words) -> Vec<String> {
        self.live.iter().filter(|it| it.is_of(end, server)).filter_map(words).collect()
    }

    /// Asserts that the records of both ends say what another judge says, line by line.
    #[track_caller]
    pub fn assert_agrees(
        &self,
        who: &str,
        server: u16,
        words: Words,
        order: Order,
        judged: &[String],
    ) {
        let judged = ordered(judged.to_vec(), order);
        assert!(!judged.is_empty(), "{who} says nothing");
        for end in ENDS {
            let told = ordered(self.told(end, server, words), order);
            assert_eq!(told, judged, "{end} on the left, {who} on the right");
        }
    }

    /// Replays the capture, and asserts that it tells the records and spans of one end of each
    /// connection as they were told live: without further arguments, the clients'.
    pub fn assert_replayed(&self, end: &str, turns: Turns, arguments: &[&str]) -> Result<()> {
        let path = self.capture.to_str().context("a path in UTF-8")?;
        let receiver = Receiver::start()?;
        let launch = logging(Launch::of(&[&["replay", path], arguments].concat()));
        let ended = launch.exporting(&receiver, Protocol::Grpc).run()?;
        ensure!(ended.code() == 0, "the replay left with {}: {}", ended.code(), ended.log());
        let ours = |it: &&Record| self.ports.iter().any(|port| it.is_of(end, *port));
        let live: Vec<_> = self.live.iter().filter(ours).collect();
        let replayed = Record::all(&ended.stdout);
        let text = |it: &Record, sizes| format!("{:?}", it.comparable(sizes));
        let sizeless = |records: &[&Record]| records.iter().map(|it| text(it, false)).collect();
        assert_same("records", sizeless(&live), sizeless(&replayed.iter().collect::<Vec<_>>()));
        // The capture holds what tap did not capture live, so that sizes differ there.
        let mut sized: Vec<_> = replayed.iter().map(|it| text(it, true)).collect();
        for whole in live.iter().filter(|it| !it.is_marked("gap")).map(|it| text(it, true)) {
            let found = sized.iter().position(|it| *it == whole);
            sized.swap_remove(
                found.with_context(|| format!("not replayed with its sizes: {whole}"))?,
            );
        }
        // A connection older than the capture that was silent is not in it.
        let ours = |span: &&Arc<Span>| {
            span.str("connection.direction") == end
                && !span.quality().contains(&"preexisting")
                && self.ports.iter().any(|port| span.int("server.port") == i64::from(*port))
        };
        let live: Vec<_> = self.spans.iter().filter(ours).map(|it| whole(it, turns)).collect();
        let replayed: Vec<_> = receiver.spans().iter().map(|it| whole(it, turns)).collect();
        assert_same("spans", live, replayed);
        Ok(())
    }
}

/// How many exchanges were waited for, and a line for each record of those connections.
fn summary(records: &[Record], counts: &[(u16, usize)]) -> String {
    let ours = |it: &&Record| {
        counts.iter().any(|(port, _)| it.number("server.port") == Some((*port).into()))
    };
    let line = |it: &Record| {
        format!("{} {} {}", it.str("connection.direction"), it.client(), it.str("body"))
    };
    let lines: Vec<_> = records.iter().filter(ours).map(line).collect();
    format!("{counts:?} of:\n{}", lines.join("\n"))
}

/// A span with its events, but for what a capture does not know (process, socket, the kernel's
/// estimate of the round trip, and what it counts as sent again on a busy machine though it never
/// left), what is made anew, and clocks.
fn whole(span: &Span, turns: Turns) -> String {
    let quality: Vec<_> = span.quality().into_iter().filter(|it| *it != "no_owner").collect();
    let kept = |key: &str| {
        let own = [
            "connection.id",
            "connection.cookie",
            "connection.quality",
            "duration_from_open_ns",
            "tap.tcp.rtt_us",
            "tap.tcp.retransmits",
        ];
        let received = turns == Turns::Sent && key == "tap.bytes.received";
        !key.starts_with("process.") && !own.contains(&key) && !received
    };
    let mut attributes = span.attributes.clone();
    attributes.0.retain(|key, _| kept(key));
    let ids = format!("{} {}", span.trace_id, span.span_id);
    let mut text = format!("{ids} {:?} {quality:?} {attributes:?}", span.status);
    if turns == Turns::Sums {
        text += &format!("\n  {} bytes received in turns", span.turn_bytes("receive"));
    }
    if turns != Turns::Each {
        text += &format!("\n  {} bytes sent in turns", span.turn_bytes("transmit"));
    }
    let each = |it: &&Event| turns == Turns::Each || it.name != "DataEvent";
    for event in span.events.iter().filter(each) {
        let mut attributes = event.attributes.clone();
        attributes.0.retain(|key, _| kept(key));
        text += &format!("\n  {} {attributes:?}", event.name);
    }
    text
}

/// Asserts that both hold the same, in whatever order; shows only what differs.
#[track_caller]
fn assert_same(what: &str, mut live: Vec<String>, mut replayed: Vec<String>) {
    assert!(!live.is_empty(), "no {what} of the live trace");
    live.sort();
    replayed.sort();
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|it| !those.contains(it)).cloned().collect::<Vec<_>>().join("\n")
    };
    let (lost, new) = (only(&live, &replayed), only(&replayed, &live));
    assert!(live == replayed, "{what} only live:\n{lost}\nonly replayed:\n{new}");
}

fn ordered(mut lines: Vec<String>, order: Order) -> Vec<String> {
    match order {
        Order::Time => {}
        Order::Connection => {
            lines.sort_by(|one, other| client(one).cmp(client(other)));
        }
        Order::Any => lines.sort(),
    }
    lines
}

fn client(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}
