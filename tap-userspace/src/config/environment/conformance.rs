//! The specification's whole table of variables (fixtures/semconv/env.json) and those of its OTLP
//! exporter, one row per variable and value: what each changes, and what is warned about.

use std::collections::BTreeSet;

use super::*;

/// A variable, its value, every setting that it changes, and a piece of the warning, if there is one. A
/// `*` in a variable stands for all signals and then for each; `@` for the signals that it
/// concerns.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("OTEL_SDK_DISABLED", "true", "disabled=true traces.exporters=[] logs.exporters=[] metrics.exporters=[]", ""),
    ("OTEL_SDK_DISABLED", "TRUE", "disabled=true traces.exporters=[] logs.exporters=[] metrics.exporters=[]", ""),
    ("OTEL_SDK_DISABLED", "false", "", ""),
    ("OTEL_SDK_DISABLED", "1", "", "neither true nor false"),
    ("OTEL_SDK_DISABLED", "yes", "", "neither true nor false"),
    ("OTEL_ENTITIES", "service{service.name=x}", "", "not supported: "),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b", "resource=a:b;", ""),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=d%2Ce", "resource=a:b;c:d,e;", ""),
    ("OTEL_RESOURCE_ATTRIBUTES", "a", "", "not of the form key=value"),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz", "", "not of the form key=value"),
    ("OTEL_SERVICE_NAME", "shop", "service=shop", ""),
    ("OTEL_LOG_LEVEL", "info", "", ""),
    ("OTEL_LOG_LEVEL", "debug", "", ""),
    ("OTEL_LOG_LEVEL", "warn", "", ""),
    ("OTEL_LOG_LEVEL", "error", "", ""),
    ("OTEL_LOG_LEVEL", "INFO", "", ""),
    ("OTEL_LOG_LEVEL", "loud", "", "not known; allowed"),
    ("OTEL_PROPAGATORS", "tracecontext", "", ""),
    ("OTEL_PROPAGATORS", "baggage", "", ""),
    ("OTEL_PROPAGATORS", "tracecontext,baggage", "", ""),
    ("OTEL_PROPAGATORS", "b3", "", "tap reads traceparent"),
    ("OTEL_PROPAGATORS", "b3multi", "", "tap reads traceparent"),
    ("OTEL_PROPAGATORS", "jaeger", "", "tap reads traceparent"),
    ("OTEL_PROPAGATORS", "xray", "", "tap reads traceparent"),
    ("OTEL_PROPAGATORS", "ottrace", "", "tap reads traceparent"),
    ("OTEL_PROPAGATORS", "none", "", ""),
    ("OTEL_PROPAGATORS", "pigeon", "", "tap reads traceparent"),
    ("OTEL_PROPAGATORS", "TraceContext", "", ""),
    ("OTEL_TRACES_SAMPLER", "always_on", "", ""),
    ("OTEL_TRACES_SAMPLER", "always_off", "sampler=AlwaysOff", ""),
    ("OTEL_TRACES_SAMPLER", "traceidratio", "sampler=TraceIdRatio(1.0)", ""),
    ("OTEL_TRACES_SAMPLER", "parentbased_always_on", "", ""),
    ("OTEL_TRACES_SAMPLER", "parentbased_always_off", "sampler=AlwaysOff", ""),
    ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio", "sampler=TraceIdRatio(1.0)", ""),
    ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote", "", "not known; allowed"),
    ("OTEL_TRACES_SAMPLER", "jaeger_remote", "", "not known; allowed"),
    ("OTEL_TRACES_SAMPLER", "xray", "", "not known; allowed"),
    ("OTEL_TRACES_SAMPLER", "sometimes", "", "not known; allowed"),
    ("OTEL_TRACES_SAMPLER", "Always_Off", "sampler=AlwaysOff", ""),
    ("OTEL_TRACES_SAMPLER_ARG", "0.5", "", ""),
    ("OTEL_BSP_SCHEDULE_DELAY", "250", "bsp.delay=250ms", ""),
    ("OTEL_BSP_SCHEDULE_DELAY", "0", "bsp.delay=0ns", ""),
    ("OTEL_BSP_SCHEDULE_DELAY", "-1", "", "not a duration"),
    ("OTEL_BSP_SCHEDULE_DELAY", "soon", "", "not a duration"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "250", "bsp.timeout=Some(250ms)", ""),
    ("OTEL_BSP_EXPORT_TIMEOUT", "0", "bsp.timeout=None", ""),
    ("OTEL_BSP_EXPORT_TIMEOUT", "-1", "", "not a duration"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "soon", "", "not a duration"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "bsp.queue=2048", ""),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "7", "bsp.queue=7 bsp.batch=7", ""),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "", "not a number"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "", "not a number"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "", "not a number"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "7", "bsp.batch=7", ""),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0", "", "not a number"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000", "bsp.batch=65536", "more than the queue holds"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1", "", "not a number"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many", "", "not a number"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "250", "blrp.delay=250ms", ""),
    ("OTEL_BLRP_SCHEDULE_DELAY", "0", "blrp.delay=0ns", ""),
    ("OTEL_BLRP_SCHEDULE_DELAY", "-1", "", "not a duration"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "soon", "", "not a duration"),
    ("OTEL_BLRP_EXPORT_TIMEOUT", "250", "blrp.timeout=Some(250ms)", ""),
    ("OTEL_BLRP_EXPORT_TIMEOUT", "0", "blrp.timeout=None", ""),
    ("OTEL_BLRP_EXPORT_TIMEOUT", "-1", "", "not a duration"),
    ("OTEL_BLRP_EXPORT_TIMEOUT", "soon", "", "not a duration"),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "2048", "blrp.queue=2048", ""),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "7", "blrp.queue=7 blrp.batch=7", ""),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "0", "", "not a number"),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "-1", "", "not a number"),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "many", "", "not a number"),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "7", "blrp.batch=7", ""),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "0", "", "not a number"),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "100000", "blrp.batch=65536", "more than the queue holds"),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "-1", "", "not a number"),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "many", "", "not a number"),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9", "span.length=Some(9) log.length=Some(9)", ""),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0", "span.length=Some(0) log.length=Some(0)", ""),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "", "not a number"),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "x", "", "not a number"),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "9", "span.attributes=9 log.attributes=9", ""),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "0", "span.attributes=0 log.attributes=0", ""),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1", "", "not a number"),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "x", "", "not a number"),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9", "span.length=Some(9)", ""),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0", "span.length=Some(0)", ""),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "", "not a number"),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "x", "", "not a number"),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "9", "span.attributes=9", ""),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0", "span.attributes=0", ""),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", "", "not a number"),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "x", "", "not a number"),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "9", "span.events=9", ""),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "0", "span.events=0", ""),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-1", "", "not a number"),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "x", "", "not a number"),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "9", "span.links=9", ""),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "0", "span.links=0", ""),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1", "", "not a number"),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "x", "", "not a number"),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "9", "span.event_attributes=9", ""),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "0", "span.event_attributes=0", ""),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "-1", "", "not a number"),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "x", "", "not a number"),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "9", "span.link_attributes=9", ""),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "0", "span.link_attributes=0", ""),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "-1", "", "not a number"),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "x", "", "not a number"),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9", "log.length=Some(9)", ""),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0", "log.length=Some(0)", ""),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "", "not a number"),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "x", "", "not a number"),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "9", "log.attributes=9", ""),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "0", "log.attributes=0", ""),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "-1", "", "not a number"),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "x", "", "not a number"),
    ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "http://z:9411", "", "not supported: "),
    ("OTEL_EXPORTER_ZIPKIN_TIMEOUT", "7", "", "not supported: "),
    ("OTEL_EXPORTER_PROMETHEUS_HOST", "h", "", "not supported: "),
    ("OTEL_EXPORTER_PROMETHEUS_PORT", "9464", "", "not supported: "),
    ("OTEL_TRACES_EXPORTER", "otlp", "", ""),
    ("OTEL_TRACES_EXPORTER", "console", "traces.exporters=[Console]", ""),
    ("OTEL_TRACES_EXPORTER", "logging", "traces.exporters=[Console]", ""),
    ("OTEL_TRACES_EXPORTER", "none", "traces.exporters=[]", ""),
    ("OTEL_TRACES_EXPORTER", "otlp,console", "traces.exporters=[Otlp, Console]", ""),
    ("OTEL_TRACES_EXPORTER", "otlp,none", "", ""),
    ("OTEL_TRACES_EXPORTER", "zipkin", "traces.exporters=[]", "not an exporter of tap's"),
    ("OTEL_TRACES_EXPORTER", "prometheus", "traces.exporters=[]", "not an exporter of tap's"),
    ("OTEL_TRACES_EXPORTER", "jaeger", "traces.exporters=[]", "not an exporter of tap's"),
    ("OTEL_TRACES_EXPORTER", "OTLP,Console", "traces.exporters=[Otlp, Console]", ""),
    ("OTEL_METRICS_EXPORTER", "otlp", "", ""),
    ("OTEL_METRICS_EXPORTER", "console", "metrics.exporters=[Console]", ""),
    ("OTEL_METRICS_EXPORTER", "logging", "metrics.exporters=[Console]", ""),
    ("OTEL_METRICS_EXPORTER", "none", "metrics.exporters=[]", ""),
    ("OTEL_METRICS_EXPORTER", "otlp,console", "metrics.exporters=[Otlp, Console]", ""),
    ("OTEL_METRICS_EXPORTER", "otlp,none", "", ""),
    ("OTEL_METRICS_EXPORTER", "zipkin", "metrics.exporters=[]", "not an exporter of tap's"),
    ("OTEL_METRICS_EXPORTER", "prometheus", "metrics.exporters=[Prometheus]", ""),
    ("OTEL_METRICS_EXPORTER", "jaeger", "metrics.exporters=[]", "not an exporter of tap's"),
    ("OTEL_LOGS_EXPORTER", "otlp", "", ""),
    ("OTEL_LOGS_EXPORTER", "console", "logs.exporters=[Console]", ""),
    ("OTEL_LOGS_EXPORTER", "logging", "logs.exporters=[Console]", ""),
    ("OTEL_LOGS_EXPORTER", "none", "logs.exporters=[]", ""),
    ("OTEL_LOGS_EXPORTER", "otlp,console", "logs.exporters=[Otlp, Console]", ""),
    ("OTEL_LOGS_EXPORTER", "otlp,none", "", ""),
    ("OTEL_LOGS_EXPORTER", "zipkin", "logs.exporters=[]", "not an exporter of tap's"),
    ("OTEL_LOGS_EXPORTER", "prometheus", "logs.exporters=[]", "not an exporter of tap's"),
    ("OTEL_LOGS_EXPORTER", "jaeger", "logs.exporters=[]", "not an exporter of tap's"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "always_on", "metric.exemplars=AlwaysOn", ""),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off", "metric.exemplars=AlwaysOff", ""),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based", "", ""),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "some", "", "not known; allowed"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "500", "metric.interval=500ms", ""),
    ("OTEL_METRIC_EXPORT_INTERVAL", "0", "", "no interval"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "-1", "", "no interval"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "soon", "", "no interval"),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "500", "metric.timeout=Some(500ms)", ""),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "0", "metric.timeout=None", ""),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "-1", "", "not a duration"),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "soon", "", "not a duration"),
    ("OTEL_EXPERIMENTAL_CONFIG_FILE", "/x.yaml", "", "not supported: "),
    ("OTEL_CONFIG_FILE", "/x.yaml", "", "not supported: "),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1", "traces.endpoint=http://c:1/v1/traces logs.endpoint=http://c:1/v1/logs metrics.endpoint=http://c:1/v1/metrics", ""),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1/base", "traces.endpoint=http://c:1/base/v1/traces logs.endpoint=http://c:1/base/v1/logs metrics.endpoint=http://c:1/base/v1/metrics", ""),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c", "traces.endpoint=https://c/v1/traces logs.endpoint=https://c/v1/logs metrics.endpoint=https://c/v1/metrics", ""),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:1", "traces.endpoint=http://c:1/", ""),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:1/base", "traces.endpoint=http://c:1/base", ""),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c", "traces.endpoint=https://c/", ""),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:1", "logs.endpoint=http://c:1/", ""),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:1/base", "logs.endpoint=http://c:1/base", ""),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://c", "logs.endpoint=https://c/", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c:1", "metrics.endpoint=http://c:1/", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c:1/base", "metrics.endpoint=http://c:1/base", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://c", "metrics.endpoint=https://c/", ""),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "traces.protocol=grpc traces.endpoint=http://localhost:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export logs.protocol=grpc logs.endpoint=http://localhost:4317/opentelemetry.proto.collector.logs.v1.LogsService/Export metrics.protocol=grpc metrics.endpoint=http://localhost:4317/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", ""),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC", "traces.protocol=grpc traces.endpoint=http://localhost:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export logs.protocol=grpc logs.endpoint=http://localhost:4317/opentelemetry.proto.collector.logs.v1.LogsService/Export metrics.protocol=grpc metrics.endpoint=http://localhost:4317/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", ""),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", "traces.protocol=grpc traces.endpoint=http://localhost:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export", ""),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC", "traces.protocol=grpc traces.endpoint=http://localhost:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export", ""),
    ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc", "logs.protocol=grpc logs.endpoint=http://localhost:4317/opentelemetry.proto.collector.logs.v1.LogsService/Export", ""),
    ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "GRPC", "logs.protocol=grpc logs.endpoint=http://localhost:4317/opentelemetry.proto.collector.logs.v1.LogsService/Export", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc", "metrics.protocol=grpc metrics.endpoint=http://localhost:4317/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "GRPC", "metrics.protocol=grpc metrics.endpoint=http://localhost:4317/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", ""),
    ("OTEL_EXPORTER_OTLP_*PROTOCOL", "http/protobuf", "", ""),
    ("OTEL_EXPORTER_OTLP_*PROTOCOL", "http/json", "@.protocol=http/json", ""),
    ("OTEL_EXPORTER_OTLP_*PROTOCOL", "http", "", ""),
    ("OTEL_EXPORTER_OTLP_*PROTOCOL", "carrier-pigeon", "", "not known; allowed"),
    ("OTEL_EXPORTER_OTLP_*HEADERS", "a=b,C=d%20e", "@.headers=a:b;c:d e;", ""),
    ("OTEL_EXPORTER_OTLP_*HEADERS", "a b=c,d=e", "@.headers=d:e;", "is no HTTP header"),
    ("OTEL_EXPORTER_OTLP_*HEADERS", "secret", "", "not of the form key=value"),
    ("OTEL_EXPORTER_OTLP_*TIMEOUT", "2500", "@.timeout=Some(2.5s)", ""),
    ("OTEL_EXPORTER_OTLP_*TIMEOUT", "0", "@.timeout=None", ""),
    ("OTEL_EXPORTER_OTLP_*TIMEOUT", "-1", "", "not a duration"),
    ("OTEL_EXPORTER_OTLP_*TIMEOUT", "10s", "", "not a duration"),
    ("OTEL_EXPORTER_OTLP_*COMPRESSION", "gzip", "@.compression=Gzip", ""),
    ("OTEL_EXPORTER_OTLP_*COMPRESSION", "zstd", "@.compression=Zstd", ""),
    ("OTEL_EXPORTER_OTLP_*COMPRESSION", "none", "", ""),
    ("OTEL_EXPORTER_OTLP_*COMPRESSION", "br", "", "not known; allowed"),
    ("OTEL_EXPORTER_OTLP_*COMPRESSION", "GZIP", "@.compression=Gzip", ""),
    ("OTEL_EXPORTER_OTLP_*INSECURE", "true", "", ""),
    ("OTEL_EXPORTER_OTLP_*INSECURE", "false", "", ""),
    ("OTEL_EXPORTER_OTLP_*INSECURE", "maybe", "", "neither true nor false"),
    ("OTEL_EXPORTER_OTLP_*CERTIFICATE", "DIR/ca.pem", "@.roots=1", ""),
    ("OTEL_EXPORTER_OTLP_*CLIENT_CERTIFICATE", "DIR/client.pem", "", "not used without"),
    ("OTEL_EXPORTER_OTLP_*CLIENT_KEY", "DIR/client.key", "", "not used without"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative", "", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "metric.temporality=Delta", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "lowmemory", "metric.temporality=LowMemory", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "gamma", "", "not known; allowed"),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram", "", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram", "metric.aggregation=Exponential", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "drop", "", "not known; allowed"),
];

/// Every setting, by name.
fn settings(of: &Environment) -> Vec<(String, String)> {
    let mut all = vec![
        ("disabled".to_owned(), of.disabled().to_string()),
        ("service".to_owned(), of.service_name().unwrap_or_default().to_owned()),
        (
            "resource".to_owned(),
            of.resource().iter().map(|(key, value)| format!("{key}:{value};")).collect(),
        ),
        ("sampler".to_owned(), format!("{:?}", of.sampler())),
    ];
    let mut add = |of: &str, name: &str, value: String| all.push((format!("{of}.{name}"), value));
    for signal in Signal::ALL {
        let (otlp, name) = (of.otlp(signal), signal.lower());
        add(name, "exporters", format!("{:?}", of.exporters(signal)));
        add(name, "protocol", otlp.protocol.name().to_owned());
        add(name, "endpoint", otlp.endpoint.to_string());
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = otlp.headers.iter().map(|(key, value)| format!("{key}:{};", text(value)));
        add(name, "headers", headers.collect());
        add(name, "timeout", format!("{:?}", otlp.timeout));
        add(name, "compression", format!("{:?}", otlp.compression));
        add(name, "roots", otlp.tls.roots.as_ref().map_or(0, Vec::len).to_string());
        add(name, "identity", otlp.tls.identity.is_some().to_string());
    }
    for (name, signal) in [("bsp", Signal::Traces), ("blrp", Signal::Logs)] {
        let batching = of.batching(signal);
        add(name, "queue", batching.max_queue.to_string());
        add(name, "batch", batching.max_batch.to_string());
        add(name, "delay", format!("{:?}", batching.delay));
        add(name, "timeout", format!("{:?}", batching.give_up));
    }
    let metering = of.metering();
    add("metric", "interval", format!("{:?}", metering.interval));
    add("metric", "timeout", format!("{:?}", metering.give_up));
    add("metric", "temporality", format!("{:?}", metering.temporality));
    add("metric", "aggregation", format!("{:?}", metering.aggregation));
    add("metric", "exemplars", format!("{:?}", metering.exemplars));
    for (name, limits) in [("span", of.limits()), ("log", of.log_limits())] {
        add(name, "attributes", limits.attributes.to_string());
        add(name, "length", format!("{:?}", limits.value_length));
        add(name, "events", limits.events.to_string());
        add(name, "links", limits.links.to_string());
        add(name, "event_attributes", limits.event_attributes.to_string());
        add(name, "link_attributes", limits.link_attributes.to_string());
    }
    all
}

/// What stays the same in each row: every signal is exported.
const EXPORTED: [(&str, &str); 3] = [
    ("OTEL_TRACES_EXPORTER", "otlp"),
    ("OTEL_LOGS_EXPORTER", "otlp"),
    ("OTEL_METRICS_EXPORTER", "otlp"),
];

fn with(name: &str, value: &str) -> Environment {
    let others = EXPORTED.into_iter().filter(|(other, _)| *other != name);
    Environment::read(others.chain([(name, value)])).unwrap()
}

/// What `name=value` changes, in the words of a [`Row`].
fn changed(name: &str, value: &str) -> (String, Environment) {
    let before = settings(&with("OTEL_SERVICE_NAME", ""));
    let after = with(name, value);
    let changed: Vec<_> = before
        .into_iter()
        .zip(settings(&after))
        .filter(|(before, after)| before != after)
        .map(|(_, (name, value))| format!("{name}={value}"))
        .collect();
    (changed.join(" "), after)
}

/// The rows without `*` and `@`.
fn rows() -> Vec<(String, String, String, &'static str)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let mut rows = Vec::new();
    for (name, value, changes, warned) in ROWS {
        let value = value.replace("DIR", dir);
        let forms: &[&[&str]] = match name.contains('*') {
            true => &[&["traces", "logs", "metrics"], &["traces"], &["logs"], &["metrics"]],
            false => &[&[]],
        };
        for signals in forms {
            let own = match signals {
                [signal] => format!("{}_", signal.to_uppercase()),
                _ => String::new(),
            };
            let changes = match (signals, changes.contains('@')) {
                (_, false) => (*changes).to_owned(),
                (signals, true) => {
                    let of = |signal: &&str| changes.replace('@', signal);
                    signals.iter().map(of).collect::<Vec<_>>().join(" ")
                }
            };
            rows.push((name.replace('*', &own), value.clone(), changes, *warned));
        }
    }
    rows
}

#[test]
fn each_variable_and_value_does_what_the_specification_says() {
    for (name, value, changes, warned) in rows() {
        let (found, environment) = changed(&name, &value);
        let of_it = environment.findings().iter().filter(|finding| finding.variable == name);
        let warnings: Vec<_> =
            of_it.clone().filter(|it| it.is_warning()).map(|it| it.effect.as_str()).collect();
        assert_eq!(found, changes, "{name}={value}");
        match warned {
            "" => assert!(warnings.is_empty(), "{name}={value}: {warnings:?}"),
            part => assert!(
                warnings.len() == 1 && warnings[0].contains(part) && warnings[0].contains(&name),
                "{name}={value}: {warnings:?}"
            ),
        }
        // `tap check` has a line for each that is set.
        assert_eq!(of_it.count(), usize::from(!value.trim().is_empty()), "{name}={value}");
    }
}

/// The variables of the OTLP exporter, which the table leaves to another document.
const OF_OTLP: [&str; 9] = [
    "ENDPOINT",
    "PROTOCOL",
    "HEADERS",
    "TIMEOUT",
    "COMPRESSION",
    "INSECURE",
    "CERTIFICATE",
    "CLIENT_CERTIFICATE",
    "CLIENT_KEY",
];

#[test]
fn no_variable_of_the_specification_is_without_rows() {
    let table = include_str!("../../../../tests/fixtures/semconv/env.json");
    let table: serde_json::Value = serde_json::from_str(table).unwrap();
    let specified = table["table"].as_array().unwrap().iter();
    let mut missing: BTreeSet<_> =
        specified.map(|row| row["name"].as_str().unwrap().to_owned()).collect();
    assert!(missing.len() >= 38, "{missing:?}");
    for signal in ["", "TRACES_", "LOGS_", "METRICS_"] {
        missing.extend(OF_OTLP.map(|what| format!("OTEL_EXPORTER_OTLP_{signal}{what}")));
    }
    missing.insert("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE".into());
    missing.insert("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION".into());
    // An empty value is as if it were not there, for each of them.
    for name in &missing {
        let (changed, environment) = changed(name, "");
        let expected =
            EXPORTED.iter().find(|(of, _)| of == name).map_or(String::new(), |(of, _)| {
                let signal = of.split('_').nth(1).unwrap_or_default().to_lowercase();
                format!("{signal}.exporters=[]")
            });
        assert_eq!(changed, expected, "{name}");
        assert!(environment.findings().iter().all(|finding| finding.variable != *name), "{name}");
    }
    missing.retain(|name| rows().iter().all(|(of, ..)| of != name));
    assert!(missing.is_empty(), "{missing:?}");
}
