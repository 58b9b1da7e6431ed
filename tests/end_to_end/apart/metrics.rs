//! Metrics of traffic against the server's own log, as text, by OTLP, and as Prometheus keeps them.

use std::{collections::BTreeMap, fs, io::Write, net::SocketAddr, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    process::Process,
    programs::{command, nginx::Nginx, output},
    receiver::{Number, Point, Protocol, Receiver},
    stage::{Session, apart},
    tap::{Launch, Tap, free_port},
    wait::{self, PATIENCE},
};

/// How many requests there were of a method and status.
type Counts = BTreeMap<(String, u16), u64>;

/// Asks for things that nginx answers in different ways; what it logged of them. The port of each
/// of curl's connections.
fn ask(nginx: &Nginx) -> Result<(Counts, u64)> {
    fs::write(nginx.root().join("small"), "hello")?;
    fs::write(nginx.root().join("large"), vec![b'n'; 300_000])?;
    let to = nginx.http;
    let mut curl = command("curl", "curl")?;
    let kinds: [&[&str]; 7] = [
        &["small"],
        &["small"],
        &["large"],
        &["none"],
        &["large", "--head"],
        &["small", "--data", "x=y"],
        &["small", "--request", "BREW"],
    ];
    for (number, kind) in kinds.iter().enumerate() {
        curl.args((number > 0).then_some("--next"));
        curl.args(["--silent", "--noproxy", "*", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{local_port}\n"]);
        curl.args(&kind[1..]).arg(format!("http://{to}/{}", kind[0]));
    }
    let ports = output(&mut curl)?;
    let mut ports: Vec<u16> = ports.lines().filter_map(|line| line.trim().parse().ok()).collect();
    ensure!(ports.len() == kinds.len(), "{ports:?}");
    let (mut counts, mut bodies) = (Counts::new(), 0);
    while let Some(port) = ports.first().copied() {
        let each = ports.iter().filter(|it| **it == port).count();
        ports.retain(|it| *it != port);
        for request in nginx.requests(port, each)? {
            let known = ["GET", "HEAD", "POST"].contains(&request.method.as_str());
            let method = if known { request.method } else { "_OTHER".to_owned() };
            *counts.entry((method, request.status)).or_default() += 1;
            bodies += request.body;
        }
    }
    Ok((counts, bodies))
}

/// Counts of a histogram on `/metrics` for the server at `to`.
fn on_metrics(tap: &Tap, side: &str, to: SocketAddr, logged: &Counts) -> Result<Counts> {
    let metrics = tap.metrics()?;
    let name = format!("http_{side}_request_duration_seconds_count");
    let port = format!("server_port=\"{}\"", to.port());
    let all = metrics.count(&name, &[&port]);
    let mut counts = Counts::new();
    for (method, status) in logged.keys() {
        let (a, b) = (
            format!("http_request_method=\"{method}\""),
            format!("http_response_status_code=\"{status}\""),
        );
        counts.insert((method.clone(), *status), metrics.count(&name, &[&a, &b, &port]));
    }
    ensure!(all == counts.values().sum::<u64>(), "more than was logged: {all}");
    Ok(counts)
}

/// Counts of points of the server at `to`, those of later ones in the place of earlier ones where
/// they are cumulative.
fn of_points(points: &[Point], to: SocketAddr) -> (Counts, f64) {
    let (mut counts, mut sums) = (BTreeMap::new(), BTreeMap::new());
    for point in points {
        let attributes = &point.attributes;
        if attributes.int("server.port") != Some(i64::from(to.port())) {
            continue;
        }
        let status = attributes.int("http.response.status_code").unwrap_or(0) as u16;
        let method = attributes.str("http.request.method").unwrap_or("").to_owned();
        let key = (method, status);
        let (Number::Explicit(count, sum) | Number::Exponential(count, sum)) = point.number else {
            panic!("{point:?}")
        };
        if point.delta {
            *counts.entry(key.clone()).or_default() += count;
            *sums.entry(key).or_default() += sum;
        } else {
            counts.insert(key.clone(), count);
            sums.insert(key, sum);
        }
    }
    (counts, sums.values().sum())
}

fn exporting(receiver: &Receiver, protocol: Protocol) -> Launch {
    Launch::new()
        .exporting(receiver, protocol)
        .env("OTEL_METRICS_EXPORTER", "otlp")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "300")
}

const AGGREGATION: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
const TEMPORALITY: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";

#[test]
fn requests_are_counted_as_nginx_counts_them() {
    apart(|| {
        let nginx = Nginx::start()?;
        for (protocol, variables) in [
            (Protocol::HttpProtobuf, &[][..]),
            (
                Protocol::Grpc,
                &[(AGGREGATION, "base2_exponential_bucket_histogram"), (TEMPORALITY, "delta")],
            ),
        ] {
            let receiver = Receiver::start()?;
            let mut launch = exporting(&receiver, protocol);
            for (name, value) in variables {
                launch = launch.env(name, value);
            }
            let tap = launch.start()?;
            let (logged, bodies) = ask(&nginx)?;
            for side in ["client", "server"] {
                let name = format!("http.{side}.request.duration");
                wait::until_true("all requests in the metrics", PATIENCE, || {
                    let shown = on_metrics(&tap, side, nginx.http, &logged);
                    let told = of_points(&receiver.points(&name), nginx.http).0;
                    shown.is_ok_and(|shown| shown == logged) && told == logged
                })
                .with_context(|| {
                    let shown = on_metrics(&tap, side, nginx.http, &logged);
                    let told = of_points(&receiver.points(&name), nginx.http);
                    format!("{side}: {logged:?}, shown {shown:?}, told {told:?}")
                })?;
                let points = receiver.points(&name);
                for point in &points {
                    let exponential = matches!(point.number, Number::Exponential(..));
                    assert_eq!(exponential, !variables.is_empty());
                    assert_eq!(point.delta, !variables.is_empty());
                    assert_eq!((&*point.unit, &*point.scope), ("s", "tap.http"));
                    assert!(point.time_ns.0 <= point.time_ns.1, "{point:?}");
                }
                let body = receiver.points(&format!("http.{side}.response.body.size"));
                assert_eq!(of_points(&body, nginx.http).1, bodies as f64, "{side}");
            }
            // Exemplars lead to spans.
            let points = receiver.points("http.server.request.duration");
            let exemplar = points.iter().flat_map(|it| &it.exemplars).next().context("none")?;
            receiver.wait_for("the exemplar's span", 1, PATIENCE, |it| it.trace_id == *exemplar)?;
            // Numbers of tap's own come the same way, and the books hold for points as well.
            assert!(!receiver.points("tap_records_seen_total").is_empty());
            assert!(!receiver.points("tap.connection.closed").is_empty());
            let receiver = Session { tap, receiver }.finish_with(|accounting| {
                let points = &accounting.items["metrics/otlp"];
                assert!(points["produced"] > 0 && points["produced"] == points["exported"]);
            })?;
            let opened = receiver.points("tap.connection.opened");
            assert!(opened.iter().map(|it| it.number.count()).sum::<u64>() >= 2, "{opened:?}");
        }
        Ok(())
    });
}

#[test]
fn without_an_exporter_of_metrics_no_exchange_is_read() {
    apart(|| {
        let nginx = Nginx::start()?;
        let receiver = Receiver::start()?;
        let tap = Launch::new().exporting(&receiver, Protocol::Grpc).start()?;
        ask(&nginx)?;
        // Connections are shown: they are read anyhow.
        wait::until_true("the connections", PATIENCE, || {
            tap.metrics().is_ok_and(|it| it.count("tap_connection_closed_total", &["curl"]) > 0)
        })?;
        assert!(!tap.get("/metrics")?.body.contains("http_server_request_duration"));
        Session { tap, receiver }.finish().map(drop)
    });
}

#[test]
fn prometheus_keeps_what_is_shown_and_finds_nothing_wrong_with_it() {
    apart(|| {
        let nginx = Nginx::start()?;
        let receiver = Receiver::start()?;
        let admin = format!("127.0.0.1:{}", free_port()?);
        let tap = Launch::new()
            .exporting(&receiver, Protocol::Grpc)
            .env("OTEL_METRICS_EXPORTER", "prometheus")
            .admin(&admin)
            .start()?;
        let prometheus = Prometheus::start(&admin)?;
        let (logged, _) = ask(&nginx)?;
        let query = format!(
            "sum by (http_request_method, http_response_status_code) \
             (http_server_request_duration_seconds_count{{server_port=\"{}\"}})",
            nginx.http.port()
        );
        let kept = wait::until("Prometheus to have it all", PATIENCE, || {
            let kept = prometheus.counts(&query).ok()?;
            (kept.values().sum::<u64>() >= logged.values().sum()).then_some(kept)
        })
        .with_context(|| prometheus.process.stderr.text())?;
        assert_eq!(kept, logged);
        let trace_id = prometheus.exemplar("http_server_request_duration_seconds_bucket")?;
        receiver.wait_for("the exemplar's span", 1, PATIENCE, |it| it.trace_id == trace_id)?;
        judge(&tap.get("/metrics")?.body)?;
        Session { tap, receiver }.finish().map(drop)
    });
}

/// `promtool` reads all of it, and complains of nothing but the names that are as they are.
fn judge(text: &str) -> Result<()> {
    let mut promtool = command("promtool", "prometheus")?;
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn()?;
    child.stdin.take().context("a pipe")?.write_all(text.as_bytes())?;
    let ended = child.wait_with_output()?;
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let accepted = ["tap_records_in_ring_total", "tap_items_held_total", "tap_items_queued_total"];
    let others: Vec<_> =
        said.lines().filter(|line| !accepted.iter().any(|name| line.starts_with(name))).collect();
    assert!(others.is_empty(), "{others:?}");
    // 3 is what it leaves with where it has complained at all.
    assert_eq!(ended.status.code(), Some(3), "{said}");
    Ok(())
}

/// A Prometheus that scrapes tap.
struct Prometheus {
    process: Process,
    address: String,
    _home: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let config = home.path().join("prometheus.yml");
        let yaml = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             scrape_configs: [{{ job_name: tap, static_configs: [{{ targets: [\"{target}\"] }}] }}]\n"
        );
        fs::write(&config, yaml)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut prometheus = command("prometheus", "prometheus")?;
        prometheus.arg(format!("--config.file={}", config.display()));
        prometheus.arg(format!("--storage.tsdb.path={}", home.path().join("data").display()));
        prometheus.arg(format!("--web.listen-address={address}"));
        prometheus.arg("--enable-feature=exemplar-storage");
        let process = Process::start(prometheus)?;
        let this = Self { process, address, _home: home };
        wait::until_true("Prometheus to be up", PATIENCE, || this.query("query", "up").is_ok())
            .with_context(|| this.process.stderr.text())?;
        Ok(this)
    }

    fn query(&self, what: &str, query: &str) -> Result<Value> {
        let mut curl = command("curl", "curl")?;
        curl.args(["--silent", "--fail", "--noproxy", "*", "--get"]);
        curl.arg("--data-urlencode").arg(format!("query={query}"));
        if what == "query_exemplars" {
            curl.args(["--data", "start=0", "--data", "end=9999999999"]);
        }
        curl.arg(format!("http://{}/api/v1/{what}", self.address));
        let mut answer: Value = serde_json::from_str(&output(&mut curl)?)?;
        Ok(answer["data"].take())
    }

    fn counts(&self, query: &str) -> Result<Counts> {
        let data = self.query("query", query)?;
        let mut counts = Counts::new();
        for series in data["result"].as_array().context("no result")? {
            let label = |name: &str| series["metric"][name].as_str().unwrap_or("").to_owned();
            let key = (label("http_request_method"), label("http_response_status_code").parse()?);
            let value = series["value"][1].as_str().context("no value")?;
            counts.insert(key, value.parse()?);
        }
        Ok(counts)
    }

    fn exemplar(&self, name: &str) -> Result<String> {
        let data = self.query("query_exemplars", name)?;
        let id = &data[0]["exemplars"][0]["labels"]["trace_id"];
        Ok(id.as_str().with_context(|| format!("no exemplar: {data}"))?.to_owned())
    }
}

/// Runs of the kernel program `name` of the only tap there is, as bpftool tells them.
fn runs_by_bpftool(name: &str) -> Result<u64> {
    let mut bpftool = command("bpftool", "bpftool")?;
    let programs: Value = serde_json::from_str(&output(bpftool.args(["--json", "prog", "show"]))?)?;
    let found = programs.as_array().into_iter().flatten().find(|it| it["name"] == name);
    found.and_then(|it| it["run_cnt"].as_u64()).with_context(|| format!("no runs of {name}"))
}

#[test]
fn programs_and_maps_are_told_as_the_kernel_counts_them() {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
    apart(|| {
        let before = fs::read_to_string(SWITCH)?;
        let tap = Launch::new().start()?;
        let runs = |tap: &Tap| -> Result<u64> {
            Ok(tap.metrics()?.count("tap_program_runs_total", &["program=\"tap_egress\""]))
        };
        // Whatever ran before the switch was on is not counted, and not told.
        let off = runs(&tap);
        fs::write(SWITCH, "1")?;
        let counted = (|| {
            let nginx = Nginx::start()?;
            ask(&nginx)?;
            let least = runs_by_bpftool("tap_egress")?;
            let told = runs(&tap)?;
            let most = runs_by_bpftool("tap_egress")?;
            anyhow::Ok((least, told, most))
        })();
        fs::write(SWITCH, &before)?;
        if before.trim() == "0" {
            assert_eq!(off?, 0);
        }
        let (least, told, most) = counted?;
        assert!(0 < least && least <= told && told <= most, "{least} {told} {most}");
        let metrics = tap.metrics()?;
        for (name, label) in [
            ("tap_program_run_nanoseconds_total", "program=\"tap_egress\""),
            ("tap_program_memory_bytes", "program=\"tap_sock_ops\""),
            ("tap_map_memory_bytes", "map=\"LIFE\""),
        ] {
            assert!(metrics.count(name, &[label]) > 0, "{name}");
        }
        // Bytes of the ring, as configured by default.
        assert_eq!(metrics.count("tap_map_max_entries", &["map=\"LIFE\""]), 16 << 20);
        tap.stop()?.check().map(drop)
    });
}
