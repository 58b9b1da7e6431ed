//! Several exporters at once, against collectors in this process: each has its own, and none waits
//! for another.

mod support;

use std::{
    collections::HashSet,
    fs,
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use serde_json::Value;
use support::{
    collector::{Answer, Collector, acceptor, certificate},
    configuration, plain, try_start,
};
use tap_userspace::{connection::model::Connection, export::Exporters};

fn start(exporters: &str, pipelines: &str, variables: &[(&str, &str)]) -> Exporters {
    let mut all = vec![("OTEL_BSP_SCHEDULE_DELAY", "20")];
    all.extend(variables);
    try_start(&configuration(exporters, pipelines), &all).unwrap_or_else(|error| panic!("{error}"))
}

fn many(from: u64, count: u64) -> Vec<Connection> {
    (from..from + count).map(plain).collect()
}

async fn shutdown(exporters: Exporters) -> Value {
    let counters = exporters.counters();
    let told = exporters.shutdown(Instant::now() + Duration::from_secs(3)).await;
    for items in counters.items() {
        let counts = items.counts();
        assert!(counts.balance(), "{} {} {counts:?}", items.signal, items.exporter);
    }
    told
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_hangs_holds_no_other_back() {
    let home = tempfile::tempdir().unwrap();
    let fine = Collector::start([]).await;
    let hangs = Collector::start(std::iter::repeat_n(Answer::Hang, 1000)).await;
    let away = "127.0.0.1:9";
    let config = format!(
        "otlp: {{}}, otlp/hangs: {{ endpoint: '{}', tls: {{ insecure: true }}, timeout: 0s }}, \
         otlp/away: {{ endpoint: 'http://{away}' }}, otlphttp/stored: {{ endpoint: 'http://{away}', \
         sending_queue: {{ storage: {} }} }}",
        hangs.address,
        home.path().display()
    );
    let pipelines = "traces: { exporters: [otlp, otlp/hangs, otlp/away, otlphttp/stored] }";
    let endpoint = format!("http://{}", fine.address);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2000"),
    ];
    let exporters = start(&config, pipelines, &variables);
    for round in 0..10 {
        exporters.offer(many(100 * round, 100));
        // Each round arrives while the others hang.
        let wanted = 100 * (round as usize + 1);
        until("the spans to arrive", || fine.spans().len() == wanted).await;
    }
    let ids: HashSet<_> = fine.spans().iter().map(|span| span.span_id.clone()).collect();
    assert_eq!(ids.len(), 1000);
    let counters = exporters.counters();
    let names: Vec<_> = counters.items().iter().map(|items| items.exporter.to_string()).collect();
    assert_eq!(names, ["otlp", "otlp/hangs", "otlp/away", "otlphttp/stored"]);
    assert!(home.path().join("otlphttp%2Fstored-traces/lock").exists());
    let told = &shutdown(exporters).await["traces"];
    assert_eq!((&told["otlp"]["exported"], &told["otlp"]["held"]), (&1000.into(), &0.into()));
    for lost in ["otlp/hangs", "otlp/away"] {
        assert_eq!(told[lost]["produced"], 1000);
        assert_eq!(told[lost]["dropped"]["shutdown"], 1000, "{lost}: {told}");
    }
    assert_eq!(told["otlphttp/stored"]["queued"], 1000, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_exporter_serves_several_signals_and_metrics_go_to_several_exporters() {
    let (both, other) = (Collector::start([]).await, Collector::start([]).await);
    let config = format!(
        "otlp/both: {{ endpoint: 'http://{}', compression: none }}, otlphttp/other: {{ endpoint: \
         'http://{}', encoding: json }}",
        both.address, other.address
    );
    let pipelines = "traces: { exporters: [otlp/both] }, metrics: { exporters: [otlp/both, \
                     otlphttp/other] }";
    let delta = ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta");
    let exporters = start(&config, pipelines, &[delta, ("OTEL_METRIC_EXPORT_INTERVAL", "100")]);
    let family = tap_userspace::telemetry::metric::Family::counter("tap_late_total", "Late.");
    let late = exporters.registry().number(family, &[]);
    exporters.offer(many(0, 12));
    for _ in 0..5 {
        late.add(7);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let told = shutdown(exporters).await;
    assert_eq!(told["traces"]["otlp/both"]["exported"], 12);
    let received = both.received();
    let of_traces = received.iter().filter(|request| request.path.contains("trace"));
    assert_eq!(of_traces.flat_map(|request| request.spans()).count(), 12);
    // Each reading is told to both: the deltas add up at each.
    let of_metrics = |path: &str| path.contains("etrics");
    for collector in [&both, &other] {
        let received = collector.received();
        let received = received.iter().filter(|request| of_metrics(&request.path));
        let sum: i64 = received.map(|request| late_points(&request.metrics())).sum();
        assert_eq!(sum, 35);
    }
    let points = |name: &str| told["metrics"][name]["exported"].as_u64();
    assert_eq!(points("otlp/both"), points("otlphttp/other"));
    assert!(points("otlp/both") > Some(0), "{told}");
}

fn late_points(request: &ExportMetricsServiceRequest) -> i64 {
    use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
    let metrics = request.resource_metrics.iter().flat_map(|it| &it.scope_metrics);
    let late = metrics.flat_map(|it| &it.metrics).filter(|it| it.name == "tap_late_total");
    let points = late.flat_map(|metric| match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.as_slice(),
        other => panic!("{other:?}"),
    });
    points
        .map(|point| match point.value {
            Some(Value::AsInt(int)) => int,
            other => panic!("{other:?}"),
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_wait_on_disk_like_others() {
    let home = tempfile::tempdir().unwrap();
    let stored = |endpoint: &str| {
        format!(
            "otlphttp/m: {{ endpoint: 'http://{endpoint}', sending_queue: {{ storage: {} }}, \
             retry_on_failure: {{ initial_interval: 50ms }} }}",
            home.path().display()
        )
    };
    let pipelines = "metrics: { exporters: [otlphttp/m] }";
    let exporters = start(&stored("127.0.0.1:9"), pipelines, &[]);
    let first = &shutdown(exporters).await["metrics"]["otlphttp/m"];
    assert!(first["queued"].as_u64() > Some(0), "{first}");
    let collector = Collector::start([]).await;
    let exporters = start(&stored(&collector.address.to_string()), pipelines, &[]);
    let second = &shutdown(exporters).await["metrics"]["otlphttp/m"];
    assert_eq!((&second["recovered"], &second["queued"]), (&first["queued"], &0.into()));
    assert_eq!(second["dropped"]["shutdown"], 0, "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_as_the_file_says() {
    let (ca, other) = (certificate("ca.pem"), certificate("other.pem"));
    let (chain, key) = (certificate("client.pem"), certificate("client.key"));
    let identity = format!("cert_file: {chain}, key_file: {key}");
    let text = |path: &str| fs::read_to_string(path).unwrap().replace('\n', "\\n");
    let as_text = format!(
        "ca_pem: \"{}\", cert_pem: \"{}\", key_pem: \"{}\"",
        text(&ca),
        text(&chain),
        text(&key)
    );
    for (host, tls, works) in [
        ("127.0.0.1", format!("ca_file: {ca}, {identity}"), true),
        ("127.0.0.1", as_text, true),
        ("127.0.0.1", format!("ca_file: {ca}, {identity}, min_version: '1.3'"), true),
        ("127.0.0.1", format!("ca_file: {other}, {identity}"), false),
        ("127.0.0.1", format!("ca_file: {ca}"), false),
        // A name that is not in the certificate.
        ("127.0.0.2", format!("ca_file: {ca}, {identity}"), false),
        ("127.0.0.2", format!("ca_file: {ca}, {identity}, server_name_override: localhost"), true),
    ] {
        let any = format!("{host}:0").parse().unwrap();
        let collector = Collector::on(any, [], Some(acceptor())).await;
        for kind in ["otlp", "otlphttp"] {
            let config = format!(
                "{kind}/x: {{ endpoint: 'https://{}', tls: {{ {tls} }}, retry_on_failure: {{ \
                 enabled: false }} }}",
                collector.address
            );
            let exporters = start(&config, &format!("traces: {{ exporters: [{kind}/x] }}"), &[]);
            exporters.offer(many(0, 5));
            let counters = exporters.counters();
            let counts = || counters.items()[0].counts();
            until("an end", || counts().exported + counts().all_dropped() == 5).await;
            assert_eq!(counts().exported == 5, works, "{kind} {host} {tls}");
            shutdown(exporters).await;
        }
    }
}

/// The requests in a file, one a line.
fn requests(path: &Path) -> Vec<Value> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).unwrap();
    if path.extension().is_some_and(|end| end == "zst") {
        zstd::stream::read::Decoder::new(file).unwrap().read_to_end(&mut bytes).unwrap();
    } else {
        (&file).read_to_end(&mut bytes).unwrap();
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_holds_what_every_signal_sent() {
    let home = tempfile::tempdir().unwrap();
    for (name, more) in [("a.jsonl", ""), ("a.zst", ", compression: zstd")] {
        let path = home.path().join(name);
        let config =
            format!("file/archive: {{ path: {}, flush_interval: 50ms {more} }}", path.display());
        let pipelines = "traces: { exporters: [file/archive] }, logs: { exporters: [file/archive] }, \
                         metrics: { exporters: [file/archive] }";
        let (mut spans, mut points) = (HashSet::new(), 0);
        // A second process goes on behind the first.
        for round in 0..2 {
            let exporters = start(&config, pipelines, &[]);
            exporters.offer(many(round * 1000, 1000));
            let told = shutdown(exporters).await;
            assert_eq!(told["traces"]["file/archive"]["exported"], 1000, "{told}");
            points += told["metrics"]["file/archive"]["exported"].as_u64().unwrap();
        }
        let mut told = 0;
        for request in requests(&path) {
            if request.get("resourceSpans").is_some() {
                let request: ExportTraceServiceRequest = serde_json::from_value(request).unwrap();
                let scopes = request.resource_spans.into_iter().flat_map(|it| it.scope_spans);
                spans.extend(scopes.flat_map(|it| it.spans).map(|span| span.span_id));
            } else {
                let text = request.to_string();
                let request: ExportMetricsServiceRequest = serde_json::from_value(request).unwrap();
                assert!(!request.resource_metrics.is_empty(), "{text}");
                told += text.matches("\"timeUnixNano\"").count() as u64;
            }
        }
        assert_eq!((spans.len(), told), (2000, points), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_goes_costs_nothing_once_it_is_back() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("x");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("a.jsonl");
    let config = format!("file: {{ path: {}, flush_interval: 20ms }}", path.display());
    let exporters = start(&config, "traces: { exporters: [file] }", &[]);
    let counters = exporters.counters();
    let counts = || counters.items()[0].counts();
    exporters.offer(many(0, 5));
    until("the first", || counts().exported == 5).await;
    fs::remove_dir_all(&folder).unwrap();
    exporters.offer(many(5, 5));
    until("a refused write", || counts().held == 5).await;
    fs::create_dir(&folder).unwrap();
    until("the second", || counts().exported == 10).await;
    assert_eq!(requests(&path).len(), 1);
    shutdown(exporters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_is_told_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let config = |path: &str| {
        configuration(&format!("file: {{ path: {path} }}"), "traces: { exporters: [file] }")
    };
    let error = try_start(&config("/proc/nowhere/a.jsonl"), &[]).err().unwrap().to_string();
    assert!(error.contains("/proc/nowhere/a.jsonl cannot be written"), "{error}");
    let config = config(&home.path().join("a.jsonl").display().to_string());
    let first = try_start(&config, &[]).unwrap();
    let error = try_start(&config, &[]).err().unwrap().to_string();
    assert!(error.contains("another tap writes to"), "{error}");
    shutdown(first).await;
}
