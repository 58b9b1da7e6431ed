//! Spans of writes to backends: one for each request that is not of such spans alone, whatever
//! becomes of it, and counted as all spans are.

mod support;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{common::v1::any_value::Value, trace::v1::Span};
use support::{
    collector::{Answer, Collector, TAKE},
    configuration, plain,
};
use tap_userspace::{
    config::{environment::Environment, file::Config, pipelines::Pipelines},
    export::{Exporters, items::Counts},
    telemetry::{eventstore, log::Terms, resource::Resource},
};
use tokio::runtime::Handle;

fn start(config: &str, writes: bool, collector: &Collector, more: &[(&str, &str)]) -> Exporters {
    let endpoint = format!("http://{}", collector.address);
    let mut variables = vec![
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    variables.extend(more);
    let config = if config.is_empty() { Config::default() } else { configuration(config, "") };
    let environment = Environment::read_over(variables, &config).unwrap();
    let pipelines = Pipelines::resolve(&config, &environment).unwrap();
    let resource = Resource::detect(&environment);
    let terms = Terms { writes, ..Terms::default() };
    Exporters::start(&environment, &pipelines, resource, &Handle::current(), false, &terms).unwrap()
}

fn offer(exporters: &Exporters, count: u64) {
    exporters.offer((0..count).map(plain).collect());
}

fn is_write(span: &Span) -> bool {
    span.name == eventstore::NAME
}

fn writes(collector: &Collector) -> Vec<Span> {
    let requests = collector.received();
    let taken = requests.iter().filter(|it| it.taken && !it.path.ends_with("/metrics"));
    taken.flat_map(|it| it.spans()).filter(is_write).collect()
}

/// Waits for so many writes.
async fn until_told(collector: &Collector, count: usize) {
    let began = Instant::now();
    while writes(collector).len() < count {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", writes(collector));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn shutdown(exporters: Exporters) -> Counts {
    let counters = exporters.counters();
    exporters.shutdown(Instant::now() + Duration::from_secs(5)).await;
    let counts = counters.items()[0].counts();
    assert!(counts.balance() && counts.held + counts.queued == 0, "{counts:?}");
    counts
}

fn attributes(span: &Span) -> HashMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pair = |it: &'_ opentelemetry_proto::tonic::common::v1::KeyValue| {
        it.value.as_ref().unwrap().value.as_ref().map(text).unwrap()
    };
    span.attributes.iter().map(|it| (it.key.as_str(), pair(it))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_is_told() {
    const ONCE: &str = "otlp: { retry_on_failure: { enabled: false } }";
    let status = |status| Answer::Status(status, None);
    let grpc = |code| Answer::Grpc { code, early: true, details: None };
    let partial = || Answer::Take { rejected: 4, message: "too old" };
    // Protocol, configuration, answers; result, error.type, attempts, exported of ten.
    let table = [
        ("grpc", "", vec![], "ok", None, 1, 10),
        ("http/protobuf", "", vec![status(503), TAKE], "ok", None, 2, 10),
        ("http/json", "", vec![status(400)], "refused", Some("400"), 1, 0),
        ("grpc", "", vec![grpc(3)], "refused", Some("INVALID_ARGUMENT"), 1, 0),
        ("grpc", "", vec![partial()], "partial", Some("partial_success"), 1, 6),
        ("http/json", "", vec![partial()], "partial", Some("partial_success"), 1, 6),
        ("http/protobuf", ONCE, vec![status(503)], "dropped", Some("503"), 1, 0),
        ("grpc", ONCE, vec![grpc(14)], "dropped", Some("UNAVAILABLE"), 1, 0),
        ("http/protobuf", ONCE, vec![Answer::Hang], "dropped", Some("timeout"), 1, 0),
    ];
    let mut running = Vec::new();
    for (protocol, config, script, result, error, attempts, exported) in table {
        running.push(tokio::spawn(async move {
            let told = format!("{protocol} {script:?}");
            let collector = Collector::start(script).await;
            let more =
                [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol), ("OTEL_EXPORTER_OTLP_TIMEOUT", "400")];
            let exporters = start(config, true, &collector, &more);
            let before = tap_userspace::connection::clock::wall();
            offer(&exporters, 10);
            until_told(&collector, 1).await;
            let counts = shutdown(exporters).await;
            // The write is a span as the ten are; its own request makes none.
            assert_eq!((counts.produced, counts.exported), (11, exported + 1), "{told}");
            let writes = writes(&collector);
            assert_eq!(writes.len(), 1, "{told}");
            let said = attributes(&writes[0]);
            assert_eq!(said["tap.eventstore.result"], result, "{told}");
            assert_eq!(said.get("error.type").map(String::as_str), error, "{told}");
            assert_eq!(said["tap.eventstore.attempts"], attempts.to_string(), "{told}");
            assert_eq!(said["tap.eventstore.protocol"], protocol, "{told}");
            assert_eq!(said["tap.eventstore.batch.items"], "10", "{told}");
            assert_eq!(said["server.port"], collector.address.port().to_string(), "{told}");
            let rejected = said.get("tap.eventstore.rejected").map(String::as_str);
            assert_eq!(rejected, (result == "partial").then_some("4"), "{told}");
            let failed = writes[0].status.as_ref().is_some_and(|status| status.code == 2);
            assert_eq!(failed, result != "ok", "{told}");
            let times = [writes[0].start_time_unix_nano, writes[0].end_time_unix_nano];
            assert!(before <= times[0] && times[0] < times[1], "{told} {times:?}");
        }));
    }
    for run in running {
        run.await.unwrap();
    }
}

/// Whatever keeps the requests until they are sent: a queue on disk knows of no scopes.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_writes_alone_make_none() {
    let home = tempfile::tempdir().unwrap();
    let stored = format!("otlp: {{ sending_queue: {{ storage: {} }} }}", home.path().display());
    for config in ["", &stored] {
        for protocol in ["grpc", "http/json"] {
            let collector = Collector::start([]).await;
            let more = [
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
            ];
            let exporters = start(config, true, &collector, &more);
            offer(&exporters, 1_000);
            let requests = || {
                let all = collector.received();
                all.iter().filter(|it| !it.spans().iter().all(is_write)).count()
            };
            until_told(&collector, 100).await;
            let counts = shutdown(exporters).await;
            assert_eq!((requests(), writes(&collector).len()), (100, 100), "{config} {protocol}");
            assert_eq!((counts.produced, counts.exported), (1_100, 1_100), "{config} {protocol}");
            // Some at a time.
            let all = collector.received().len();
            assert!(all < 150, "{all} requests");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_written_too_and_nothing_is_told_where_that_is_not_wanted() {
    let metrics = [("OTEL_METRICS_EXPORTER", "otlp"), ("OTEL_METRIC_EXPORT_INTERVAL", "100")];
    let collector = Collector::start([]).await;
    let exporters = start("", true, &collector, &metrics);
    until_told(&collector, 2).await;
    shutdown(exporters).await;
    for write in writes(&collector) {
        let said = attributes(&write);
        assert_eq!(
            (&*said["tap.eventstore.signal"], &*said["tap.eventstore.result"]),
            ("metrics", "ok")
        );
        assert_ne!(said["tap.eventstore.batch.items"], "0");
    }
    let collector = Collector::start([]).await;
    let exporters = start("", false, &collector, &metrics);
    offer(&exporters, 10);
    let began = Instant::now();
    while collector.received().len() < 20 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counts = shutdown(exporters).await;
    assert_eq!((counts.produced, writes(&collector).len()), (10, 0));
}
