use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Sampler, logs::Follower};
use crate::{
    config::processors::tail_sampling::TailSampling,
    policy::{
        chain::{Place, Shared},
        data::{Attributes, Event, LogRecord, Resource, Source, Span, Value},
        processor::{Processor, Tally},
    },
    telemetry::metric::{self, Reader},
};

fn settings(more: &str, policies: &str) -> TailSampling {
    let yaml = format!("{{ decision_wait: 2s, {more} policies: [{policies}] }}");
    serde_yaml::from_str(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

fn id(number: u32) -> [u8; 16] {
    let mut id = [0xaa; 16];
    id[12..].copy_from_slice(&number.to_be_bytes());
    id
}

fn span(trace: u32) -> Span {
    Span { trace_id: id(trace), span_id: [1; 8], ..Span::default() }
}

fn failed(trace: u32) -> Span {
    Span { status: 2, ..span(trace) }
}

/// No traces.
const NONE: [u8; 0] = [];

/// A sampler, and the time.
struct Bench {
    shared: Shared,
    name: Arc<str>,
    sampler: Sampler,
    start: Instant,
    tally: Tally,
}

impl Bench {
    fn new(settings: &TailSampling) -> Self {
        let (shared, name, start) = (Shared::default(), Arc::from("tail_sampling"), Instant::now());
        let place = Place { pipeline: "traces", processor: &name, shared: &shared };
        let sampler = Sampler::new(settings, &place, start);
        Self { shared, name, sampler, start, tally: Tally::default() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Gives spans, `ms` after the start; the traces of those that go on at once.
    fn take(&mut self, ms: u64, mut spans: Vec<Span>) -> Vec<u8> {
        let now = self.at(ms);
        self.sampler.process(&mut spans, now, &mut self.tally);
        numbers(&spans)
    }

    /// Those that go on at `ms`.
    fn release(&mut self, ms: u64) -> Vec<u8> {
        let now = self.at(ms);
        numbers(&self.sampler.release(now, false, &mut self.tally))
    }

    fn count(&self, family: &str, label: (&str, &str)) -> u64 {
        let read = self.shared.registry.read(Reader::Scrape);
        let of = read.iter().filter(|it| it.family.name == family).flat_map(|it| &it.samples);
        let of = of.filter(|sample| {
            sample.labels.iter().any(|(key, value)| *key == label.0 && value.to_string() == label.1)
        });
        of.map(|sample| match sample.value {
            metric::Value::Number(number) => number,
            metric::Value::Histogram(_) => 0,
        })
        .sum()
    }
}

fn numbers(spans: &[Span]) -> Vec<u8> {
    spans.iter().map(|span| span.trace_id[15]).collect()
}

const ERRORS: &str = "{ name: errors, type: status_code, status_code: { status_codes: [ERROR] } }";

#[test]
fn a_trace_is_decided_on_whole_at_the_first_tick_after_its_wait() {
    let mut bench = Bench::new(&settings("", ERRORS));
    assert_eq!(bench.sampler.due(), None);
    assert_eq!(bench.take(300, vec![span(1), failed(2), span(3)]), NONE);
    // It came in the first second: after two more, that is at the third.
    assert_eq!(bench.sampler.due(), Some(bench.at(3000)));
    assert_eq!(bench.take(2500, vec![failed(1), failed(4)]), NONE);
    assert_eq!(bench.release(2999), NONE);
    assert_eq!(bench.release(3000), [1, 1, 2]);
    assert_eq!(bench.tally, Tally { sampled: 1, ..Tally::default() });
    assert_eq!(bench.sampler.due(), Some(bench.at(5000)));
    // Late ones follow.
    assert_eq!(bench.take(3100, vec![span(1), failed(3), span(2), span(5)]), [1, 2]);
    assert_eq!(bench.tally.sampled, 2);
    // At the end all are decided on.
    let left = bench.sampler.release(bench.at(3200), true, &mut bench.tally);
    assert_eq!(numbers(&left), [4]);
    assert_eq!(bench.tally, Tally { sampled: 3, ..Tally::default() });
    for (decision, traces) in [("sampled", 3), ("not_sampled", 2), ("dropped", 0)] {
        assert_eq!(bench.count("tap_policy_traces_total", ("decision", decision)), traces);
    }
    assert_eq!(bench.count("tap_policy_late_spans_total", ("decision", "sampled")), 2);
    assert_eq!(bench.count("tap_policy_traces_held", ("pipeline", "traces")), 0);
    assert_eq!(bench.count("tap_policy_traces_held_bytes", ("pipeline", "traces")), 0);
}

#[test]
fn a_root_span_brings_the_decision_forward() {
    for (wait, first) in [("0s", 11_000), ("1s", 2000), ("500ms", 1000), ("30s", 11_000)] {
        let more = format!("decision_wait: 10s, decision_wait_after_root_received: {wait},");
        let yaml = format!("{{ {more} policies: [{ERRORS}] }}");
        let mut bench = Bench::new(&serde_yaml::from_str(&yaml).unwrap());
        let child = Span { parent_span_id: [9; 8], ..failed(1) };
        bench.take(100, vec![child.clone()]);
        assert_eq!(bench.sampler.due(), Some(bench.at(11_000)), "{wait}");
        bench.take(200, vec![failed(1), child]);
        assert_eq!(bench.sampler.due(), Some(bench.at(first)), "{wait}");
        assert_eq!(bench.release(first), [1, 1, 1], "{wait}");
    }
}

#[test]
fn a_full_buffer_has_the_oldest_decided_on_early() {
    let mut bench = Bench::new(&settings("num_traces: 2,", ERRORS));
    bench.take(0, vec![failed(1), span(2)]);
    // Each in its turn; what waits no longer is not lost.
    assert_eq!(bench.take(100, vec![span(3)]), [1]);
    assert_eq!(bench.take(200, vec![failed(4)]), NONE);
    assert_eq!(bench.tally, Tally { sampled: 1, ..Tally::default() });
    assert_eq!(bench.count("tap_policy_traces_early_total", ("reason", "num_traces")), 2);
    // Once kept it stays kept, though there was no room to remember it there.
    assert_eq!(bench.take(300, vec![span(1)]), [1]);
    assert_eq!(bench.release(3000), [4]);
    assert_eq!(bench.tally, Tally { sampled: 2, ..Tally::default() });
    assert_eq!(bench.count("tap_policy_traces_known", ("pipeline", "traces")), 2);

    let mut bench = Bench::new(&settings("maximum_buffer_size_bytes: 1048576,", ERRORS));
    let mut large = failed(1);
    large.attributes.set("text", "x".repeat(600_000));
    assert_eq!(bench.take(0, vec![large.clone()]), NONE);
    large.trace_id = id(2);
    assert_eq!(bench.take(100, vec![large]), [1]);
    assert_eq!(bench.count("tap_policy_traces_early_total", ("reason", "bytes")), 1);
    assert_eq!(bench.take(200, vec![span(1)]), [1]);
    assert_eq!(bench.release(3000), [2]);
}

#[test]
fn a_trace_that_grows_too_large_is_left_out() {
    let mut bench = Bench::new(&settings("maximum_trace_size_bytes: 1000,", ERRORS));
    let mut large = failed(1);
    large.attributes.set("text", "x".repeat(600));
    assert_eq!(bench.take(0, vec![large.clone()]), NONE);
    assert_eq!(bench.tally.sampled, 0);
    assert_eq!(bench.take(0, vec![large.clone(), failed(2)]), NONE);
    assert_eq!(bench.tally.sampled, 2);
    assert_eq!(bench.take(0, vec![large]), NONE);
    assert_eq!(bench.release(3000), [2]);
    assert_eq!(bench.tally.sampled, 3);
    assert_eq!(bench.count("tap_policy_traces_early_total", ("reason", "trace_size")), 1);
}

#[test]
fn caches_remember_decisions_beyond_the_traces() {
    let caches =
        "num_traces: 1, decision_cache: { sampled_cache_size: 2, non_sampled_cache_size: 2 },";
    let mut bench = Bench::new(&settings(caches, ERRORS));
    for trace in 1..=6 {
        let one = if trace % 2 == 0 { span(trace) } else { failed(trace) };
        bench.take(u64::from(trace) * 10_000, vec![one]);
        bench.release(u64::from(trace) * 10_000 + 4000);
    }
    assert_eq!(bench.tally.sampled, 3);
    // 4 and 6 are remembered as left out, 2 no longer.
    assert_eq!(bench.take(90_000, vec![failed(4), failed(6)]), NONE);
    assert_eq!(bench.tally.sampled, 5);
    bench.take(90_000, vec![failed(2)]);
    assert_eq!(bench.release(94_000), [2]);
    assert_eq!(bench.tally.sampled, 5);
}

#[test]
fn pending_traces_can_be_dropped_at_the_end() {
    let mut bench = Bench::new(&settings("drop_pending_traces_on_shutdown: true,", ERRORS));
    bench.take(0, vec![failed(1)]);
    bench.take(2500, vec![failed(2)]);
    // The first one's time has come.
    let left = bench.sampler.release(bench.at(3000), true, &mut bench.tally);
    assert_eq!(numbers(&left), [1]);
    assert_eq!(bench.tally, Tally { sampled: 1, ..Tally::default() });
}

/// What one policy says of spans that come together: `sampled`, `not_sampled` or `dropped`.
fn said(policy: &str, spans: &[Span]) -> &'static str {
    let mut bench = Bench::new(&settings("", &format!("{{ name: it, {policy} }}")));
    bench.take(0, spans.to_vec());
    bench.release(3000);
    let of = |decision| bench.count("tap_policy_traces_total", ("decision", decision));
    ["sampled", "not_sampled", "dropped"].into_iter().find(|it| of(it) == 1).unwrap()
}

fn with(of_resource: &[(&str, Value)], of_span: &[(&str, Value)]) -> Span {
    let attributes = |of: &[(&str, Value)]| {
        let mut all = Attributes::default();
        of.iter().for_each(|(key, value)| all.set(*key, value.clone()));
        all
    };
    let resource = Resource { attributes: attributes(of_resource), ..Resource::default() };
    let source = Source { resource: Arc::new(resource), ..Source::default() };
    Span { attributes: attributes(of_span), source, ..span(1) }
}

#[test]
fn attributes_decide_as_in_the_collector() {
    let text = |key, value: &str| with(&[], &[(key, value.into())]);
    let of_resource = |key, value: &str| with(&[(key, value.into())], &[]);
    let number = |value: i64| with(&[], &[("n", value.into())]);
    let string =
        |more: &str| format!("type: string_attribute, string_attribute: {{ key: k, {more} }}");
    let exact = string("values: [v]");
    let pattern = string("values: ['v[0-9]+.HEALTHZ$', plain], enabled_regex_matching: true");
    let not_exact = string("values: [v, w], invert_match: true");
    let not_pattern = string(
        "values: ['v[0-9]+'], enabled_regex_matching: true, invert_match: true, cache_max_size: 3",
    );
    let any = string("values: ['.*'], enabled_regex_matching: true");
    let numeric =
        |more: &str| format!("type: numeric_attribute, numeric_attribute: {{ key: n, {more} }}");
    let boolean =
        |more: &str| format!("type: boolean_attribute, boolean_attribute: {{ key: b, {more} }}");
    let truth = |value: Value| with(&[], &[("b", value)]);
    for (policy, spans, expected) in [
        (&exact, vec![text("other", "v")], false),
        (&exact, vec![text("k", "w")], false),
        (&exact, vec![text("k", "v")], true),
        (&exact, vec![text("k", "w"), text("k", "v")], true),
        (&exact, vec![of_resource("k", "v")], true),
        (&exact, vec![of_resource("k", "w")], false),
        (&string("values: []"), vec![text("k", "v")], false),
        (&string("values: ['']"), vec![text("k", "")], false),
        (&pattern, vec![text("k", "grpc.v1.HEALTHZ")], true),
        (&pattern, vec![text("k", "grpc.v1.HEALTHZ.")], false),
        // A pattern may be anywhere in the text.
        (&pattern, vec![of_resource("k", "a plain one")], true),
        // The empty text is asked of a resource, and never of a span.
        (&any, vec![with(&[], &[("k", 7.into())])], false),
        (&any, vec![with(&[("k", 7.into())], &[])], true),
        (&not_exact, vec![text("other", "v")], true),
        (&not_exact, vec![text("k", "x"), of_resource("k", "y")], true),
        (&not_exact, vec![text("k", "x"), text("k", "w")], false),
        (&not_exact, vec![of_resource("k", "v")], false),
        (&not_pattern, vec![text("k", "v1")], false),
        (&not_pattern, vec![text("k", "w1")], true),
        (&numeric("min_value: 2, max_value: 4"), vec![number(1)], false),
        (&numeric("min_value: 2, max_value: 4"), vec![number(2)], true),
        (&numeric("min_value: 2, max_value: 4"), vec![number(4)], true),
        (&numeric("min_value: 2, max_value: 4"), vec![number(5), number(3)], true),
        (&numeric("min_value: 2"), vec![number(i64::MAX)], true),
        (&numeric("max_value: 2"), vec![number(i64::MIN)], true),
        (&numeric("min_value: -5, max_value: 4, invert_match: true"), vec![number(3)], false),
        (&numeric("min_value: 2, max_value: 4, invert_match: true"), vec![number(5)], true),
        // What is no whole number is 0.
        (&numeric("min_value: -1, max_value: 4"), vec![with(&[], &[("n", "7".into())])], true),
        (&numeric("min_value: 1, max_value: 9"), vec![with(&[], &[("n", 7.0.into())])], false),
        (&boolean("value: true"), vec![truth(true.into())], true),
        (&boolean("value: true"), vec![truth(false.into())], false),
        (&boolean("value: false"), vec![truth("text".into())], true),
        (&boolean("value: true, invert_match: true"), vec![truth(true.into())], false),
        (&boolean("value: true, invert_match: true"), vec![span(1)], true),
        (&boolean("value: false"), vec![span(1)], false),
    ] {
        let expected = if expected { "sampled" } else { "not_sampled" };
        assert_eq!(said(policy, &spans), expected, "{policy} {spans:?}");
    }
}

#[test]
fn other_policies_decide_as_in_the_collector() {
    const MS: u64 = 1_000_000;
    let timed = |start: u64, took: u64| Span {
        start_ns: (1_000_000 + start) * MS,
        end_ns: (1_000_000 + start + took) * MS,
        ..span(1)
    };
    let state = |text: &str| Span { trace_state: text.into(), ..span(1) };
    let mut eventful = span(1);
    eventful.events.push(Event { name: "exception".into(), ..Event::default() });
    let latency = "type: latency, latency: { threshold_ms: 5000 }";
    let between = "type: latency, latency: { threshold_ms: 5000, upper_threshold_ms: 10000 }";
    let count = "type: span_count, span_count: { min_spans: 2, max_spans: 3 }";
    let of_state = "type: trace_state, trace_state: { key: tracestate, values: [a, b] }";
    let cel =
        "type: cel, cel: { span: ['name == \"slow\"'], spanevent: ['name == \"exception\"'] }";
    let with_code =
        |codes: &str| format!("type: status_code, status_code: {{ status_codes: [{codes}] }}");
    for (policy, spans, expected) in [
        (latency, vec![timed(0, 4500)], false),
        (latency, vec![timed(0, 5000)], false),
        (latency, vec![timed(0, 5001)], true),
        (latency, vec![timed(0, 3000), timed(2500, 3000)], true),
        (between, vec![timed(0, 4500)], false),
        (between, vec![timed(0, 5001)], true),
        (between, vec![timed(0, 10_000)], true),
        (between, vec![timed(0, 10_001)], false),
        // Long enough on the way, though too long in the end.
        (between, vec![timed(0, 6000), timed(0, 20_000)], true),
        (between, vec![timed(0, 20_000), timed(0, 6000)], false),
        (&with_code("ERROR, UNSET"), vec![Span { status: 1, ..span(1) }], false),
        (&with_code("ERROR, UNSET"), vec![Span { status: 1, ..span(1) }, failed(1)], true),
        (&with_code("OK"), vec![Span { status: 1, ..span(1) }], true),
        (&with_code("UNSET"), vec![span(1)], true),
        (count, vec![span(1)], false),
        (count, vec![span(1), span(1)], true),
        (count, vec![span(1); 3], true),
        (count, vec![span(1); 4], false),
        ("type: span_count, span_count: { min_spans: 2 }", vec![span(1); 9], true),
        (of_state, vec![state("tracestate=b")], true),
        (of_state, vec![state("tracestate=c"), state("x=y,tracestate=a")], true),
        (of_state, vec![state("other=a")], false),
        (of_state, vec![state("tracestate=a,broken")], false),
        (of_state, vec![state("")], false),
        ("type: trace_flags", vec![Span { flags: 0x101, ..span(1) }], true),
        ("type: trace_flags", vec![Span { flags: 0x100, ..span(1) }], false),
        (cel, vec![span(1)], false),
        (cel, vec![span(1), Span { name: "slow".into(), ..span(1) }], true),
        (cel, vec![eventful], true),
        // A condition that cannot be told does not hold.
        (
            "type: cel, cel: { error_mode: silent, span: ['attributes[\"n\"] > 1'] }",
            vec![span(1)],
            false,
        ),
        ("type: always_sample", vec![span(1)], true),
    ] {
        let expected = if expected { "sampled" } else { "not_sampled" };
        assert_eq!(said(policy, &spans), expected, "{policy} {spans:?}");
    }
}

#[test]
fn policies_within_others() {
    const KEEP: &str = "name: a, type: always_sample";
    const LEAVE: &str = "name: b, type: span_count, span_count: { min_spans: 9 }";
    let not = |inner: &str| format!("name: n, type: not, not: {{ not_sub_policy: {{ {inner} }} }}");
    let (not_keep, not_leave) = (not(KEEP), not(LEAVE));
    let list = |kind: &str, inner: &[&str]| {
        let inner: Vec<String> = inner.iter().map(|it| format!("{{ {it} }}")).collect();
        format!("type: {kind}, {kind}: {{ {kind}_sub_policy: [{}] }}", inner.join(", "))
    };
    for (policy, expected) in [
        (list("and", &[KEEP, KEEP]), "sampled"),
        (list("and", &[KEEP, LEAVE]), "not_sampled"),
        (list("and", &[KEEP, &not_leave]), "sampled"),
        (list("and", &[KEEP, &not_keep]), "not_sampled"),
        (list("drop", &[KEEP]), "dropped"),
        (list("drop", &[KEEP, LEAVE]), "not_sampled"),
        (list("drop", &[KEEP, &not_leave]), "dropped"),
        (not_keep.replace("name: n, ", ""), "not_sampled"),
        (not_leave.replace("name: n, ", ""), "sampled"),
    ] {
        assert_eq!(said(&policy, &[span(1)]), expected, "{policy}");
    }
    // One that drops is asked first, wherever it stands; else one that keeps is enough.
    let all = "{ name: a, type: always_sample }";
    let none = "{ name: b, type: span_count, span_count: { min_spans: 9 } }";
    let drop = "{ name: d, type: drop, drop: { drop_sub_policy: [{ name: e, type: status_code, \
                status_code: { status_codes: [ERROR] } }] } }";
    for (policies, spans, kept) in [
        (format!("{none}, {all}"), vec![span(1)], true),
        (none.to_owned(), vec![span(1)], false),
        (format!("{all}, {drop}"), vec![span(1)], true),
        (format!("{all}, {drop}"), vec![failed(1)], false),
        (format!("{drop}, {none}"), vec![span(1)], false),
    ] {
        let mut bench = Bench::new(&settings("", &policies));
        bench.take(0, spans);
        assert_eq!(bench.release(3000).len(), usize::from(kept), "{policies}");
    }
    // Those after the first that keeps it are asked too, unless told otherwise.
    for (first, asked) in [(false, 1), (true, 0)] {
        let more = format!("sample_on_first_match: {first},");
        let mut bench = Bench::new(&settings(&more, &format!("{all}, {none}")));
        bench.take(0, vec![span(1)]);
        bench.release(3000);
        assert_eq!(bench.count("tap_policy_decisions_total", ("policy", "b")), asked);
    }
}

#[test]
fn rates_are_buckets_that_fill() {
    for (policy, seconds, kept) in [
        // Full at the start: twice what comes in in a second.
        ("rate_limiting, rate_limiting: { spans_per_second: 3 }", [0, 0, 0], vec![1, 2, 3]),
        ("rate_limiting, rate_limiting: { spans_per_second: 2 }", [0, 0, 0], vec![1, 2]),
        ("rate_limiting, rate_limiting: { spans_per_second: 2 }", [0, 0, 1], vec![1, 2, 3]),
        (
            "rate_limiting, rate_limiting: { spans_per_second: 2, burst_capacity: 2 }",
            [0, 0, 1],
            vec![1, 3],
        ),
        // None is as large.
        (
            "rate_limiting, rate_limiting: { spans_per_second: 9, burst_capacity: 1 }",
            [0, 1, 2],
            vec![],
        ),
        ("rate_limiting, rate_limiting: {}", [0, 1, 2], vec![]),
        (
            "bytes_limiting, bytes_limiting: { bytes_per_second: 1, burst_capacity: 150 }",
            [0, 0, 9],
            vec![1],
        ),
        (
            "bytes_limiting, bytes_limiting: { bytes_per_second: 100, burst_capacity: 150 }",
            [0, 0, 1],
            vec![1, 3],
        ),
    ] {
        let mut bench = Bench::new(&settings("", &format!("{{ name: it, type: {policy} }}")));
        let mut left = Vec::new();
        for (trace, second) in (1..).zip(seconds) {
            bench.take(second * 1000, vec![span(trace), span(trace)]);
        }
        for second in 0..20 {
            left.extend(bench.release(second * 1000));
        }
        left.dedup();
        assert_eq!(left, kept, "{policy} {seconds:?}");
    }
}

#[test]
fn composite_shares_a_rate() {
    let composite = |more: &str| {
        format!(
            "{{ name: it, type: composite, composite: {{ max_total_spans_per_second: 10, \
             composite_sub_policy: [{{ name: errors, type: status_code, status_code: {{ \
             status_codes: [ERROR] }} }}, {{ name: all, type: always_sample }}], {more} }} }}"
        )
    };
    for (more, kept) in [
        // Errors have 4 of 10, the others 5.
        (
            "policy_order: [errors, all], rate_allocation: [{ policy: errors, percent: 40 }, { policy: all }]",
            vec![1, 3, 2, 4, 6, 8, 10, 5, 7, 12, 14],
        ),
        // Without a share of its own a policy keeps nothing; the first that would decides.
        ("rate_allocation: [{ policy: errors, percent: 20 }]", vec![1, 5]),
        ("rate_allocation: [{ policy: all, percent: 100 }]", vec![2, 4, 6, 8, 10, 12, 14]),
    ] {
        let mut bench = Bench::new(&settings("", &composite(more)));
        let two = |trace: u32| match trace % 2 {
            1 => vec![failed(trace), span(trace)],
            _ => vec![span(trace)],
        };
        // More than fit in the first second; a few in the next.
        bench.take(0, [1, 3, 2, 4, 6, 8, 10].into_iter().flat_map(two).collect());
        bench.take(1000, [5, 7, 12, 14].into_iter().flat_map(two).collect());
        let mut left = bench.release(3000);
        left.extend(bench.release(4000));
        left.dedup();
        assert_eq!(left, kept, "{more}");
    }
}

#[test]
fn bad_settings_are_told() {
    let policy = |text: &str| format!("{{ policies: [{{ name: p, {text} }}] }}");
    for (yaml, part) in [
        ("{}", "needs `policies`"),
        ("", "needs `policies`"),
        ("{ policies: [], num_trace: 1 }", "num_trace"),
        ("{ policies: [{ type: always_sample }] }", "needs a `name`"),
        ("{ policies: [{ name: a, type: always_sample }, { name: a, type: latency }] }", "twice"),
        ("{ num_traces: 0, policies: [{ name: a, type: latency }] }", "num_traces"),
        ("{ decision_wait: 2d, policies: [{ name: a, type: latency }] }", "no duration"),
        ("{ block_on_overflow: true, policies: [{ name: a, type: latency }] }", "decided on early"),
        ("{ tail_storage: disk, policies: [{ name: a, type: latency }] }", "wait in memory"),
        ("{ sampling_strategy: span-ingest, policies: [{ name: a, type: latency }] }", "complete"),
        (&policy("kind: latency"), "kind"),
        (&policy("type: ottl_condition, ottl_condition: { span: [] }"), "use `type: cel`"),
        (&policy("type: latencies"), "did you mean `latency`"),
        (&policy("type: numeric_attribute, numeric_attribute: { key: k }"), "min_value"),
        (&policy("type: status_code"), "status_codes"),
        (
            &policy("type: status_code, status_code: { status_codes: [Error] }"),
            "`Error` is no status",
        ),
        (
            &policy(
                "type: string_attribute, string_attribute: { values: ['('], enabled_regex_matching: true }",
            ),
            "no pattern",
        ),
        (
            &policy(
                "type: string_attribute, string_attribute: { values: ['(a{999}){999}'], enabled_regex_matching: true }",
            ),
            "no pattern",
        ),
        (&policy("type: cel"), "needs conditions"),
        (&policy("type: cel, cel: { span: ['nam == 1'] }"), "`nam`"),
        (&policy("type: and"), "and_sub_policy"),
        (
            &policy("type: and, and: { and_sub_policy: [{ type: composite }] }"),
            "cannot stand within",
        ),
        (&policy("type: not"), "not_sub_policy"),
        (&policy("type: probabilistic, probabilistic: { sampling_percentage: .nan }"), "no number"),
        (
            &policy(
                "type: composite, composite: { composite_sub_policy: [{ name: a, type: latency }], policy_order: [b] }",
            ),
            "`b`",
        ),
    ] {
        let error = serde_yaml::from_str::<TailSampling>(yaml).unwrap_err().to_string();
        assert!(error.contains(part), "{yaml}: {error}");
    }
    // Deep in one another there are none.
    let deep = "{ and: { and_sub_policy: [".repeat(500);
    assert!(serde_yaml::from_str::<TailSampling>(&format!("{{ policies: [{deep}")).is_err());
}

#[test]
fn log_records_follow_the_verdict_on_their_trace() {
    let settings = settings("", ERRORS);
    let mut bench = Bench::new(&settings);
    let place = Place { pipeline: "logs", processor: &bench.name, shared: &bench.shared };
    let mut follower = Follower::new(&settings, &place);
    let mut tally = Tally::default();
    let record = |trace: u32| LogRecord { trace_id: id(trace), ..LogRecord::default() };
    let told = |records: &[LogRecord]| -> Vec<u8> {
        records.iter().map(|record| record.trace_id[15]).collect()
    };
    // Without a trace it goes on; 3 has no span yet.
    let mut batch = vec![record(1), record(2), LogRecord::default(), record(3), record(1)];
    follower.process(&mut batch, bench.at(100), &mut tally);
    assert_eq!(told(&batch), [0]);
    bench.take(200, vec![failed(1), span(2)]);
    assert!(follower.due().unwrap() <= bench.at(600));
    assert!(follower.release(bench.at(600), false, &mut tally).is_empty());
    assert_eq!(bench.release(3000), [1]);
    assert_eq!(told(&follower.release(bench.at(3100), false, &mut tally)), [1, 1]);
    assert_eq!(tally, Tally { sampled: 1, ..Tally::default() });
    // At once, now that it is known.
    let mut batch = vec![record(2), record(1)];
    follower.process(&mut batch, bench.at(3200), &mut tally);
    assert_eq!(told(&batch), [1]);
    assert_eq!(tally.sampled, 2);
    // Nothing is decided on 3 in time: its connection is open.
    assert!(follower.release(bench.at(4000), false, &mut tally).is_empty());
    assert_eq!(told(&follower.release(bench.at(4100), false, &mut tally)), [3]);
    assert_eq!(follower.due(), None);
    follower.process(&mut vec![record(4)], bench.at(5000), &mut tally);
    assert_eq!(told(&follower.release(bench.at(5000), true, &mut tally)), [4]);
    assert_eq!(tally.sampled, 2);
    let how = |how| bench.count("tap_policy_followed_records_total", ("how", how));
    let all = ["sampled", "not_sampled", "undecided", "no_trace", "no_room"].map(how);
    assert_eq!(all, [3, 2, 2, 1, 0]);
}

#[test]
fn log_records_that_wait_are_bounded() {
    let settings = settings("maximum_buffer_size_bytes: 1048576,", ERRORS);
    let bench = Bench::new(&settings);
    let place = Place { pipeline: "logs", processor: &bench.name, shared: &bench.shared };
    let mut follower = Follower::new(&settings, &place);
    let (mut tally, mut passed) = (Tally::default(), 0);
    for trace in 0..100 {
        let body = Value::from("x".repeat(50_000));
        let mut batch = vec![LogRecord { trace_id: id(trace), body, ..LogRecord::default() }];
        follower.process(&mut batch, bench.at(100), &mut tally);
        passed += batch.len() as u64;
    }
    assert_eq!(bench.count("tap_policy_followed_records_total", ("how", "no_room")), passed);
    let left = follower.release(bench.at(100), true, &mut tally).len() as u64;
    assert!((15..25).contains(&left), "{left}");
    assert_eq!((passed + left, tally), (100, Tally::default()));
}
