use std::thread;

use super::*;
use crate::{
    connection::{
        identity::Xid,
        model::{Identity, Role},
        transaction::About,
    },
    export::{Sink, items::Counts, queue::Bounds},
    protocol::exchange::{Exchange, Http},
};

fn transaction(number: u32) -> Transaction {
    let [local, peer] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
    let about = About {
        id: Xid([7; 12]),
        identity: Identity { trace_id: [1; 16], span_id: [2; 8], peer_span_id: None },
        role: Role::Client,
        local: (local, 40_000),
        peer: (peer, 80),
        process: None,
    };
    let http = Http { method: "GET".into(), target: "/".into(), ..Http::default() };
    let exchange = Exchange {
        began_ns: 1,
        ended_ns: 2,
        bytes: [3, 4],
        message: Message::Http(Box::new(http)),
        gap: false,
    };
    Transaction { about: Arc::new(about), number, exchange, object: None }
}

/// A signal with one exporter, which takes nothing.
fn signal<T: crate::export::queue::Queued>(
    name: &'static str,
    counters: &mut ItemCounters,
) -> Sink<T> {
    let bounds =
        Bounds { items: 10_000, bytes: usize::MAX, batch: 10_000, delay: Duration::from_secs(60) };
    let queue = Arc::new(Queue::new(bounds, counters.add(name, "otlp")));
    Sink { sampler: Sampler::AlwaysOn, queues: [queue].into() }
}

/// The store is away, and a source that waits has filled everything before it when tap leaves: what
/// the thread cannot hand on is counted, and no unit of it twice.
#[test]
fn what_the_thread_cannot_finish_is_counted_as_lost() {
    const ALL: u64 = 60;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store =
        "{ type: s3, bucket: b, endpoint: 'http://127.0.0.1:1', access_key: a, secret_key: s }";
    let yaml = format!("store: {store}\nlevel: summary\nsending_queue: {{ queue_size: 1 }}");
    let config: HttpCapture = serde_yaml::from_str(&yaml).unwrap();
    let mut counters = ItemCounters::default();
    let out = Exchanges {
        logs: signal("logs", &mut counters),
        spans: signal("traces", &mut counters),
        wanted: [true; log::SCOPES.len()],
        objects: None,
    };
    let with = Start {
        config: &config,
        collect: None,
        redaction: Redaction::default(),
        sampler: Sampler::AlwaysOn,
        writes: Arc::default(),
        out: out.clone(),
    };
    let objects = Objects::start(with, &mut counters, runtime.handle()).unwrap().unwrap();
    let into = Exchanges { objects: Some(objects.intake()), ..out };
    // Batches of two, so that the thread is in the middle of one.
    let source = thread::spawn(move || {
        for number in (0..ALL as u32).step_by(2) {
            into.offer_waiting(vec![transaction(number), transaction(number + 1)]);
        }
    });
    source.join().unwrap();
    let [logs, traces, of_objects] = [0, 1, 2].map(|index| counters.items()[index].clone());
    runtime.block_on(async {
        let soon = Instant::now() + Duration::from_millis(200);
        let uploads = objects.close(soon).await;
        uploads.shutdown(soon).await;
    });
    let shutdown = |counts: &Counts| counts.dropped[Reason::Shutdown as usize];
    // The thread has come to its end by now.
    for (items, most) in [(&logs, 12), (&traces, 12)] {
        let counts = items.counts();
        assert_eq!(counts.produced, ALL, "{items:?}");
        assert_eq!(counts.queued + shutdown(&counts), ALL, "{items:?}");
        assert!(counts.queued <= most, "{items:?}");
    }
    let counts = of_objects.counts();
    assert_eq!((counts.produced, shutdown(&counts)), (ALL, ALL), "{of_objects:?}");
    thread::sleep(Duration::from_millis(50));
    assert_eq!([logs.counts().produced, of_objects.counts().produced], [ALL, ALL]);
}

#[test]
fn what_is_given_up_is_nobody_elses_to_count() {
    let inside = Inside::default();
    let due = |count| Due { objects: count, records: [0, count] };
    assert!(inside.add(due(5)).is_some() && inside.take(due(2)).is_some());
    let lost = inside.give_up();
    assert_eq!((lost.objects, lost.records), (3, [0, 3]));
    assert!(inside.take(due(1)).is_none() && inside.add(due(1)).is_none());
    assert_eq!(inside.give_up().objects, 0);
}
