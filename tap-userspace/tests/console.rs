//! What is printed, and to whom.

mod support;

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use support::{full, plain};
use tap_userspace::{
    connection::model::Connection,
    export::{
        console::{Exporter, Form, Printer},
        items::{Items, Reason},
        queue::{Bounds, Queue},
    },
    telemetry::{limits::Limits, log::Terms},
};

/// Takes what is written, or fails.
#[derive(Clone, Default)]
struct Output {
    written: Arc<Mutex<Vec<u8>>>,
    broken: bool,
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.written.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
    }
}

fn queue() -> (Arc<Queue<Connection>>, Arc<Items>) {
    let items = Arc::new(Items::new("traces", "console"));
    let delay = Duration::from_secs(60);
    let bounds = Bounds { items: 1_000, bytes: 1 << 20, batch: 10, delay };
    (Arc::new(Queue::new(bounds, items.clone())), items)
}

#[tokio::test]
async fn lines_are_json_with_the_spans_attributes() {
    let (queue, items) = queue();
    let output = Output::default();
    let printer = Printer::new(Form::Lines, Terms::default(), output.clone());
    let exporter = Exporter::start(printer, queue.clone(), items.clone()).unwrap();
    let mut hostile = plain(1);
    let process = Arc::make_mut(hostile.process.as_mut().unwrap());
    process.args = ["\x1b]0;owned\x07\n{\"name\":\"fake\"}".into()].into();
    queue.offer(vec![full(), hostile.clone()], 0);
    exporter.shutdown(Instant::now() + Duration::from_secs(5)).await;
    let text = output.text();
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let first = &lines[0];
    assert_eq!(first["name"], "Connection");
    assert_eq!(first["start"], "2023-11-14T22:13:20.123456789Z");
    assert_eq!(first["end"], "2023-11-14T22:13:20.135802467Z");
    assert_eq!(first["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(first["span_id"], "0000000000000008");
    assert_eq!(first["server.address"], "bücher.example");
    assert_eq!(first["server.port"], 443);
    assert_eq!(first["tls.established"], true);
    assert_eq!(first["connection.quality"], serde_json::json!(["truncated", "event_limit"]));
    assert_eq!(first["dropped_events_count"], 3);
    let names: Vec<_> = first["events"].as_array().unwrap().iter().map(|e| &e["name"]).collect();
    assert_eq!(names[..2], ["OpenEvent", "TLSClientHelloEvent"]);
    assert_eq!(first["events"][4]["bytes"], 123_456);
    assert_eq!(lines[1]["process.command_args"][0], *hostile.process.unwrap().args[0]);
    assert_eq!(items.counts().exported, 2);
}

#[test]
fn lines_honour_limits() {
    let limits =
        Limits { attributes: 2, event_attributes: 0, value_length: Some(3), ..Limits::default() };
    let mut out = Vec::new();
    tap_userspace::export::line::line(&full(), &limits, &mut out);
    let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(line["connection.id"], "000");
    assert_eq!(line["dropped_attributes_count"], 42);
    assert_eq!(line.get("connection.handler"), None);
    assert_eq!(line["events"][1]["dropped_attributes_count"], 8);
}

#[test]
fn the_table_is_aligned_and_moves_no_cursor() {
    let output = Output::default();
    let mut printer = Printer::new(Form::Table, Terms::default(), output.clone());
    let mut hostile = full();
    hostile.client_hello.as_mut().unwrap().server_name = Some("\x1b[2Jx".into());
    printer.print(&vec![vec![plain(0)], vec![hostile]]).unwrap();
    let text = output.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "TIME (UTC)    PROCESS               LOCAL                    PEER                          PROTOCOL    STATE              SENT/RECEIVED      TIME",
            "22:13:20.135  curl[4242]            10.1.2.3:45678         → 192.168.100.200:443           http2       closed            789 B/123.5 kB   12.3 ms",
            "22:13:20.135  curl[4242]            \u{fffd}[2Jx:443              ← [2001:db8::2]:50000           tls         reset             789 B/123.5 kB   12.3 ms",
        ]
    );
}

#[tokio::test]
async fn a_reader_that_is_gone_costs_lines_and_nothing_else() {
    let (queue, items) = queue();
    let output = Output { broken: true, ..Output::default() };
    let printer = Printer::new(Form::Lines, Terms::default(), output);
    let exporter = Exporter::start(printer, queue.clone(), items.clone()).unwrap();
    for n in 0..25 {
        queue.offer(vec![plain(n)], 0);
    }
    exporter.shutdown(Instant::now() + Duration::from_secs(5)).await;
    let counts = items.counts();
    assert_eq!(counts.dropped[Reason::Output as usize], 25);
    assert!(counts.balance() && counts.held + counts.queued == 0);
}
