//! Measures what a span costs in each processor, and in those of a configuration file:
//! `cargo xtask bench policy`, or `cargo run --release --example policy -p tap-userspace [FILE…]`.

#[path = "../tests/support/mod.rs"]
#[allow(unused_imports, missing_docs, reason = "the tests' connections, not their collectors")]
mod support;

use std::{
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tap_userspace::{
    config::{
        environment::{Environment, Signal},
        file::Config,
        pipelines::Pipelines,
        processors::Processor,
    },
    export::spans::{SpanOf, Spans},
    policy::{
        chain,
        data::{Record as _, Span},
        processor::Tally,
        stage::{Chain, Making},
    },
    telemetry::{log, resource::Resource},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many as the stage takes at a time.
const BATCH: usize = 512;
/// Rounds of all, one after the other, so that a busy moment of the machine meets each.
const ROUNDS: usize = 200;

/// Each processor with settings that have work to do on tap's spans.
const PROCESSORS: &[(&str, &str)] = &[
    ("memory_limiter", "{ check_interval: 1s, limit_mib: 4000 }"),
    ("filter", r#"{ traces: { span: ['attributes["url.path"] == "/healthz"'] } }"#),
    (
        "filter",
        r#"{ traces: { span: ['attributes["process.executable.name"] == "curl" && duration_ms > 60000.0', 'attributes["server.port"] == 9090'] } }"#,
    ),
    (
        "attributes",
        "{ actions: [{ key: process.owner, action: hash }, { key: env, value: a, action: insert }] }",
    ),
    ("resource", "{ attributes: [{ key: zone, value: a, action: insert }] }"),
    ("redaction", "{ allow_all_keys: true, detect: [card_number, email, jwt] }"),
    ("redaction", "{ allow_all_keys: true, blocked_values: ['[a-z]+@[a-z.]+'] }"),
    (
        "transform",
        r#"{ trace_statements: ['set(span.attributes["env"], "a") where span.attributes["server.port"] == 443'] }"#,
    ),
    ("groupbyattrs", "{ keys: [process.executable.name] }"),
    ("probabilistic_sampler", "{ sampling_percentage: 10 }"),
    (
        "tail_sampling",
        "{ decision_wait: 10s, policies: [{ name: errors, type: status_code, status_code: { status_codes: [ERROR] } }, { name: slow, type: latency, latency: { threshold_ms: 1000 } }, { name: rest, type: probabilistic, probabilistic: { sampling_percentage: 10 } }] }",
    ),
];

/// Something to measure.
struct Subject {
    name: String,
    run: Box<dyn FnMut(Vec<Span>) -> Duration>,
    times: Vec<f64>,
}

fn main() {
    let environment = Environment::read(std::iter::empty::<(String, String)>()).unwrap();
    let resource = Resource::detect(&environment);
    let making = Making::new(Spans(log::Terms::default()), &resource);
    let items: Vec<SpanOf> =
        (0..BATCH as u64).map(support::plain).map(SpanOf::Connection).collect();
    let mut scratch = Vec::new();
    let records: Vec<Span> =
        items.iter().map(|item| making.record(item, &mut scratch).unwrap()).collect();

    let mut subjects = vec![of("into OTLP's model", move |_| {
        let mut scratch = Vec::new();
        time(|| {
            let made = items.iter().filter_map(|item| making.record::<Span>(item, &mut scratch));
            black_box(made.collect::<Vec<Span>>());
        })
    })];
    subjects.push(of("and out of it", |batch| {
        let mut out = Vec::with_capacity(1 << 20);
        time(|| batch.iter().for_each(|span| span.encode(&mut out)))
    }));
    for (name, settings) in PROCESSORS {
        let named = chain_of(name, settings);
        subjects.push(of(&format!("{name} {settings}"), through(&named)));
    }
    for file in std::env::args().skip(1) {
        let config = Config::load(Path::new(&file)).unwrap_or_else(|error| panic!("{error}"));
        let environment = Environment::read_over(std::iter::empty::<(&str, &str)>(), &config);
        let pipelines = Pipelines::resolve(&config, &environment.unwrap()).unwrap();
        for line in pipelines.lines(Signal::Traces) {
            let run = through(&line.processors);
            subjects.push(of(&format!("{file}, pipeline {}", line.name), run));
        }
    }
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            let took = (subject.run)(records.clone());
            subject.times.push(took.as_nanos() as f64 / BATCH as f64);
        }
    }
    println!("ns a span: median and best of {ROUNDS} batches of {BATCH}");
    for subject in &mut subjects {
        subject.times.sort_by(f64::total_cmp);
        let (median, best) = (subject.times[ROUNDS / 2], subject.times[0]);
        println!("{median:7.0} {best:7.0}  {}", subject.name);
    }
}

fn of(name: &str, run: impl FnMut(Vec<Span>) -> Duration + 'static) -> Subject {
    Subject { name: name.to_owned(), run: Box::new(run), times: Vec::new() }
}

fn chain_of(name: &str, settings: &str) -> Vec<(Arc<str>, Processor)> {
    let config = Config::parse(&format!("processors: {{ {name}: {settings} }}\n"))
        .unwrap_or_else(|error| panic!("{error}"));
    config.processors.iter().map(|(name, it)| (name.clone(), it.clone())).collect()
}

/// The time that processors take for a batch, with what they keep until its time has come.
fn through(named: &[(Arc<str>, Processor)]) -> impl FnMut(Vec<Span>) -> Duration + use<> {
    let mut chain: Chain<Span> = chain::of_spans("traces", named, &chain::Shared::default());
    let mut now = Instant::now();
    move |mut batch| {
        // Every batch has traces of its own, and comes when those before it are decided.
        now += Duration::from_secs(60);
        let ids: [u8; 8] = std::array::from_fn(|_| rand_byte());
        for span in &mut batch {
            span.trace_id[..8].copy_from_slice(&ids);
        }
        time(|| {
            let mut tally = Tally::default();
            for processor in &mut chain {
                batch.append(&mut processor.release(now, false, &mut tally));
                processor.process(&mut batch, now, &mut tally);
            }
            black_box((&batch, tally));
        })
    }
}

/// Enough of chance for ids.
fn rand_byte() -> u8 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) as u8
}

fn time(run: impl FnOnce()) -> Duration {
    let began = Instant::now();
    run();
    began.elapsed()
}
