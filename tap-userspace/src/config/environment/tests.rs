//! One row per variable and value.

use super::*;

fn read(variables: &[(&str, &str)]) -> Environment {
    Environment::read(variables.iter().copied()).unwrap()
}

fn warnings(environment: &Environment) -> Vec<&str> {
    let warnings = environment.findings().iter().filter(|finding| finding.is_warning());
    warnings.map(|finding| finding.variable.as_str()).collect()
}

/// Reads `name=value`; what `of` shows of it is `expected`, and it is warned about or not.
fn row(name: &str, value: &str, of: impl Fn(&Environment) -> String, expected: &str, warned: bool) {
    let environment = read(&[("OTEL_TRACES_EXPORTER", "otlp"), (name, value)]);
    assert_eq!(of(&environment), expected, "{name}={value}");
    let warnings = warnings(&environment);
    assert_eq!(!warnings.is_empty(), warned, "{name}={value}: {:?}", environment.findings());
    assert!(warnings.iter().all(|variable| *variable == name), "{warnings:?}");
    assert_eq!(
        environment.findings().iter().filter(|finding| finding.variable == name).count(),
        usize::from(!value.trim().is_empty()),
        "one finding of {name}={value}: {:?}",
        environment.findings()
    );
}

#[test]
fn general_variables() {
    let disabled = |e: &Environment| e.disabled().to_string();
    for (value, expected, warned) in [
        ("true", "true", false),
        ("TRUE", "true", false),
        ("false", "false", false),
        ("", "false", false),
        ("1", "false", true),
        ("yes", "false", true),
    ] {
        row("OTEL_SDK_DISABLED", value, disabled, expected, warned);
    }
    row(
        "OTEL_SERVICE_NAME",
        "shop",
        |e| format!("{:?}", e.service_name()),
        "Some(\"shop\")",
        false,
    );
    row("OTEL_SERVICE_NAME", " ", |e| format!("{:?}", e.service_name()), "None", false);
    let resource = |e: &Environment| {
        e.resource().iter().map(|(key, value)| format!("{key}:{value};")).collect()
    };
    for (value, expected, warned) in [
        ("a=b", "a:b;", false),
        (" a = b , c=d,", "a:b;c:d;", false),
        ("a=b%2Cc%3D%C3%BC", "a:b,c=ü;", false),
        ("a=", "a:;", false),
        ("a", "", true),
        ("a=b,c", "", true),
        ("=b", "", true),
        ("a=%2", "", true),
        ("a=%zz", "", true),
        ("a=%ff", "", true),
    ] {
        row("OTEL_RESOURCE_ATTRIBUTES", value, resource, expected, warned);
    }
}

#[test]
fn exporters() {
    for (value, expected, warned) in [
        ("otlp", "[Otlp]", false),
        ("console", "[Console]", false),
        ("none", "[]", false),
        ("otlp,console", "[Otlp, Console]", false),
        (" console , otlp, console", "[Console, Otlp]", false),
        ("otlp,none", "[Otlp]", false),
        ("zipkin", "[]", true),
        ("otlp,jaeger", "[Otlp]", true),
        ("", "[]", false),
    ] {
        let environment = read(&[("OTEL_TRACES_EXPORTER", value)]);
        assert_eq!(format!("{:?}", environment.exporters(Signal::Traces)), expected, "{value}");
        assert_eq!(!warnings(&environment).is_empty(), warned, "{value}");
    }
    let metrics = |e: &Environment| format!("{:?}", e.exporters(Signal::Metrics));
    for (value, expected, warned) in [
        ("otlp", "[Otlp]", false),
        ("none", "[]", false),
        ("prometheus", "[Prometheus]", false),
        ("otlp,prometheus", "[Otlp, Prometheus]", false),
        ("console", "[Console]", false),
        ("statsd", "[]", true),
    ] {
        row("OTEL_METRICS_EXPORTER", value, metrics, expected, warned);
    }
    let off = read(&[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_SDK_DISABLED", "true")]);
    assert!(off.exporters(Signal::Traces).is_empty());
}

#[test]
fn an_endpoint_without_exporter_is_warned_about() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/x");
    let metrics = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c:4318/x");
    for (variables, warned) in [
        (&[endpoint][..], &[endpoint.0][..]),
        (&[own], &[own.0]),
        (&[endpoint, ("OTEL_TRACES_EXPORTER", "otlp")], &[]),
        (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], &[]),
        (&[metrics], &[metrics.0]),
        (&[metrics, ("OTEL_METRICS_EXPORTER", "otlp")], &[]),
    ] {
        assert_eq!(warnings(&read(variables)), warned, "{variables:?}");
    }
}

#[test]
fn protocols_and_endpoints() {
    let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let general = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let protocol = "OTEL_EXPORTER_OTLP_PROTOCOL";
    let own_protocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
    let insecure = "OTEL_EXPORTER_OTLP_INSECURE";
    let method = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
    for (variables, expected) in [
        (&[][..], "http/protobuf http://localhost:4318/v1/traces"),
        (&[(protocol, "http")], "http/protobuf http://localhost:4318/v1/traces"),
        (&[(protocol, "http/json")], "http/json http://localhost:4318/v1/traces"),
        (&[(protocol, "grpc")], "grpc http://localhost:4317/METHOD"),
        (
            &[(protocol, "grpc"), (own_protocol, "http")],
            "http/protobuf http://localhost:4318/v1/traces",
        ),
        (&[(general, "http://c")], "http/protobuf http://c/v1/traces"),
        (&[(general, "https://c:1/")], "http/protobuf https://c:1/v1/traces"),
        (&[(general, "http://c:1/base/")], "http/protobuf http://c:1/base/v1/traces"),
        (&[(general, "http://[::1]:4318")], "http/protobuf http://[::1]:4318/v1/traces"),
        (&[(own, "http://c:1")], "http/protobuf http://c:1/"),
        (&[(own, "http://c:1/my/way?x=y")], "http/protobuf http://c:1/my/way?x=y"),
        (&[(own, "http://a:1/t"), (general, "http://b:2")], "http/protobuf http://a:1/t"),
        (&[(own, ""), (general, "http://b:2")], "http/protobuf http://b:2/v1/traces"),
        (&[(protocol, "grpc"), (general, "http://c:1/x")], "grpc http://c:1/METHOD"),
        (&[(protocol, "grpc"), (own, "https://c:1")], "grpc https://c:1/METHOD"),
        (&[(protocol, "grpc"), (general, "c:1")], "grpc https://c:1/METHOD"),
        (&[(protocol, "grpc"), (general, "c:1"), (insecure, "true")], "grpc http://c:1/METHOD"),
        (
            &[(protocol, "grpc"), (general, "https://c:1"), (insecure, "true")],
            "grpc https://c:1/METHOD",
        ),
    ] {
        let mut all = vec![("OTEL_TRACES_EXPORTER", "otlp")];
        all.extend(variables);
        let environment = read(&all);
        let otlp = environment.otlp(Signal::Traces);
        let expected = expected.replace("METHOD", method);
        assert_eq!(
            format!("{} {}", otlp.protocol.name(), otlp.endpoint),
            expected,
            "{variables:?}"
        );
        assert!(warnings(&environment).is_empty(), "{:?}", environment.findings());
    }
    let metrics = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")]);
    assert_eq!(metrics.otlp(Signal::Metrics).endpoint, "http://c/v1/metrics");
    let of = |e: &Environment| e.otlp(Signal::Traces).protocol.name().to_owned();
    row(protocol, "http/xml", of, "http/protobuf", true);
    row(own_protocol, "GRPC", of, "grpc", false);
}

#[test]
fn what_is_no_endpoint_is_an_error() {
    for value in [
        "localhost:4318",
        "nonsense",
        "ftp://c",
        "http://",
        "http:///x",
        "http://c:x",
        "http://c:99999",
        "http://a b",
        "http://user:secret@c",
        "://c",
    ] {
        for variable in [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        ] {
            let error = Environment::read([(variable, value)]).unwrap_err().to_string();
            assert!(error.starts_with(variable) && error.contains("give a URL"), "{error}");
            assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = file.path().to_str().unwrap();
    for name in ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"] {
        for value in ["/does/not/exist.pem", "/", empty] {
            let variable = format!("OTEL_EXPORTER_OTLP_{name}");
            let error = Environment::read([(variable.as_str(), value)]).unwrap_err().to_string();
            assert!(error.starts_with(&variable) && error.contains(value), "{error}");
        }
    }
}

#[test]
fn how_it_is_sent() {
    let headers = |e: &Environment| {
        let headers = e.otlp(Signal::Traces).headers.iter();
        headers.map(|(k, v)| format!("{k}:{};", v.to_str().unwrap())).collect()
    };
    for (value, expected, warned) in [
        ("a=b,C=d%20e", "a:b;c:d e;", false),
        ("a=b,", "a:b;", false),
        ("a b=c,d=e", "d:e;", true),
        ("a=%0A,d=e", "d:e;", true),
        ("secret", "", true),
    ] {
        for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
            row(name, value, headers, expected, warned);
        }
    }
    let secret = read(&[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush%20hush")]);
    assert!(!format!("{secret:?}").contains("hush"));
    let timeout = |e: &Environment| format!("{:?}", e.otlp(Signal::Traces).timeout);
    for (value, expected, warned) in [
        ("", "Some(10s)", false),
        ("2500", "Some(2.5s)", false),
        ("0", "None", false),
        ("-1", "Some(10s)", true),
        ("10s", "Some(10s)", true),
    ] {
        for name in ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"] {
            row(name, value, timeout, expected, warned);
        }
    }
    let compression = |e: &Environment| format!("{:?}", e.otlp(Signal::Traces).compression);
    for (value, expected, warned) in [
        ("gzip", "Gzip", false),
        ("none", "None", false),
        ("zstd", "Zstd", false),
        ("br", "None", true),
    ] {
        row("OTEL_EXPORTER_OTLP_COMPRESSION", value, compression, expected, warned);
        row("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", value, compression, expected, warned);
    }
    row("OTEL_EXPORTER_OTLP_INSECURE", "maybe", |_| String::new(), "", true);
    // The signal's own wins; where it is wrong, that for all holds.
    let both = |own| {
        let own = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", own);
        timeout(&read(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"), own]))
    };
    assert_eq!((both("2000").as_str(), both("x").as_str()), ("Some(2s)", "Some(1s)"));
}

#[test]
fn half_an_identity_is_warned_about() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let (chain, key) = (format!("{dir}/client.pem"), format!("{dir}/client.key"));
    let (chain_name, key_name) =
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY");
    assert_eq!(warnings(&read(&[(chain_name, &chain)])), [chain_name]);
    assert_eq!(warnings(&read(&[(key_name, &key)])), [key_name]);
    let both = read(&[(chain_name, &chain), (key_name, &key)]);
    assert!(warnings(&both).is_empty());
    assert!(both.otlp(Signal::Metrics).tls.identity.is_some());
}

const TEMPORALITY: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
const AGGREGATION: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";

#[test]
fn batching_and_metering() {
    let batching = |e: &Environment| {
        let b = e.batching(Signal::Traces);
        format!("{} {} {:?} {:?}", b.max_queue, b.max_batch, b.delay, b.give_up)
    };
    for (name, value, expected, warned) in [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "", "65536 512 5s Some(300s)", false),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "2048 512 5s Some(300s)", false),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "65536 512 5s Some(300s)", true),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10", "65536 10 5s Some(300s)", false),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0", "65536 512 5s Some(300s)", true),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000", "65536 65536 5s Some(300s)", true),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "65536 512 0ns Some(300s)", false),
        ("OTEL_BSP_SCHEDULE_DELAY", "250", "65536 512 250ms Some(300s)", false),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "65536 512 5s Some(300s)", true),
        ("OTEL_BSP_EXPORT_TIMEOUT", "1", "65536 512 5s Some(1ms)", false),
        ("OTEL_BSP_EXPORT_TIMEOUT", "0", "65536 512 5s None", false),
        ("OTEL_BSP_EXPORT_TIMEOUT", "x", "65536 512 5s Some(300s)", true),
    ] {
        row(name, value, batching, expected, warned);
    }
    let small = read(&[("OTEL_BSP_MAX_QUEUE_SIZE", "100")]);
    assert_eq!((small.batching(Signal::Traces).max_batch, warnings(&small).len()), (100, 0));
    let metering = |e: &Environment| {
        let m = e.metering();
        let form = (m.temporality, m.aggregation, m.exemplars);
        format!("{:?} {:?} {:?} {:?} {:?}", m.interval, m.give_up, form.0, form.1, form.2)
    };
    let is = |name: &str| {
        let default = "60s Some(30s) Cumulative Explicit TraceBased";
        match name.split_once(' ') {
            Some((from, to)) => default.replace(from, to),
            None => default.to_owned(),
        }
    };
    for (name, value, expected, warned) in [
        ("OTEL_METRIC_EXPORT_INTERVAL", "500", "60s 500ms", false),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "", true),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon", "", true),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "10", "30s 10ms", false),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "0", "Some(30s) None", false),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "-1", "", true),
        (TEMPORALITY, "delta", "Cumulative Delta", false),
        (TEMPORALITY, "LowMemory", "Cumulative LowMemory", false),
        (TEMPORALITY, "gamma", "", true),
        (AGGREGATION, "base2_exponential_bucket_histogram", "Explicit Exponential", false),
        (AGGREGATION, "explicit_bucket_histogram", "", false),
        (AGGREGATION, "drop", "", true),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always_on", "TraceBased AlwaysOn", false),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "ALWAYS_OFF", "TraceBased AlwaysOff", false),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "some", "", true),
    ] {
        row(name, value, metering, &is(expected), warned);
    }
}

#[test]
fn limits_of_spans() {
    let limits = |e: &Environment| {
        let l = e.limits();
        format!(
            "{} {:?} {} {} {} {}",
            l.attributes, l.value_length, l.events, l.links, l.event_attributes, l.link_attributes
        )
    };
    for (name, value, expected, warned) in [
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "5", "5 None 128 128 128 128", false),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0", "0 None 128 128 128 128", false),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "128 None 128 128 128 128", true),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9", "128 Some(9) 128 128 128 128", false),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9", "128 Some(9) 128 128 128 128", false),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "9", "128 None 9 128 128 128", false),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-9", "128 None 128 128 128 128", true),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "9", "128 None 128 9 128 128", false),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "9", "128 None 128 128 9 128", false),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "9", "128 None 128 128 128 9", false),
    ] {
        row(name, value, limits, expected, warned);
    }
    let both =
        read(&[("OTEL_ATTRIBUTE_COUNT_LIMIT", "1"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2")]);
    assert_eq!(both.limits().attributes, 2);
}

#[test]
fn samplers() {
    for (name, argument, expected, warned) in [
        ("", "", "AlwaysOn", 0),
        ("always_on", "", "AlwaysOn", 0),
        ("always_off", "", "AlwaysOff", 0),
        ("traceidratio", "0.5", "TraceIdRatio(0.5)", 0),
        ("traceidratio", "", "TraceIdRatio(1.0)", 0),
        ("traceidratio", "1.5", "TraceIdRatio(1.0)", 1),
        ("traceidratio", "-0.5", "TraceIdRatio(1.0)", 1),
        ("traceidratio", "half", "TraceIdRatio(1.0)", 1),
        ("traceidratio", "NaN", "TraceIdRatio(1.0)", 1),
        ("parentbased_always_on", "", "AlwaysOn", 0),
        ("parentbased_always_off", "", "AlwaysOff", 0),
        ("parentbased_traceidratio", "0.25", "TraceIdRatio(0.25)", 0),
        ("jaeger_remote", "", "AlwaysOn", 1),
        ("always_on", "0.5", "AlwaysOn", 0),
    ] {
        let environment =
            read(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
        assert_eq!(format!("{:?}", environment.sampler()), expected, "{name} {argument}");
        assert_eq!(warnings(&environment).len(), warned, "{name} {argument}");
    }
}

#[test]
fn every_variable_is_told_about() {
    let variables = [
        ("OTEL_LOGS_EXPORTER", "otlp", "in force: otlp"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c", "in force: http://c"),
        (
            "OTEL_PROPAGATORS",
            "b3",
            "OTEL_PROPAGATORS=b3: tap reads traceparent (tracecontext), not b3",
        ),
        ("OTEL_TRACES_SAMPLRE", "always_off", "not a variable that tap reads"),
        ("OTEL_TRACES_EXPORTER", "otlp", "in force: otlp"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,c=d", "in force: a, c"),
    ];
    let environment = Environment::read(variables.map(|(name, value, _)| (name, value))).unwrap();
    for (name, _, effect) in variables {
        let finding = environment.findings().iter().find(|finding| finding.variable == name);
        assert_eq!(finding.unwrap().effect, effect);
    }
    assert_eq!(environment.findings().len(), variables.len());
    let other = read(&[("PATH", "/bin"), ("OTEL_SERVICE_NAME", "")]);
    assert!(!other.is_set() && other.findings().is_empty());
    assert!(environment.is_set());
}

#[test]
fn what_is_not_text_is_warned_about() {
    use std::os::unix::ffi::OsStringExt as _;
    let broken = OsString::from_vec(vec![0xff]);
    let environment = Environment::read([("OTEL_SERVICE_NAME", broken)]).unwrap();
    assert_eq!(environment.service_name(), None);
    assert_eq!(warnings(&environment), ["OTEL_SERVICE_NAME"]);
}

/// The specification's table (fixtures/semconv/env.json).
fn specified() -> Vec<String> {
    let table = include_str!("../../../../tests/fixtures/semconv/env.json");
    let table: serde_json::Value = serde_json::from_str(table).unwrap();
    let rows = table["table"].as_array().unwrap();
    rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_variable_of_the_specification_is_in_force_or_named_as_not_supported() {
    let names = specified();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let value = match name.as_str() {
            "OTEL_SDK_DISABLED" => "false",
            "OTEL_RESOURCE_ATTRIBUTES" => "a=b",
            "OTEL_LOG_LEVEL" => "warn",
            "OTEL_PROPAGATORS" => "tracecontext",
            "OTEL_TRACES_SAMPLER" => "always_on",
            "OTEL_METRICS_EXEMPLAR_FILTER" => "trace_based",
            name if name.ends_with("_EXPORTER") => "otlp",
            _ => "7",
        };
        let environment = read(&[(&name, value)]);
        let [finding] = environment.findings() else {
            panic!("{name}: {:?}", environment.findings());
        };
        let known = finding.effect.starts_with("in force")
            || finding.effect.contains("not supported: ")
            || finding.effect.contains("tap propagates nothing")
            || finding.effect.contains("the sampler takes no argument");
        assert!(known, "{name}: {finding:?}");
        assert_eq!(finding.is_warning(), finding.effect.contains("not supported: "), "{name}");
    }
}

#[test]
fn limits_of_log_records() {
    let limits = |e: &Environment| {
        format!("{} {:?}", e.log_limits().attributes, e.log_limits().value_length)
    };
    for (name, value, expected, warned) in [
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "5", "5 None", false),
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "x", "128 None", true),
        ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9", "128 Some(9)", false),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8", "128 Some(8)", false),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "5", "128 None", false),
    ] {
        row(name, value, limits, expected, warned);
    }
}
