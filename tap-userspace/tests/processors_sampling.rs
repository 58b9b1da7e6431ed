//! Pipelines that sample and limit, against collectors in this process: what arrives where, and what is
//! counted at which exporter.

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{collector::Collector, plain, processing, try_start};
use tap_userspace::{connection::model::Connection, export::Exporters};

/// Starts a pipeline of traces to `collector`.
fn start(collector: &Collector, processors: &str, order: &str) -> Exporters {
    let exporters = format!("otlp/it: {{ endpoint: 'http://{}' }}", collector.address);
    let pipelines = format!("traces: {{ processors: [{order}], exporters: [otlp/it] }}");
    let config = processing(&exporters, processors, &pipelines);
    try_start(&config, &[("OTEL_BSP_SCHEDULE_DELAY", "20")]).unwrap_or_else(|e| panic!("{e}"))
}

fn many(count: u64) -> Vec<Connection> {
    (0..count).map(plain).collect()
}

async fn shutdown(exporters: Exporters) -> Value {
    let counters = exporters.counters();
    let mut told = exporters.shutdown(Instant::now() + Duration::from_secs(3)).await;
    for items in counters.items() {
        let counts = items.counts();
        assert!(counts.balance(), "{} {} {counts:?}", items.signal, items.exporter);
        assert_eq!(counts.held + counts.queued, 0, "{} {counts:?}", items.exporter);
    }
    told["traces"]["otlp/it"].take()
}

/// The cookies of spans that a collector has.
fn cookies(collector: &Collector) -> BTreeSet<u64> {
    let id = |id: Vec<u8>| u64::from_be_bytes(id.try_into().unwrap()) - 1;
    collector.spans().into_iter().map(|span| id(span.span_id)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_kept_and_says_so() {
    let collector = Collector::start([]).await;
    let sampler =
        "probabilistic_sampler: { sampling_percentage: 25, mode: equalizing, fail_closed: true }";
    let exporters = start(&collector, sampler, "probabilistic_sampler");
    for _ in 0..4 {
        exporters.offer(many(1000));
    }
    let told = shutdown(exporters).await;
    // Three quarters of 2^56 are left out.
    let is_kept = |connection: &Connection| {
        let low = u64::from_be_bytes(connection.identity.trace_id[8..].try_into().unwrap());
        low & ((1 << 56) - 1) >= 3 << 54
    };
    let kept = many(1000).iter().filter(|it| is_kept(it)).count() as u64;
    assert!((200..300).contains(&kept), "{kept}");
    assert_eq!(told["produced"], 4000);
    assert_eq!(told["sampled"], 4000 - 4 * kept);
    assert_eq!(told["exported"], 4 * kept);
    let spans = collector.spans();
    assert_eq!(spans.len() as u64, 4 * kept);
    assert!(spans.iter().all(|span| span.trace_state == "ot=th:c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_traces_are_decided_on_and_late_spans_follow() {
    let collector = Collector::start([]).await;
    let sampler = "tail_sampling: { decision_wait: 1s, policies: [{ name: it, type: \
                   numeric_attribute, numeric_attribute: { key: connection.cookie, min_value: 600, \
                   max_value: 899 } }] }";
    let exporters = start(&collector, sampler, "tail_sampling");
    exporters.offer(many(1000));
    // It is decided after two seconds at most.
    let begun = Instant::now();
    while collector.spans().len() < 300 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", collector.spans().len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cookies(&collector), (600..900).collect());
    // What comes later is not asked any more.
    let late = many(1000).into_iter().map(|connection| Connection { cookie: 5, ..connection });
    exporters.offer(late.collect());
    // And at the end nothing is waited for.
    exporters.offer((2000..2100).map(plain).map(|it| Connection { cookie: 700, ..it }).collect());
    let told = shutdown(exporters).await;
    assert_eq!(told["produced"], 2100);
    assert_eq!(told["exported"], 700);
    assert_eq!(told["sampled"], 1400);
    assert_eq!(cookies(&collector), (600..900).chain(2000..2100).collect());
    assert_eq!(collector.spans().len(), 700);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_refused_while_memory_is_short() {
    let collector = Collector::start([]).await;
    // tap uses more than this in any case.
    let limiter = "memory_limiter: { check_interval: 100ms, limit_mib: 1 }";
    let exporters = start(&collector, limiter, "memory_limiter");
    assert!(!exporters.pressure().is_on());
    exporters.offer(many(1000));
    let begun = Instant::now();
    while !exporters.pressure().is_on() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    exporters.offer(many(500));
    let pressure = exporters.pressure();
    let told = shutdown(exporters).await;
    assert_eq!((&told["produced"], &told["refused"]), (&1500.into(), &1500.into()));
    assert!(collector.spans().is_empty());
    // Its word goes with it, a moment later.
    let begun = Instant::now();
    while pressure.is_on() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let collector = Collector::start([]).await;
    let limiter = "memory_limiter: { check_interval: 1s, limit_mib: 1000000 }";
    let exporters = start(&collector, limiter, "memory_limiter");
    exporters.offer(many(1000));
    let told = shutdown(exporters).await;
    assert_eq!((&told["exported"], &told["refused"]), (&1000.into(), &0.into()));
}
