//! What a span costs on its way out, from the finished connection to bytes on a socket: tap's
//! exporter, and the Rust SDK's own batch processor and OTLP exporter with the same spans, in turn
//! and each in a process of its own. `cargo xtask bench export`.

#[path = "../tests/support/mod.rs"]
#[allow(unused_imports, missing_docs, reason = "the tests' connections, not their collectors")]
mod support;

use std::{
    env,
    error::Error,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    KeyValue, Value,
    trace::{Span as _, SpanBuilder, SpanKind, Status, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue as ProtoKeyValue, any_value},
    trace::v1 as proto,
};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use prost::Message as _;
use serde_json::json;
use tap_userspace::{
    config::{environment::Environment, file::Config},
    connection::model::Connection,
    telemetry::{limits::Limits, resource::Resource, span},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Spans of one run, and how many are offered at a time.
const SPANS: u64 = 200_000;
const ROUND: u64 = 128;

fn main() -> Outcome<()> {
    let mut arguments = env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("tap"), Some(endpoint)) => tap(&endpoint),
        (Some("sdk"), Some(endpoint)) => sdk(&endpoint),
        (pairs, _) => compare(pairs.unwrap_or("5").parse()?),
    }
}

/// Runs both in turn, and says how they compare in the median pair.
fn compare(pairs: usize) -> Outcome<()> {
    let receiver = Receiver::start()?;
    let mut rows = Vec::new();
    for pair in 1..=pairs {
        let (tap, sdk) = (receiver.run("tap")?, receiver.run("sdk")?);
        println!(
            "pair {pair}: tap {:.0} ns of CPU a span, SDK {:.0} ns, {:.2} times",
            tap.nanos,
            sdk.nanos,
            sdk.nanos / tap.nanos
        );
        rows.push((tap, sdk));
    }
    let median = |figure: &dyn Fn(&(Run, Run)) -> f64| {
        let mut all: Vec<f64> = rows.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (tap, sdk) = (median(&|row| row.0.nanos), median(&|row| row.1.nanos));
    let ratio = median(&|row| row.1.nanos / row.0.nanos);
    println!(
        "{:<12} {:>18} {:>20} {:>14}",
        "", "CPU ns a span", "spans/s and core", "bytes a span"
    );
    for (name, nanos, bytes) in
        [("tap", tap, median(&|row| row.0.bytes)), ("Rust SDK", sdk, median(&|row| row.1.bytes))]
    {
        println!("{name:<12} {nanos:>18.0} {:>20.0} {bytes:>14.0}", 1e9 / nanos);
    }
    println!(
        "tap sends {ratio:.2} times as many spans with the same CPU (median of {pairs} pairs)"
    );
    let runs: Vec<_> = rows.iter().map(|(tap, sdk)| json!([tap.nanos, sdk.nanos])).collect();
    let own = env::current_exe()?;
    let target = own.ancestors().nth(3).ok_or("an example outside of a target folder")?;
    let path = target.join("bench/export.json");
    fs::create_dir_all(target.join("bench"))?;
    fs::write(&path, serde_json::to_string_pretty(&json!({ "cpu_ns_per_span": runs }))?)?;
    println!("written to {}", path.display());
    Ok(())
}

/// One run of one of them.
struct Run {
    nanos: f64,
    bytes: f64,
}

/// Takes requests and answers each with an empty success.
struct Receiver {
    endpoint: String,
    bytes: Arc<AtomicU64>,
}

impl Receiver {
    fn start() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = bytes.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = counted.clone();
                thread::spawn(move || drop(answer(stream, &counted)));
            }
        });
        Ok(Self { endpoint, bytes })
    }

    /// CPU time of a process that exports, by what it says itself.
    fn run(&self, mode: &str) -> Outcome<Run> {
        let before = self.bytes.load(Relaxed);
        let output = Command::new(env::current_exe()?).args([mode, &self.endpoint]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let nanos: f64 = text.trim().parse().map_err(|_| {
            format!("{mode} said {text:?} and {}", String::from_utf8_lossy(&output.stderr))
        })?;
        let bytes = (self.bytes.load(Relaxed) - before) as f64 / SPANS as f64;
        Ok(Run { nanos: nanos / SPANS as f64, bytes })
    }
}

fn answer(mut stream: TcpStream, counted: &AtomicU64) -> std::io::Result<()> {
    let mut have = Vec::new();
    let mut part = vec![0; 1 << 20];
    loop {
        let head = loop {
            if let Some(head) = have.windows(4).position(|four| four == b"\r\n\r\n") {
                break head;
            }
            match stream.read(&mut part)? {
                0 => return Ok(()),
                len => have.extend_from_slice(&part[..len]),
            }
        };
        let text = String::from_utf8_lossy(&have[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        let mut missing = (head + 4 + length).saturating_sub(have.len());
        counted.fetch_add(length as u64, Relaxed);
        while missing > 0 {
            match stream.read(&mut part)? {
                0 => return Ok(()),
                len => missing = missing.saturating_sub(len),
            }
        }
        have.clear();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// CPU time of this process and all of its threads so far.
fn cpu() -> Outcome<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(Path::new("/proc/self/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += stat.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

fn tap(endpoint: &str) -> Outcome<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let inside = runtime.enter();
    let variables = [("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
    let exporters = support::try_start(&Config::default(), &variables)?;
    drop(inside);
    let (sink, items) = (exporters.sink(), exporters.counters());
    // Making the connections is not what is measured, but it is memory traffic that both have.
    let before = cpu()?;
    let mut making = Duration::ZERO;
    for round in 0..SPANS.div_ceil(ROUND) {
        let began = on_cpu()?;
        let batch: Vec<_> = batch(round).map(support::plain).collect();
        making += on_cpu()? - began;
        sink.offer_waiting(batch);
    }
    while items.items()[0].counts().exported < SPANS {
        thread::sleep(Duration::from_millis(1));
    }
    println!("{}", (cpu()? - before - making).as_nanos());
    drop(sink);
    drop(runtime.block_on(exporters.shutdown(Instant::now() + Duration::from_secs(5))));
    Ok(())
}

fn batch(round: u64) -> std::ops::Range<u64> {
    round * ROUND..((round + 1) * ROUND).min(SPANS)
}

/// CPU time of this thread so far.
fn on_cpu() -> Outcome<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(stat.split(' ').next().unwrap_or_default().parse()?))
}

/// The SDK's way: a span is built of the connection, ended, and left to the batch processor.
fn sdk(endpoint: &str) -> Outcome<()> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .build()?;
    // A queue for all of them: it drops what it has no room for.
    let config = BatchConfigBuilder::default().with_max_queue_size(SPANS as usize * 2).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let tracer = provider.tracer(span::SCOPE);
    let shape = Shape::of(&support::plain(0))?;
    let before = cpu()?;
    let mut making = Duration::ZERO;
    for round in 0..SPANS.div_ceil(ROUND) {
        let began = on_cpu()?;
        let connections: Vec<_> = batch(round).map(support::plain).collect();
        making += on_cpu()? - began;
        connections.iter().for_each(|connection| shape.build(&tracer, connection));
    }
    provider.force_flush()?;
    println!("{}", (cpu()? - before - making).as_nanos());
    provider.shutdown()?;
    Ok(())
}

/// The attributes and events of tap's own span, ready to be built again with the SDK: what is
/// measured is the SDK, not how a connection is turned into keys and values.
struct Shape {
    attributes: Vec<(&'static str, Value)>,
    events: Vec<(&'static str, Vec<(&'static str, Value)>)>,
}

impl Shape {
    fn of(connection: &Connection) -> Outcome<Self> {
        let environment = Environment::read(std::iter::empty::<(String, String)>())?;
        let frame = span::Frame::new(&Resource::detect(&environment), span::SCOPE);
        let mut bytes = Vec::new();
        frame.begin(&mut bytes);
        span::encode(connection, &Limits::default(), &mut bytes);
        let start = frame.finish(&mut bytes);
        let request = ExportTraceServiceRequest::decode(&bytes[start..])?;
        let span: &proto::Span = &request.resource_spans[0].scope_spans[0].spans[0];
        let events =
            span.events.iter().map(|event| (fixed(&event.name), values(&event.attributes)));
        Ok(Self { attributes: values(&span.attributes), events: events.collect() })
    }

    fn build(&self, tracer: &opentelemetry_sdk::trace::SdkTracer, connection: &Connection) {
        let at = |ns: u64| -> SystemTime { UNIX_EPOCH + Duration::from_nanos(ns) };
        let pairs = |pairs: &[(&'static str, Value)]| -> Vec<KeyValue> {
            pairs.iter().map(|(key, value)| KeyValue::new(*key, value.clone())).collect()
        };
        let mut span = tracer.build(
            SpanBuilder::from_name("Connection")
                .with_kind(SpanKind::Internal)
                .with_start_time(at(connection.start_ns))
                .with_attributes(pairs(&self.attributes)),
        );
        for (event, (name, attributes)) in connection.events.iter().zip(&self.events) {
            span.add_event_with_timestamp(*name, at(event.time_ns), pairs(attributes));
        }
        span.set_status(Status::Unset);
        span.end_with_timestamp(at(connection.end_ns));
    }
}

fn fixed(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn values(attributes: &[ProtoKeyValue]) -> Vec<(&'static str, Value)> {
    let values = attributes.iter().filter_map(|attribute| {
        let value = match attribute.value.clone()?.value? {
            any_value::Value::StringValue(text) => Value::from(text),
            any_value::Value::IntValue(number) => Value::from(number),
            any_value::Value::BoolValue(yes) => Value::from(yes),
            any_value::Value::DoubleValue(number) => Value::from(number),
            any_value::Value::ArrayValue(array) => {
                let texts = array.values.into_iter().filter_map(|value| match value.value? {
                    any_value::Value::StringValue(text) => Some(text.into()),
                    _ => None,
                });
                Value::Array(opentelemetry::Array::String(texts.collect()))
            }
            _ => return None,
        };
        Some((fixed(&attribute.key), value))
    });
    values.collect()
}
