//! Metrics, and what is exported where nothing is asked for.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn metrics_go_by_otlp_too() {
    use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
    for protocol in PROTOCOLS {
        let collector = Collector::start([TAKE]).await;
        let more = [("OTEL_METRICS_EXPORTER", "otlp"), ("OTEL_METRIC_EXPORT_INTERVAL", "100")];
        let exporters = start_to(&url(&collector), protocol, &more);
        let family = tap_userspace::telemetry::metric::Family::counter("tap_late_total", "Late.");
        exporters.registry().number(family, &[]).add(5);
        exporters.offer(many(12));
        shutdown(exporters).await;
        let path = match protocol {
            "grpc" => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            _ => "/v1/metrics",
        };
        let received = collector.received();
        let last = received.iter().rfind(|request| request.path == path).unwrap().metrics();
        let metrics = &last.resource_metrics[0].scope_metrics[0].metrics;
        let value = |name: &str| {
            let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
            let points = match metric.data.as_ref().unwrap() {
                Data::Sum(sum) => {
                    assert!(sum.is_monotonic);
                    &sum.data_points
                }
                Data::Gauge(gauge) => &gauge.data_points,
                other => panic!("{other:?}"),
            };
            match points[0].value.unwrap() {
                Value::AsInt(int) => int,
                Value::AsDouble(double) => panic!("{double}"),
            }
        };
        for (name, expected) in [
            ("tap_items_produced_total", 12),
            ("tap_items_exported_total", 12),
            ("tap_items_queued_total", 0),
            ("tap_late_total", 5),
        ] {
            assert_eq!(value(name), expected, "{protocol} {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_accounted_for_whatever_the_collector_does() {
    let metrics = |collector: &Collector, more: &[(&str, &str)]| {
        let more = [&[("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "otlp")], more];
        let endpoint = url(collector);
        let mut variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
        variables.extend(more.concat());
        let exporters = start(&variables);
        let family = tap_userspace::telemetry::metric::Family::counter("tap_late_total", "Late.");
        exporters.registry().number(family, &[]).add(5);
        exporters
    };
    // One reading, when tap leaves; what is left of all its points is exported.
    for (answer, rejected, dropped) in [
        (TAKE, Some(0), false),
        (Answer::Status(503, None), Some(0), false),
        (Answer::Take { rejected: 2, message: "too old" }, Some(2), false),
        (Answer::Status(400, None), None, false),
        (Answer::Hang, Some(0), true),
    ] {
        let collector = Collector::start([answer.clone()]).await;
        let exporters = metrics(&collector, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "6000")]);
        let counts = shutdown(exporters).await;
        let all = counts.produced;
        assert!(all > 2, "{counts:?}");
        let rejected = rejected.unwrap_or(all);
        let lost = if dropped { all } else { 0 };
        let expected = (all - rejected - lost, rejected, lost);
        assert_eq!(
            (counts.exported, counts.rejected, counts.all_dropped()),
            expected,
            "{answer:?}"
        );
    }
    // A collector that is slow for too long costs a reading, and the next is told.
    let collector = Collector::start([Answer::Hang]).await;
    let soon = [("OTEL_METRIC_EXPORT_INTERVAL", "50"), ("OTEL_METRIC_EXPORT_TIMEOUT", "100")];
    let exporters = metrics(&collector, &soon);
    until(&exporters, |counts| counts.all_dropped() > 0 && counts.exported > 0).await;
    shutdown(exporters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_exported_where_nothing_is_asked_for() {
    for variables in [
        &[("OTEL_TRACES_EXPORTER", "none")][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")],
        &[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_SDK_DISABLED", "true")],
    ] {
        let exporters = start(variables);
        exporters.offer(many(3));
        assert!(exporters.counters().items().is_empty(), "{variables:?}");
    }
}
