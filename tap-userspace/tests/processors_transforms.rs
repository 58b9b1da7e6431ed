//! Pipelines whose processors change items, against collectors in this process: what arrives, and what is counted.

mod support;

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    metrics::v1::metric::Data,
};
use prost::Message as _;
use serde_json::Value;
use support::{collector::Collector, plain, processing, try_start};
use tap_userspace::{connection::model::Connection, export::Exporters};

fn start(exporters: &str, processors: &str, pipelines: &str) -> Exporters {
    let config = processing(exporters, processors, pipelines);
    let variables = [("OTEL_BSP_SCHEDULE_DELAY", "20"), ("OTEL_METRIC_EXPORT_INTERVAL", "100000")];
    try_start(&config, &variables).unwrap_or_else(|e| panic!("{e}"))
}

fn many(count: u64) -> Vec<Connection> {
    (0..count).map(plain).collect()
}

async fn shutdown(exporters: Exporters) -> Value {
    let counters = exporters.counters();
    let told = exporters.shutdown(Instant::now() + Duration::from_secs(3)).await;
    for items in counters.items() {
        let counts = items.counts();
        assert!(counts.balance(), "{} {} {counts:?}", items.signal, items.exporter);
        assert_eq!(counts.held + counts.queued, 0, "{} {counts:?}", items.exporter);
    }
    told
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|it| it.key == key)?.value.as_ref()?;
    match found.value.as_ref()? {
        Any::StringValue(text) => Some(text),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_arrive_as_the_processors_leave_them() {
    let (changed, direct) = (Collector::start([]).await, Collector::start([]).await);
    let config = format!(
        "otlp/changed: {{ endpoint: 'http://{}' }}, otlp/direct: {{ endpoint: 'http://{}' }}",
        changed.address, direct.address
    );
    let processors = r#"
        resource: { attributes: [{ key: zone, value: z, action: insert }] },
        attributes: { include: { match_type: strict, services: [tap] }, actions: [
            { key: process.command_args, action: delete },
            { key: connection.cookie, action: convert, converted_type: string },
            { key: process.executable.path, pattern: "/(?P<last>[^/]*)$", action: extract }] },
        transform: { trace_statements: ['set(span.name, "Tap " + span.name)',
            'set(spanevent.attributes["of"], span.name) where spanevent.name == "OpenEvent"'] },
        redaction: { allow_all_keys: true, blocked_values: ['^192\.168\..*'], summary: debug },
        group_by_attrs: { keys: [process.owner] }"#;
    let pipelines = "traces: { processors: [resource, attributes, transform, redaction, \
                     group_by_attrs], exporters: [otlp/changed] }, \
                     traces/direct: { exporters: [otlp/direct] }";
    let exporters = start(&config, processors, pipelines);
    exporters.offer(many(1000));
    let told = shutdown(exporters).await;
    for exporter in ["otlp/changed", "otlp/direct"] {
        assert_eq!(told["traces"][exporter]["exported"], 1000, "{told}");
    }
    assert_eq!((changed.spans().len(), direct.spans().len()), (1000, 1000));
    for received in changed.received() {
        let request = ExportTraceServiceRequest::decode(&*received.body).unwrap();
        // All of one resource, and in one scope.
        assert_eq!(request.resource_spans.len(), 1);
        assert_eq!(request.resource_spans[0].scope_spans.len(), 1);
        let resource = &request.resource_spans[0].resource.as_ref().unwrap().attributes;
        assert_eq!(text(resource, "zone"), Some("z"));
        assert_eq!(text(resource, "process.owner"), Some("root"));
    }
    let before = direct.spans();
    for span in changed.spans() {
        let same = before.iter().find(|it| it.span_id == span.span_id).unwrap();
        assert_eq!((&*span.name, &*same.name), ("Tap Connection", "Connection"));
        let of = |key| text(&span.attributes, key);
        assert_eq!((of("last"), of("process.owner")), (Some("curl"), None));
        assert!(of("connection.cookie").is_some_and(|cookie| cookie.parse::<u64>().is_ok()));
        assert_eq!(of("server.address"), Some("****"));
        assert!(of("redaction.masked.keys").unwrap().contains("server.address"));
        assert!(span.attributes.iter().all(|it| it.key != "process.command_args"));
        assert_eq!(text(&span.events[0].attributes, "of"), Some("Tap Connection"));
        assert_eq!(span.events.len(), same.events.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_points_are_changed_and_those_that_are_filtered_are_counted() {
    let (changed, direct) = (Collector::start([]).await, Collector::start([]).await);
    let config = format!(
        "otlp/changed: {{ endpoint: 'http://{}' }}, otlp/direct: {{ endpoint: 'http://{}' }}",
        changed.address, direct.address
    );
    let processors = r#"
        batch: {},
        filter: { metrics: { datapoint: ['attributes["signal"] == "metrics"'] } },
        resource: { attributes: [{ key: zone, value: z, action: insert }] },
        attributes: { actions: [{ key: host, value: h, action: upsert }] }"#;
    let pipelines = "metrics: { processors: [filter, resource, attributes, batch], exporters: \
                     [otlp/changed] }, metrics/direct: { exporters: [otlp/direct] }";
    let exporters = start(&config, processors, pipelines);
    let told = shutdown(exporters).await;
    let of = |exporter: &str, term: &str| told["metrics"][exporter][term].as_u64().unwrap();
    assert!(of("otlp/changed", "filtered") > 0, "{told}");
    assert_eq!(of("otlp/changed", "produced"), of("otlp/direct", "produced"));
    assert_eq!(
        of("otlp/changed", "exported") + of("otlp/changed", "filtered"),
        of("otlp/direct", "exported")
    );
    let mut points = 0;
    for received in changed.received() {
        for of in received.metrics().resource_metrics {
            assert_eq!(text(&of.resource.unwrap().attributes, "zone"), Some("z"));
            for metric in of.scope_metrics.into_iter().flat_map(|of| of.metrics) {
                let found: Vec<Vec<KeyValue>> = match metric.data.unwrap() {
                    Data::Gauge(of) => of.data_points.into_iter().map(|it| it.attributes).collect(),
                    Data::Sum(of) => of.data_points.into_iter().map(|it| it.attributes).collect(),
                    Data::Histogram(of) => {
                        of.data_points.into_iter().map(|it| it.attributes).collect()
                    }
                    other => panic!("{other:?}"),
                };
                points += found.len() as u64;
                for attributes in found {
                    assert_eq!(text(&attributes, "host"), Some("h"));
                    assert_ne!(text(&attributes, "signal"), Some("metrics"));
                }
            }
        }
    }
    assert_eq!(points, of("otlp/changed", "exported"));
}
