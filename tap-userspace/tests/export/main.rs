//! Exporters against collectors in this process: what arrives, what is counted, and what happens
//! when the collector does not play along.

mod disk;
mod metrics;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use support::{
    collector::{Answer, Collector, TAKE, acceptor, certificate},
    configuration, full, plain, try_start,
};
use tap_userspace::{
    connection::model::Connection,
    export::{
        Exporters,
        items::{Counts, Reason},
    },
};

const PROTOCOLS: [&str; 3] = ["grpc", "http/protobuf", "http/json"];

fn start(variables: &[(&str, &str)]) -> Exporters {
    start_with("", variables)
}

/// With exporters of the configuration, for the signals that the variables name.
fn start_with(exporters: &str, variables: &[(&str, &str)]) -> Exporters {
    try_start(&configuration(exporters, ""), variables).unwrap()
}

/// To `endpoint` by `protocol`, soon, with `more` settings.
fn start_to(endpoint: &str, protocol: &str, more: &[(&str, &str)]) -> Exporters {
    let mut variables = vec![
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    variables.extend(more);
    start(&variables)
}

fn url(collector: &Collector) -> String {
    format!("http://{}", collector.address)
}

fn many(count: u64) -> Vec<Connection> {
    (0..count).map(plain).collect()
}

fn counts(exporters: &Exporters) -> Counts {
    let counts = exporters.counters().items()[0].counts();
    assert!(counts.balance(), "{counts:?}");
    counts
}

fn dropped(counts: &Counts, reason: Reason) -> u64 {
    counts.dropped[reason as usize]
}

/// Waits until the counts are so; the identity holds all the while.
async fn until(exporters: &Exporters, so: impl Fn(&Counts) -> bool) -> Counts {
    let began = Instant::now();
    loop {
        let counts = counts(exporters);
        if so(&counts) {
            return counts;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{counts:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn settled(counts: &Counts) -> bool {
    counts.held + counts.queued == 0
}

async fn shutdown(exporters: Exporters) -> Counts {
    let counters = exporters.counters();
    exporters.shutdown(Instant::now() + Duration::from_secs(5)).await;
    let counts = counters.items()[0].counts();
    assert!(counts.balance() && settled(&counts), "{counts:?}");
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn every_span_arrives_once_by_every_protocol() {
    for protocol in PROTOCOLS {
        for compression in ["none", "gzip", "zstd"] {
            let collector = Collector::start([]).await;
            let exporters = start_to(
                &format!("{}/base/", url(&collector)),
                protocol,
                &[
                    ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
                    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,x-tenant=7"),
                ],
            );
            for _ in 0..3 {
                // Of uneven size, so that batches are cut from pieces.
                exporters.offer(vec![]);
            }
            let mut all = many(1_300);
            while !all.is_empty() {
                let rest = all.split_off(all.len().min(333));
                exporters.offer(all);
                all = rest;
            }
            let counts = shutdown(exporters).await;
            assert_eq!((counts.produced, counts.exported), (1_300, 1_300));
            let spans = collector.spans();
            let ids: HashSet<_> = spans.iter().map(|span| span.span_id.clone()).collect();
            assert_eq!((spans.len(), ids.len()), (1_300, 1_300), "{protocol} {compression}");
            let path = match protocol {
                "grpc" => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                _ => "/base/v1/traces",
            };
            for request in collector.received() {
                assert_eq!(request.path, path);
                assert!(request.spans().len() <= 512);
                assert_eq!(request.headers["authorization"], "Bearer x");
                assert_eq!(request.headers["x-tenant"], "7");
                assert!(request.headers["user-agent"].to_str().unwrap().starts_with("OTel-OTLP"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_as_the_specification_writes_it() {
    fn compare(ours: &serde_json::Value, theirs: &serde_json::Value, path: &str) {
        use serde_json::Value;
        match (ours, theirs) {
            (Value::Object(ours), Value::Object(theirs)) => {
                for (key, theirs) in theirs {
                    let optional = ["parentSpanId", "attributes"].contains(&key.as_str());
                    match ours.get(key) {
                        Some(ours) => compare(ours, theirs, &format!("{path}.{key}")),
                        None => assert!(optional, "{path}.{key} is missing"),
                    }
                }
            }
            (Value::Array(ours), Value::Array(theirs)) => {
                if let (Some(ours), Some(theirs)) = (ours.first(), theirs.first()) {
                    compare(ours, theirs, path);
                }
            }
            // The example writes times as numbers; the mapping wants strings and takes both.
            (Value::String(_), Value::Number(_)) => assert!(path.ends_with("UnixNano"), "{path}"),
            _ => assert_eq!(
                std::mem::discriminant(ours),
                std::mem::discriminant(theirs),
                "{path}: {ours}"
            ),
        }
    }
    let collector = Collector::start([]).await;
    let exporters = start_to(&url(&collector), "http/json", &[]);
    exporters.offer(vec![full()]);
    shutdown(exporters).await;
    let body = &collector.received()[0].body;
    let ours: serde_json::Value = serde_json::from_slice(body).unwrap();
    let theirs = include_str!("../fixtures/otlp/trace.json");
    compare(&ours, &serde_json::from_str(theirs).unwrap(), "");
    let span = &ours["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"].as_str().unwrap().len(), 32);
    assert_eq!(span["spanId"], "0000000000000008");
    assert_eq!(span["startTimeUnixNano"], support::START.to_string());
    assert_eq!(span["kind"], 1);
    assert_eq!(span["status"]["code"], 2);
    let cookie = span["attributes"].as_array().unwrap().iter();
    let cookie = cookie.clone().find(|pair| pair["key"] == "connection.cookie").unwrap();
    assert_eq!(cookie["value"], serde_json::json!({ "intValue": "7" }));
    assert_eq!(collector.spans()[0].attributes.len(), 44);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_retried_or_final() {
    /// RetryInfo of no seconds.
    const SOON: &str = "CAgaLgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxICCgA";
    let status = |status| Answer::Status(status, None);
    let grpc = |code, early| Answer::Grpc { code, early, details: None };
    let partial = Answer::Take { rejected: 4, message: "too old" };
    let later = Answer::Status(429, Some(("retry-after", "1")));
    let exhausted = Answer::Grpc { code: 8, early: true, details: Some(SOON) };
    // Protocol, answers, exported and rejected of ten, requests.
    let table = [
        ("http/protobuf", vec![status(503)], 10, 0, 2),
        ("http/json", vec![status(502), status(504)], 10, 0, 3),
        ("http/protobuf", vec![later], 10, 0, 2),
        ("http/protobuf", vec![status(400)], 0, 10, 1),
        ("http/json", vec![status(404)], 0, 10, 1),
        ("http/protobuf", vec![status(500)], 0, 10, 1),
        ("http/protobuf", vec![partial.clone()], 6, 4, 1),
        ("http/json", vec![partial.clone()], 6, 4, 1),
        ("http/protobuf", vec![Answer::Take { rejected: 99, message: "" }], 0, 10, 1),
        ("http/protobuf", vec![Answer::Hang], 10, 0, 2),
        ("grpc", vec![grpc(14, true)], 10, 0, 2),
        ("grpc", vec![grpc(4, false)], 10, 0, 2),
        ("grpc", vec![status(503)], 10, 0, 2),
        ("grpc", vec![exhausted], 10, 0, 2),
        ("grpc", vec![grpc(8, true)], 0, 10, 1),
        ("grpc", vec![grpc(3, false)], 0, 10, 1),
        ("grpc", vec![status(404)], 0, 10, 1),
        ("grpc", vec![partial], 6, 4, 1),
        ("grpc", vec![Answer::Hang], 10, 0, 2),
    ];
    let mut running = Vec::new();
    for (protocol, script, exported, rejected, requests) in table {
        running.push(tokio::spawn(async move {
            let told = format!("{protocol} {script:?}");
            let slow = matches!(script[0], Answer::Status(429, _));
            let collector = Collector::start(script).await;
            let timeout = [("OTEL_EXPORTER_OTLP_TIMEOUT", "400")];
            let exporters = start_to(&url(&collector), protocol, &timeout);
            let began = Instant::now();
            exporters.offer(many(10));
            let counts = until(&exporters, settled).await;
            assert_eq!((counts.exported, counts.rejected), (exported, rejected), "{told}");
            assert_eq!(collector.received().len(), requests, "{told}");
            assert!(!slow || began.elapsed() >= Duration::from_secs(1), "{told}");
            shutdown(exporters).await;
        }));
    }
    for run in running {
        run.await.unwrap();
    }
}

/// An address where nobody listens.
async fn nowhere() -> std::net::SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_later_gets_everything() {
    for protocol in ["grpc", "http/protobuf"] {
        let address = nowhere().await;
        let exporters = start_to(&format!("http://{address}"), protocol, &[]);
        exporters.offer(many(700));
        until(&exporters, |counts| counts.held > 0).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let counts = counts(&exporters);
        assert_eq!(counts.held + counts.queued, 700);
        let collector = Collector::on(address, [], None).await;
        let counts = until(&exporters, settled).await;
        assert_eq!((counts.exported, collector.spans().len()), (700, 700));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_end() {
    let address = nowhere().await;
    let give_up = [("OTEL_BSP_EXPORT_TIMEOUT", "700")];
    let exporters = start_to(&format!("http://{address}"), "http/protobuf", &give_up);
    exporters.offer(many(3));
    let counts = until(&exporters, settled).await;
    assert_eq!(dropped(&counts, Reason::RetryExhausted), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_drops_and_counts_and_never_blocks() {
    let collector = Collector::start(std::iter::repeat_n(Answer::Hang, 100)).await;
    let more = [("OTEL_BSP_MAX_QUEUE_SIZE", "100"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")];
    let exporters = start_to(&url(&collector), "http/protobuf", &more);
    let began = Instant::now();
    for _ in 0..100 {
        exporters.offer(many(100));
        counts(&exporters);
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    let counts = until(&exporters, |counts| counts.held == 40).await;
    assert_eq!(counts.produced, 10_000);
    assert!((60..=100).contains(&counts.queued), "{counts:?}");
    let lost = dropped(&counts, Reason::QueueFull);
    assert_eq!(lost, 10_000 - counts.held - counts.queued);
    // What cannot be sent in time is dropped at the deadline, not later.
    let (counters, began) = (exporters.counters(), Instant::now());
    let told = exporters.shutdown(began + Duration::from_millis(300)).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    let counts = counters.items()[0].counts();
    assert_eq!(dropped(&counts, Reason::Shutdown), 10_000 - lost);
    assert_eq!(told["traces"]["otlp"]["dropped"]["shutdown"], 10_000 - lost);
    assert!(counts.balance() && settled(&counts));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_waits_loses_nothing() {
    let collector = Collector::start([Answer::Status(503, None)]).await;
    let more = [("OTEL_BSP_MAX_QUEUE_SIZE", "50"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20")];
    let exporters = start_to(&url(&collector), "http/protobuf", &more);
    let sink = exporters.sink();
    let fed = tokio::task::spawn_blocking(move || {
        sink.offer_waiting(many(1_000));
        sink.offer_waiting(many(7));
    });
    fed.await.unwrap();
    let counts = shutdown(exporters).await;
    assert_eq!((counts.produced, counts.exported), (1_007, 1_007));
    assert_eq!(collector.spans().len(), 1_007);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_sampler_is_counted() {
    let collector = Collector::start([]).await;
    let more =
        [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
    let exporters = start_to(&url(&collector), "http/protobuf", &more);
    exporters.offer(many(10_000));
    let counts = shutdown(exporters).await;
    assert_eq!(counts.exported + counts.sampled, 10_000);
    assert!((2_300..2_700).contains(&counts.exported), "{counts:?}");
    assert_eq!(collector.spans().len() as u64, counts.exported);
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_spans_make_smaller_requests() {
    let collector = Collector::start([]).await;
    let exporters = start_to(&url(&collector), "grpc", &[]);
    let mut big = many(20);
    for connection in &mut big {
        let process = Arc::make_mut(connection.process.as_mut().unwrap());
        process.executable = "x".repeat(1 << 20).into();
    }
    exporters.offer(big);
    let counts = shutdown(exporters).await;
    assert_eq!((counts.exported, collector.spans().len()), (20, 20));
    assert!(collector.received().iter().all(|request| request.body.len() < 5 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_own_certificates() {
    let (ca, other) = (certificate("ca.pem"), certificate("other.pem"));
    let (chain, key) = (certificate("client.pem"), certificate("client.key"));
    for protocol in PROTOCOLS {
        for (ca, identity, works) in [(&ca, true, true), (&other, true, false), (&ca, false, false)]
        {
            let any = "127.0.0.1:0".parse().unwrap();
            let collector = Collector::on(any, [], Some(acceptor())).await;
            let mut more = vec![
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.as_str()),
                ("OTEL_BSP_EXPORT_TIMEOUT", "300"),
            ];
            if identity {
                more.push(("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", &chain));
                more.push(("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", &key));
            }
            let endpoint = format!("https://localhost:{}", collector.address.port());
            let exporters = start_to(&endpoint, protocol, &more);
            exporters.offer(many(5));
            let counts = until(&exporters, settled).await;
            assert_eq!(counts.exported == 5, works, "{protocol} {identity} {counts:?}");
            assert_eq!(collector.spans().len(), if works { 5 } else { 0 });
        }
    }
}
