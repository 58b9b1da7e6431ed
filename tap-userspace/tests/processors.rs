//! Pipelines with processors, against collectors in this process: what arrives where, and what is
//! counted at which exporter.

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    collector::{Answer, Collector},
    plain, processing, try_start,
};
use tap_userspace::{
    config::{environment::Environment, file::Config, pipelines::Pipelines},
    connection::model::Connection,
    export::Exporters,
    telemetry::{log::Terms, resource::Resource},
};

fn start(exporters: &str, processors: &str, pipelines: &str) -> Exporters {
    let config = processing(exporters, processors, pipelines);
    try_start(&config, &[("OTEL_BSP_SCHEDULE_DELAY", "20")]).unwrap_or_else(|e| panic!("{e}"))
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

/// The terms of spans at an exporter that are not 0.
fn terms(told: &Value, exporter: &str) -> Vec<(String, u64)> {
    let terms = told["traces"][exporter].as_object().unwrap();
    let number = |(name, value): (&String, &Value)| {
        value.as_u64().filter(|&number| number > 0).map(|number| (name.clone(), number))
    };
    terms.iter().filter_map(number).collect()
}

fn named(terms: &[(&str, u64)]) -> Vec<(String, u64)> {
    terms.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pipeline_filters_for_its_exporters() {
    let (all, some, none) =
        (Collector::start([]).await, Collector::start([]).await, Collector::start([]).await);
    let config = format!(
        "otlp/all: {{ endpoint: 'http://{}' }}, otlp/some: {{ endpoint: 'http://{}' }}, \
         otlp/none: {{ endpoint: 'http://{}' }}",
        all.address, some.address, none.address
    );
    let processors = r#"
        filter/even: { traces: { span: ['attributes["connection.cookie"] % 2 == 0'] } },
        filter/all: { traces: { span: ['name == "Connection" && resource.attributes["service.name"] == "tap"'] } },
        filter/events: { traces: { spanevent: ['name == "DataEvent"'] } }"#;
    let pipelines = "traces: { exporters: [otlp/all] }, \
                     traces/some: { processors: [filter/even, filter/events], exporters: [otlp/some] }, \
                     traces/none: { processors: [filter/all], exporters: [otlp/none] }";
    let exporters = start(&config, processors, pipelines);
    for _ in 0..10 {
        exporters.offer(many(100));
    }
    let told = shutdown(exporters).await;
    assert_eq!(terms(&told, "otlp/all"), named(&[("exported", 1000), ("produced", 1000)]));
    let half = named(&[("exported", 500), ("filtered", 500), ("produced", 1000)]);
    assert_eq!(terms(&told, "otlp/some"), half);
    assert_eq!(terms(&told, "otlp/none"), named(&[("filtered", 1000), ("produced", 1000)]));
    assert_eq!((all.spans().len(), some.spans().len(), none.spans().len()), (1000, 500, 0));
    // But for the events a span arrives as it would without processors.
    let direct = all.spans();
    for mut span in some.spans() {
        assert!(!span.events.is_empty());
        assert!(span.events.iter().all(|event| event.name != "DataEvent"));
        let mut same = direct.iter().find(|it| it.span_id == span.span_id).unwrap().clone();
        same.events.retain(|event| event.name != "DataEvent");
        assert_eq!(same, span);
        span.events.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_processors_hold_as_tap_leaves_is_counted_once() {
    let hangs = Collector::start(std::iter::repeat_n(Answer::Hang, 1000)).await;
    let config = format!("otlp/hangs: {{ endpoint: 'http://{}' }}", hangs.address);
    let processors = "filter: { traces: { span: ['attributes[\"connection.cookie\"] == 7'] } }";
    let pipelines = "traces: { processors: [filter], exporters: [otlp/hangs] }";
    let exporters = start(&config, processors, pipelines);
    exporters.offer(many(1500));
    let told = shutdown(exporters).await;
    let of = &told["traces"]["otlp/hangs"];
    assert_eq!(of["produced"], 1500);
    assert_eq!(of["filtered"], 1);
    assert_eq!(of["dropped"]["shutdown"], 1499, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processors_are_swapped_under_load_and_nothing_is_lost() {
    let collector = Collector::start([]).await;
    let exporter = format!("otlp/x: {{ endpoint: 'http://{}' }}", collector.address);
    let filters = "filter/odd: { traces: { span: ['attributes[\"connection.cookie\"] % 2 == 1'] } }, \
                   filter/even: { traces: { span: ['attributes[\"connection.cookie\"] % 2 == 0'] } }";
    let with = |list: &str| {
        let line = format!("traces: {{ processors: [{list}], exporters: [otlp/x] }}");
        processing(&exporter, filters, &line)
    };
    let resolve = |config: &Config| {
        let environment = Environment::read_over(std::iter::empty::<(&str, &str)>(), config);
        Pipelines::resolve(config, &environment.unwrap()).unwrap()
    };
    let lists = ["", "filter/odd", "filter/even", "filter/even, filter/odd"];
    let pipelines = lists.map(|list| resolve(&with(list)));
    let mut live = pipelines[0].clone();
    live.live = true;
    let environment =
        Environment::read_over([("OTEL_BSP_SCHEDULE_DELAY", "5")], &with("")).unwrap();
    let exporters = Exporters::start(
        &environment,
        &live,
        Resource::detect(&environment),
        &tokio::runtime::Handle::current(),
        false,
        &Terms::default(),
    )
    .unwrap();
    for round in 0..1000 {
        exporters.offer(many(10));
        exporters.swap().apply(&pipelines[round % pipelines.len()]);
        if round % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // The last one swapped in drops all.
    let before = Instant::now();
    exporters.swap().apply(&pipelines[3]);
    while exporters.counters().items()[0].counts().queued > 0 {
        assert!(before.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let filtered = |of: &Exporters| of.counters().items()[0].counts().filtered;
    let so_far = filtered(&exporters);
    exporters.offer(many(100));
    while filtered(&exporters) < so_far + 100 {
        assert!(before.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told = shutdown(exporters).await;
    let of = &told["traces"]["otlp/x"];
    assert_eq!(of["produced"], 10_100);
    let (kept, filtered) = (of["exported"].as_u64().unwrap(), of["filtered"].as_u64().unwrap());
    assert_eq!(kept + filtered, 10_100, "{told}");
    assert_eq!(collector.spans().len() as u64, kept);
}
