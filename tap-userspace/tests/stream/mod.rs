//! Spans and log records that processors are held against others with: the same ones in each run, of
//! many shapes.

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{
        AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event},
};

const START: u64 = 1_700_000_000_000_000_000;

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    fn trace_id(&mut self) -> Vec<u8> {
        [self.next().to_be_bytes(), self.next().to_be_bytes()].concat()
    }
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(value: &str) -> AnyValue {
    any(Value::StringValue(value.to_owned()))
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// Attributes of many types, some of them secret.
fn attributes(random: &mut Random, number: u64) -> Vec<KeyValue> {
    let mut all = vec![
        pair("number", any(Value::IntValue(number as i64))),
        pair("url.path", text(random.pick(&["/healthz", "/orders/17", "/orders/4711/items", "/"]))),
        pair(
            "http.response.status_code",
            any(Value::IntValue(random.pick(&[200, 204, 301, 404, 500, 503]))),
        ),
        pair("tls.established", any(Value::BoolValue(random.below(2) == 0))),
        pair("ratio", any(Value::DoubleValue(random.below(1000) as f64 / 8.0))),
    ];
    for (one_in, key, value) in [
        (2, "user.email", text(random.pick(&["ada@example.org", "Bob <bob@mail.example.com>"]))),
        (3, "card", text(random.pick(&["4111 1111 1111 1111", "4111111111111112", "no card"]))),
        (3, "payload", text("token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl;id=7")),
        (2, "count.text", text(random.pick(&["17", "-3", "1.5", "abc", "", "0x10", " 4 "]))),
        (4, "empty", text("")),
        (5, "nothing", AnyValue { value: None }),
        (6, "bytes", any(Value::BytesValue(vec![0, 1, 255]))),
        (
            3,
            "tags",
            any(Value::ArrayValue(ArrayValue { values: vec![text("gap"), text("no_owner")] })),
        ),
        (
            3,
            "event",
            any(Value::KvlistValue(KeyValueList {
                values: vec![
                    pair("summary.request_host", text("shop.example.org")),
                    pair("summary.user", text("carol@example.org")),
                ],
            })),
        ),
        (4, "env", text(random.pick(&["prod", "staging", "Prod"]))),
        (4, "http.request.header.authorization", text("Bearer abc.def")),
    ] {
        if random.below(one_in) == 0 {
            all.push(pair(key, value));
        }
    }
    all
}

fn resource(random: &mut Random) -> Resource {
    let host = format!("node-{}", random.below(3));
    let service = random.pick(&["tap", "checkout", "cart"]);
    Resource {
        attributes: vec![
            pair("service.name", text(service)),
            pair("host.name", text(&host)),
            pair("k8s.pod.name", text(&format!("{service}-{}", random.below(2)))),
        ],
        ..Resource::default()
    }
}

fn scope(random: &mut Random) -> InstrumentationScope {
    let name = random.pick(&["tap.connection", "tap.http"]);
    InstrumentationScope { name: name.to_owned(), version: "1".to_owned(), ..<_>::default() }
}

/// Spans of `traces` traces, of up to `most` spans each, in requests of a few.
fn spans(seed: u64, traces: u64, most: u64, full: bool) -> Vec<ExportTraceServiceRequest> {
    let mut random = Random(seed);
    let mut number = 0;
    let mut requests = Vec::new();
    for _ in 0..traces {
        let trace_id = random.trace_id();
        let trace_state = match random.below(8) {
            0 => "ot=th:8".to_owned(),
            1 => "ot=rv:80000000000000".to_owned(),
            2 => "ot=rv:01ffffffffffff,vendor=a".to_owned(),
            3 => "vendor=a".to_owned(),
            4 => "ot=th:c;rv:d29d6a7215ced0".to_owned(),
            _ => String::new(),
        };
        for _ in 0..=random.below(most) {
            number += 1;
            let start = START + random.below(1_000_000_000);
            let code = random.pick(&[0, 0, 0, 1, 2]);
            let mut attributes = match full {
                true => attributes(&mut random, number),
                false => attributes(&mut random, number).into_iter().take(5).collect(),
            };
            if random.below(10) == 0 {
                let priority = random.pick(&[0, 1, 100]);
                attributes.push(pair("sampling.priority", any(Value::IntValue(priority))));
            }
            let event = |name: &str, attributes| Event {
                time_unix_nano: start + 1,
                name: name.to_owned(),
                attributes,
                ..Event::default()
            };
            let events = match full {
                true => vec![
                    event("OpenEvent", vec![]),
                    event("DataEvent", vec![pair("note", text("mail dave@example.org"))]),
                ],
                false => vec![],
            };
            let span = Span {
                trace_id: trace_id.clone(),
                span_id: number.to_be_bytes().to_vec(),
                trace_state: trace_state.clone(),
                name: random.pick(&["Connection", "GET", "POST /orders"]).to_owned(),
                kind: random.pick(&[1, 2, 3]),
                start_time_unix_nano: start,
                end_time_unix_nano: start + random.below(3_000_000_000),
                attributes,
                events,
                status: (code > 0).then(|| Status {
                    code,
                    message: if code == 2 { "reset".to_owned() } else { String::new() },
                }),
                ..Span::default()
            };
            requests.push(ExportTraceServiceRequest {
                resource_spans: vec![ResourceSpans {
                    resource: Some(resource(&mut random)),
                    scope_spans: vec![ScopeSpans {
                        scope: Some(scope(&mut random)),
                        spans: vec![span],
                        ..ScopeSpans::default()
                    }],
                    ..ResourceSpans::default()
                }],
            });
        }
    }
    // Fewer requests, with several resources in each.
    let several = requests.chunks(25).map(|chunk| ExportTraceServiceRequest {
        resource_spans: chunk.iter().flat_map(|it| it.resource_spans.clone()).collect(),
    });
    several.collect()
}

/// The stream of this name: `attributes` (40 traces, attributes of every type), `sampling` (500
/// traces).
pub fn traces(name: &str) -> Vec<ExportTraceServiceRequest> {
    match name {
        "attributes" => spans(1, 40, 2, true),
        "sampling" => spans(2, 500, 3, false),
        other => panic!("there is no stream {other}"),
    }
}

/// Log records with the attributes of spans: `attributes`, `sampling`.
pub fn logs(name: &str) -> Vec<ExportLogsServiceRequest> {
    let mut random = Random(3);
    let severities = [(9, "INFO"), (13, "WARN"), (17, "ERROR"), (0, "")];
    traces(name)
        .into_iter()
        .map(|request| ExportLogsServiceRequest {
            resource_logs: request
                .resource_spans
                .into_iter()
                .map(|of| ResourceLogs {
                    resource: of.resource,
                    scope_logs: of
                        .scope_spans
                        .into_iter()
                        .map(|within| ScopeLogs {
                            scope: within.scope,
                            log_records: within
                                .spans
                                .into_iter()
                                .map(|span| {
                                    let (number, severity) = random.pick(&severities);
                                    // Some have no trace.
                                    let trace_id = match random.below(10) {
                                        0 => vec![],
                                        _ => span.trace_id,
                                    };
                                    LogRecord {
                                        time_unix_nano: span.start_time_unix_nano,
                                        severity_number: number,
                                        severity_text: severity.to_owned(),
                                        body: Some(text(&format!(
                                            "{} by eve@example.org",
                                            span.name
                                        ))),
                                        attributes: span.attributes,
                                        trace_id,
                                        span_id: span.span_id,
                                        ..LogRecord::default()
                                    }
                                })
                                .collect(),
                            ..ScopeLogs::default()
                        })
                        .collect(),
                    ..ResourceLogs::default()
                })
                .collect(),
        })
        .collect()
}
