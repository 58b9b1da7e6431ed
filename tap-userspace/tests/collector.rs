//! tap's processors against the OpenTelemetry Collector's: the same spans or log records, the same
//! YAML, the same kept set with the same attributes.
//!
//! Each case is a file in `fixtures/collector`. Where `target/tools/otelcol` is (`cargo xtask
//! collector`), the Collector itself answers, else what it has answered before and lies beside the
//! case. `COLLECTOR_BLESS=1` stores its answers.

mod stream;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::KeyValue,
};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tap_userspace::{
    config::file::Config,
    policy::{
        chain,
        data::{Record, decode},
        processor::Tally,
        stage::Chain,
    },
};

/// A case: one list of processors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// `traces` or `logs`.
    signal: String,
    /// What goes in, of [`stream`].
    stream: String,
    /// The block `processors`.
    processors: serde_yaml::Value,
    /// The same for tap, where conditions are CEL instead of OTTL.
    tap: Option<serde_yaml::Value>,
    /// Their order.
    order: Vec<String>,
    /// How long the Collector may keep items.
    #[serde(default)]
    wait_s: u64,
}

#[test]
fn the_collector_does_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/collector");
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/otelcol");
    let built = built.is_file().then_some(built);
    let only = std::env::var("COLLECTOR_CASE").ok();
    let mut wrong = Vec::new();
    let mut cases: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|it| it == "yaml"));
    cases.sort();
    assert!(!cases.is_empty());
    for path in cases {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let case: Case = serde_yaml::from_str(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let stored = path.with_extension("json");
        let theirs = match &built {
            Some(collector) => answer(collector, &case, &name),
            None => serde_json::from_str(&fs::read_to_string(&stored).unwrap()).unwrap(),
        };
        if built.is_some() && std::env::var_os("COLLECTOR_BLESS").is_some() {
            let lines: Vec<String> =
                theirs.iter().map(|(id, item)| format!("{}: {item}", json!(id))).collect();
            fs::write(&stored, format!("{{\n{}\n}}\n", lines.join(",\n"))).unwrap();
        }
        let ours = ours(&case, &name);
        wrong.extend(difference(&name, &ours, &theirs));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let by = if built.is_some() { "the Collector" } else { "the Collector's stored answers" };
    println!("held against {by}");
}

/// Where two answers differ, at most five lines of a case.
fn difference(
    name: &str,
    ours: &BTreeMap<String, Value>,
    theirs: &BTreeMap<String, Value>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, item) in theirs {
        match ours.get(id) {
            None => {
                wrong.push(format!("{name} {id}: the Collector keeps it, tap does not: {item}"));
            }
            Some(same) if same == item => {}
            Some(other) => {
                wrong.push(format!("{name} {id}:\n  Collector {item}\n  tap       {other}"));
            }
        }
    }
    let more = ours.iter().filter(|(id, _)| !theirs.contains_key(*id));
    wrong.extend(more.map(|(id, item)| format!("{name} {id}: only tap keeps it: {item}")));
    let count = wrong.len();
    wrong.truncate(5);
    if count > 5 {
        wrong.push(format!("{name}: {} more", count - 5));
    }
    if count > 0 {
        wrong.push(format!("{name}: tap keeps {}, the Collector {}", ours.len(), theirs.len()));
    }
    wrong
}

/// What tap's processors leave.
fn ours(case: &Case, name: &str) -> BTreeMap<String, Value> {
    let processors = case.tap.as_ref().unwrap_or(&case.processors);
    let order = case.order.join(", ");
    let yaml = format!(
        "{}exporters: {{ otlp: {{}} }}\nservice: {{ pipelines: {{ {}: {{ processors: [{order}], \
         exporters: [otlp] }} }} }}\n",
        serde_yaml::to_string(&BTreeMap::from([("processors", processors)])).unwrap(),
        case.signal
    );
    let config = Config::parse(&yaml).unwrap_or_else(|error| panic!("{name}: {error}\n{yaml}"));
    let named: Vec<_> = case
        .order
        .iter()
        .map(|name| config.processors.find(name).unwrap())
        .map(|(name, processor)| (name.clone(), processor.clone()))
        .collect();
    match case.signal.as_str() {
        "traces" => {
            let requests = stream::traces(&case.stream);
            let left = through(
                chain::of_spans("traces", &named, &chain::Shared::default()),
                &requests,
                name,
            );
            told_traces(&left.iter().map(encoded).collect::<Vec<_>>())
        }
        _ => {
            let requests = stream::logs(&case.stream);
            let left =
                through(chain::of_logs("logs", &named, &chain::Shared::default()), &requests, name);
            told_logs(&left.iter().map(encoded).collect::<Vec<_>>())
        }
    }
}

/// One item as a request of its own.
fn encoded<R: Record>(record: &R) -> Vec<u8> {
    use tap_userspace::telemetry::span::Frame;
    let frame = Frame::of(record.source());
    let mut out = Vec::new();
    frame.begin(&mut out);
    record.encode(&mut out);
    let start = frame.finish(&mut out);
    out.split_off(start)
}

/// Gives requests to processors, and takes what they keep an hour later.
fn through<R: Record>(mut chain: Chain<R>, requests: &[impl prost::Message], name: &str) -> Vec<R> {
    let (now, mut tally) = (Instant::now(), Tally::default());
    let (mut count, mut left) = (0, Vec::new());
    for request in requests {
        let bytes = request.encode_to_vec().into();
        let mut batch = decode::request(&bytes, R::decode).unwrap();
        count += batch.len() as u64;
        for processor in &mut chain {
            processor.process(&mut batch, now, &mut tally);
        }
        left.append(&mut batch);
    }
    for index in 0..chain.len() {
        let later = now + Duration::from_secs(3600);
        let mut batch = chain[index].release(later, true, &mut tally);
        for processor in &mut chain[index + 1..] {
            processor.process(&mut batch, later, &mut tally);
        }
        left.append(&mut batch);
    }
    assert_eq!(left.len() as u64 + tally.all(), count, "{name}: {tally:?}");
    left
}

/// What the Collector leaves.
fn answer(collector: &Path, case: &Case, name: &str) -> BTreeMap<String, Value> {
    let home = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (config, out) = (home.path().join("config.yaml"), home.path().join("out.json"));
    let text = format!(
        "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:{port}' }} }} }} }}\n\
         exporters: {{ file: {{ path: {} }} }}\n{}service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  \
         pipelines: {{ {}: {{ receivers: [otlp], processors: [{}], exporters: [file] }} }}\n",
        out.display(),
        serde_yaml::to_string(&BTreeMap::from([("processors", &case.processors)])).unwrap(),
        case.signal,
        case.order.join(", ")
    );
    fs::write(&config, &text).unwrap();
    let mut command = Command::new(collector);
    command.arg("--config").arg(&config).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if running.0.try_wait().unwrap().is_some() || began.elapsed() > Duration::from_secs(30) {
            let mut said = String::new();
            drop(running.0.kill());
            running.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{name}: {said}\n{text}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // Its log must not fill the pipe.
    let mut log = running.0.stderr.take().unwrap();
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let bodies: Vec<Vec<u8>> = match case.signal.as_str() {
        "traces" => {
            stream::traces(&case.stream).iter().map(prost::Message::encode_to_vec).collect()
        }
        _ => stream::logs(&case.stream).iter().map(prost::Message::encode_to_vec).collect(),
    };
    for body in bodies {
        post(port, &format!("/v1/{}", case.signal), &body);
    }
    std::thread::sleep(Duration::from_secs(case.wait_s));
    // It flushes as it leaves.
    let kill = Command::new("kill").arg(running.0.id().to_string()).status().unwrap();
    assert!(kill.success());
    running.0.wait().unwrap();
    let text = fs::read_to_string(&out).unwrap_or_default();
    match case.signal.as_str() {
        "traces" => told_traces(
            &text
                .lines()
                .map(|line| serde_json::from_str::<ExportTraceServiceRequest>(line).unwrap())
                .map(|request| request.encode_to_vec())
                .collect::<Vec<_>>(),
        ),
        _ => told_logs(
            &text
                .lines()
                .map(|line| serde_json::from_str::<ExportLogsServiceRequest>(line).unwrap())
                .map(|request| request.encode_to_vec())
                .collect::<Vec<_>>(),
        ),
    }
}

/// Ended, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn post(port: u16, path: &str, body: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap_or_default();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

/// Spans by id, each with where it is from, attributes in the order of their keys.
fn told_traces(requests: &[Vec<u8>]) -> BTreeMap<String, Value> {
    let mut told = BTreeMap::new();
    for request in requests {
        let request = ExportTraceServiceRequest::decode(&request[..]).unwrap();
        for of in request.resource_spans {
            let resource = map(&of.resource.unwrap_or_default().attributes);
            for within in of.scope_spans {
                let scope = within.scope.unwrap_or_default();
                for span in within.spans {
                    let id = span.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
                    let events: Vec<_> = span
                        .events
                        .iter()
                        .map(|event| json!([event.name, map(&event.attributes)]))
                        .collect();
                    let status = span.status.unwrap_or_default();
                    let item = json!({
                        "resource": resource, "scope": scope.name, "name": span.name,
                        "kind": span.kind, "trace_state": span.trace_state,
                        "attributes": map(&span.attributes), "events": events,
                        "status": [status.code, status.message],
                    });
                    assert!(told.insert(id, item).is_none(), "twice");
                }
            }
        }
    }
    told
}

/// Log records by the id of their span, which is each one's own.
fn told_logs(requests: &[Vec<u8>]) -> BTreeMap<String, Value> {
    let mut told = BTreeMap::new();
    for request in requests {
        let request = ExportLogsServiceRequest::decode(&request[..]).unwrap();
        for of in request.resource_logs {
            let resource = map(&of.resource.unwrap_or_default().attributes);
            for within in of.scope_logs {
                let scope = within.scope.unwrap_or_default();
                for record in within.log_records {
                    let id = record.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
                    let item = json!({
                        "resource": resource, "scope": scope.name, "body": record.body,
                        "severity": [record.severity_number, record.severity_text],
                        "attributes": map(&record.attributes),
                    });
                    assert!(told.insert(id, item).is_none(), "twice");
                }
            }
        }
    }
    told
}

fn map(attributes: &[KeyValue]) -> Value {
    let mut map = Map::new();
    for attribute in attributes {
        let before = map.insert(attribute.key.clone(), json!(attribute.value));
        assert!(before.is_none(), "{} is there twice", attribute.key);
    }
    Value::Object(map)
}
