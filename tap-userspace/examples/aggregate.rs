//! Measures what the metrics of one HTTP exchange cost (three histograms), and the
//! same by the OpenTelemetry SDK's instruments: `cargo run --release --example aggregate -p
//! tap-userspace`. One thread; nanoseconds of wall time for each exchange.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue, StringValue, Value,
    metrics::{Histogram, MeterProvider as _},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        PeriodicReader, SdkMeterProvider, Temporality as SdkTemporality, data::ResourceMetrics,
        exporter::PushMetricExporter,
    },
};
use tap_userspace::{
    connection::{
        identity::Xid,
        model::{Identity, Role},
        transaction::{About, Transaction},
    },
    enrich::process::Process,
    observe::traffic::{Terms, Traffic},
    policy::sample::Sampler,
    protocol::exchange::{Exchange, Http, Message},
    telemetry::metric::{Reader, Registry, histogram::Aggregation, otlp::Temporality, text},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;
const ROUNDS: usize = 20_000;

/// The `n`th exchange; `series` of them differ.
fn transaction(n: usize, series: usize) -> Transaction {
    let number = n % series;
    let process = Process { name: "curl".into(), ..Process::default() };
    let http = Http {
        version: "1.1",
        method: "GET".into(),
        authority: Some(format!("service-{number}.example.org:8080")),
        target: "/api/v1/things".into(),
        status: Some(200),
        body: [0, 1234],
        ..Http::default()
    };
    let about = About {
        id: Xid([0; 12]),
        identity: Identity { trace_id: [7; 16], span_id: [8; 8], peer_span_id: None },
        role: Role::Client,
        local: ("10.0.0.1".parse().unwrap(), 1000),
        peer: ("10.0.0.2".parse().unwrap(), 8080),
        process: Some(Arc::new(process)),
    };
    let took = (n as u64 * 7919) % 50_000_000;
    let message = Message::Http(Box::new(http));
    let began_ns = 1_000_000_000;
    let exchange =
        Exchange { began_ns, ended_ns: began_ns + took, bytes: [0; 2], message, gap: false };
    Transaction { about: Arc::new(about), number: 0, exchange, object: None }
}

fn measure(name: &str, mut record: impl FnMut(&[Transaction])) {
    for series in [8, 1000] {
        let batches: Vec<Vec<_>> = (0..1024)
            .map(|batch| (0..BATCH).map(|n| transaction(batch * BATCH + n, series)).collect())
            .collect();
        // Each series is made before.
        batches.iter().for_each(|batch| record(batch));
        let began = Instant::now();
        for round in 0..ROUNDS {
            record(black_box(&batches[round % batches.len()]));
        }
        let each = began.elapsed().as_nanos() as f64 / (ROUNDS * BATCH) as f64;
        println!("{name:40} {series:5} series {each:7.0} ns");
    }
}

fn own(name: &str, exemplars: Option<Sampler>, push: Option<(Aggregation, Temporality)>) {
    let registry = Registry::default();
    let terms = Terms { scrape: push.is_none(), push, exemplars, exchanges: true };
    let traffic = Traffic::start(&terms, &registry);
    measure(name, |batch| traffic.transactions(batch));
    if push.is_none() {
        let began = Instant::now();
        let read = registry.read(Reader::Scrape);
        let taken = began.elapsed();
        let text = text::render(&read, text::Format::OpenMetrics);
        println!("    read in {taken:?}, as text {} kB {:?}", text.len() >> 10, began.elapsed());
    }
}

fn main() {
    own("own, explicit", None, None);
    own("own, explicit, exemplars", Some(Sampler::AlwaysOn), None);
    let exponential = Some((Aggregation::Exponential, Temporality::Delta));
    own("own, exponential", None, exponential);
    sdk();
}

/// Takes what it is given.
struct Nowhere;

impl PushMetricExporter for Nowhere {
    async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> SdkTemporality {
        SdkTemporality::Cumulative
    }
}

fn sdk() {
    let reader = PeriodicReader::builder(Nowhere).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let meter = provider.meter("tap");
    let histogram = |name: &'static str| meter.f64_histogram(name).build();
    let instruments = [
        histogram("http.client.request.duration"),
        histogram("http.client.request.body.size"),
        histogram("http.client.response.body.size"),
    ];
    measure("opentelemetry_sdk, explicit", |batch| {
        batch.iter().for_each(|transaction| by_sdk(transaction, &instruments));
    });
}

fn by_sdk(Transaction { about, exchange, .. }: &Transaction, instruments: &[Histogram<f64>; 3]) {
    let Message::Http(http) = &exchange.message else { return };
    let host = StringValue::from(http.host().unwrap_or_default().to_owned());
    let process = about.process.as_deref().map_or("", |process| &process.name);
    let attributes = [
        KeyValue::new("http.request.method", "GET"),
        KeyValue::new("http.response.status_code", i64::from(http.status.unwrap_or(0))),
        KeyValue::new("network.protocol.name", "http"),
        KeyValue::new("network.protocol.version", http.version),
        KeyValue::new("url.scheme", "http"),
        KeyValue::new("server.address", Value::String(host)),
        KeyValue::new("server.port", i64::from(about.peer.1)),
        KeyValue::new("process.executable.name", process.to_owned()),
    ];
    let took = exchange.ended_ns - exchange.began_ns;
    instruments[0].record(took as f64 / 1e9, &attributes);
    instruments[1].record(http.body[0] as f64, &attributes);
    instruments[2].record(http.body[1] as f64, &attributes);
}
