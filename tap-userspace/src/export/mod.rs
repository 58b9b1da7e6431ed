//! Finished connections and exchanges leave: by OTLP, or to standard output. Comes in: batches
//! of [`Connection`]s and [`Transaction`]s through [`Sink`]s that never block; goes out: requests and lines, and [`Items`] that tell what
//! became of each.

pub mod client;
pub mod complaints;
pub mod console;
pub mod delivery;
pub mod disk;
mod grpc;
mod http;
pub mod items;
pub mod line;
pub mod object;
pub mod otlp;
pub mod queue;
pub mod records;
pub mod retry;
pub mod sender;
pub mod spans;
pub mod table;
pub mod transport;
pub mod writes;

use std::{
    io::IsTerminal as _,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use tokio::runtime::Handle;

use self::{
    delivery::Delivery,
    disk::DiskQueue,
    items::Items,
    object::Objects,
    queue::{Queue, Queued},
    records::{Lives, Records},
    spans::{Exchanges, SpanOf, Spans},
    writes::Writes,
};
use crate::{
    config::{
        environment::{Environment, Exporter, Otlp, Signal},
        exporters,
        http_capture::HttpCapture,
    },
    connection::model::Connection,
    policy::{redact::Redaction, sample::Sampler},
    protocol::content::Collect,
    telemetry::{
        log,
        meter::{self, Meter},
        metric::Registry,
        resource::Resource,
    },
};

/// Why exporting cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The way to the collector.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The queue on disk.
    #[error(transparent)]
    Queue(#[from] disk::OpenError),
    /// Objects of transactions.
    #[error(transparent)]
    Objects(#[from] object::Error),
    /// The thread that prints.
    #[error("there is no thread to print connections with: {0}; raise the limit on threads")]
    Thread(std::io::Error),
}

/// The exporters of one signal, and the way into them.
struct Ways<E: otlp::Encoder> {
    sink: Sink<E::Item>,
    /// The same without what prints.
    stores: Sink<E::Item>,
    otlp: Option<otlp::Exporter<E>>,
    console: Option<console::Exporter<E::Item>>,
}

/// How a signal is printed, if it is.
type Printing = Option<console::Form>;

impl<E: otlp::Encoder<Item: Clone + console::Printed>> Ways<E> {
    /// Starts what the environment names for `signal`.
    fn start(
        with: &mut Start<'_>,
        signal: Signal,
        name: &'static str,
        printing: Printing,
        encoder: E,
    ) -> Result<Self, Error> {
        let environment = with.environment;
        let mut queues = Vec::new();
        let mut otlp = None;
        if environment.exporters(signal).contains(&Exporter::Otlp) {
            let delivery = Delivery::new(&with.config.otlp, environment.batching(signal));
            let way = environment.otlp(signal);
            let waiting = with.queues(name, "otlp", &delivery, way)?;
            queues.push(waiting.memory.clone());
            otlp = Some(otlp::Exporter::start(
                way,
                &delivery,
                with.resource,
                encoder,
                waiting,
                with.handle,
            )?);
        }
        let sampler = environment.sampler();
        let stores = Sink { sampler, queues: queues.clone().into() };
        let mut console = None;
        if let Some(form) = printing {
            let bounds = Delivery::new(&Default::default(), environment.batching(signal)).bounds;
            let (queue, items) = with.queue(name, "console", bounds);
            queues.push(queue.clone());
            let printer = console::Printer::new(form, with.terms.clone(), std::io::stdout());
            console = Some(console::Exporter::start(printer, queue, items).map_err(Error::Thread)?);
        }
        let sink = Sink { sampler, queues: queues.into() };
        Ok(Self { sink, stores, otlp, console })
    }

    async fn shutdown(self, deadline: Instant) {
        let Self { sink, stores, otlp, console } = self;
        drop((sink, stores));
        let otlp = async {
            if let Some(otlp) = otlp {
                otlp.shutdown(deadline).await;
            }
        };
        let console = async {
            if let Some(console) = console {
                console.shutdown(deadline).await;
            }
        };
        tokio::join!(otlp, console);
    }
}

/// What the exporters of all signals start from.
struct Start<'a> {
    environment: &'a Environment,
    config: &'a exporters::Exporters,
    resource: &'a Resource,
    terms: &'a log::Terms,
    handle: &'a Handle,
    counters: ItemCounters,
    writes: Arc<Writes>,
}

impl Start<'_> {
    /// A queue and its counts for one exporter of a signal.
    fn queue<T: Queued>(
        &mut self,
        signal: &'static str,
        exporter: &'static str,
        bounds: queue::Bounds,
    ) -> (Arc<Queue<T>>, Arc<Items>) {
        let items = self.counters.add(signal, exporter);
        (Arc::new(Queue::new(bounds, items.clone())), items)
    }

    /// The same with a queue on disk, if `delivery` wants one.
    fn queues<T: Queued>(
        &mut self,
        signal: &'static str,
        exporter: &'static str,
        delivery: &Delivery,
        way: &Otlp,
    ) -> Result<otlp::Queues<T>, disk::OpenError> {
        let (memory, items) = self.queue(signal, exporter, delivery.bounds);
        let disk = delivery.storage.as_ref().map(|storage| {
            // An exporter may be named `otlp/tempo`, and has no other's folder.
            let own = format!("{}-{signal}", exporter.replace('/', "%2F"));
            let registry = self.counters.registry();
            DiskQueue::open(&storage.folder.join(own), storage.limits, items.clone(), registry)
        });
        let writer = self.writes.of(&items, way);
        Ok(otlp::Queues { memory, disk: disk.transpose()?, items, writer })
    }
}

/// All exporters, running.
pub struct Exporters {
    spans: Ways<Spans>,
    logs: Ways<Records>,
    /// Exchanges that have spans, by scope.
    children: [bool; log::SCOPES.len()],
    objects: Option<Objects>,
    meter: Option<Meter>,
    writes: Arc<Writes>,
    counters: ItemCounters,
}

impl Exporters {
    /// Starts what the environment names, as `config` says. `console`: print to standard output
    /// where the environment holds no `OTEL_*` at all. `terms`: what log records say.
    pub fn start(
        environment: &Environment,
        config: &exporters::Exporters,
        resource: Resource,
        handle: &Handle,
        console: bool,
        terms: &log::Terms,
    ) -> Result<Self, Error> {
        let bare = console && !environment.is_set();
        let lines = |signal| {
            let printed = environment.exporters(signal).contains(&Exporter::Console);
            printed.then_some(console::Form::Lines)
        };
        let form = match bare {
            true if std::io::stdout().is_terminal() => Some(console::Form::Table),
            true => Some(console::Form::Lines),
            false => lines(Signal::Traces),
        };
        let counters = ItemCounters::default();
        let writes = Arc::new(Writes::default());
        let mut with = Start {
            environment,
            config,
            resource: &resource,
            terms,
            handle,
            counters,
            writes: writes.clone(),
        };
        let limits = environment.limits();
        let encoder = Spans(log::Terms { limits, ..terms.clone() });
        let spans = Ways::start(&mut with, Signal::Traces, "traces", form, encoder)?;
        let encoder = Records(terms.clone());
        let logs = Ways::start(&mut with, Signal::Logs, "logs", lines(Signal::Logs), encoder)?;
        let mut counters = with.counters;
        let meter = meter::start(environment, &resource, &mut counters, &writes, handle)?;
        if terms.writes {
            writes.tell(spans.stores.clone());
        }
        Ok(Self { spans, logs, children: terms.spans, objects: None, meter, writes, counters })
    }

    /// Makes objects of HTTP transactions too, if `config` asks for it. To be called before
    /// [`Self::transactions`]. `collect`: how their bodies are collected, if they are.
    pub fn capture(
        mut self,
        config: &HttpCapture,
        collect: Option<Arc<Collect>>,
        environment: &Environment,
        redaction: Redaction,
        handle: &Handle,
    ) -> Result<Self, Error> {
        let out = self.transactions();
        let with =
            object::Start { config, collect, redaction, sampler: environment.sampler(), out };
        self.objects = Objects::start(with, &mut self.counters, handle)?;
        Ok(self)
    }

    /// Takes finished connections; never blocks, and counts what there is no room for.
    pub fn offer(&self, batch: Vec<Connection>) {
        self.spans.sink.offer(batch);
    }

    /// The way in for connections, for other threads.
    pub fn sink(&self) -> Sink<SpanOf> {
        self.spans.sink.clone()
    }

    /// The way in for exchanges.
    pub fn transactions(&self) -> Exchanges {
        let (logs, spans) = (self.logs.sink.clone(), self.spans.sink.clone());
        let objects = self.objects.as_ref().map(Objects::intake);
        Exchanges { logs, spans, wanted: self.children, objects }
    }

    /// The way in for moments of connections, if they are `wanted`.
    pub fn lives(&self, wanted: bool) -> Lives {
        let sink = self.logs.sink.clone();
        Lives(Some(sink).filter(|sink| wanted && sink.is_wanted()))
    }

    /// What became of every item.
    pub fn counters(&self) -> ItemCounters {
        self.counters.clone()
    }

    /// The numbers that are exported as metrics; other stages put theirs in.
    pub fn registry(&self) -> Arc<Registry> {
        self.counters.registry.clone()
    }

    /// Sends and prints what is queued, until `deadline`; what remains is dropped and counted. The
    /// counts at the end, as the accounting line has them.
    pub async fn shutdown(self, deadline: Instant) -> Value {
        let Self { spans, logs, children: _, objects, meter, writes, counters } = self;
        // First, as what it has goes to the others.
        let uploads = match objects {
            Some(objects) => Some(objects.close(deadline).await),
            None => None,
        };
        writes.close();
        let uploads = async {
            if let Some(uploads) = uploads {
                uploads.shutdown(deadline).await;
            }
        };
        tokio::join!(spans.shutdown(deadline), logs.shutdown(deadline), uploads);
        // Last, so that it tells how the others ended.
        if let Some(meter) = meter {
            meter.shutdown(deadline).await;
        }
        counters.to_json()
    }
}

/// The way into the exporters of a signal.
#[derive(Debug)]
pub struct Sink<T> {
    sampler: Sampler,
    queues: Arc<[Arc<Queue<T>>]>,
}

impl<T> Clone for Sink<T> {
    fn clone(&self) -> Self {
        Self { sampler: self.sampler, queues: self.queues.clone() }
    }
}

impl<T: Queued + Clone> Sink<T> {
    /// Whether anybody takes what is offered.
    pub fn is_wanted(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Takes items; never blocks, and counts what there is no room for.
    pub fn offer(&self, batch: Vec<impl Into<T>>) {
        self.each(batch, Queue::offer);
    }

    /// Takes items and waits for room: for a source that can wait, a recording.
    pub fn offer_waiting(&self, batch: Vec<impl Into<T>>) {
        self.each(batch, Queue::offer_waiting);
    }

    fn each(&self, batch: Vec<impl Into<T>>, offer: impl Fn(&Queue<T>, Vec<T>, usize)) {
        let Some((last, others)) = self.queues.split_last() else { return };
        let mut batch: Vec<T> = batch.into_iter().map(Into::into).collect();
        let offered = batch.len();
        if self.sampler != Sampler::AlwaysOn {
            batch.retain(|item| self.sampler.keeps(item.trace_id()));
        }
        let sampled = offered - batch.len();
        for queue in others {
            offer(queue, batch.clone(), sampled);
        }
        offer(last, batch, sampled);
    }
}

/// What became of every item, of all signals and exporters.
#[derive(Clone, Debug, Default)]
pub struct ItemCounters {
    registry: Arc<Registry>,
    items: Vec<Arc<Items>>,
}

impl ItemCounters {
    /// Counts for one more.
    pub(crate) fn add(&mut self, signal: &'static str, exporter: &'static str) -> Arc<Items> {
        let items = Arc::new(Items::new(signal, exporter));
        self.items.push(items.clone());
        let read = items.clone();
        self.registry.source(&items::FAMILIES, move |samples| read.read(samples));
        items
    }

    /// Counts of each signal and exporter.
    pub fn items(&self) -> &[Arc<Items>] {
        &self.items
    }

    /// The registry they are in.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// By signal and exporter, as the accounting line has them.
    pub fn to_json(&self) -> Value {
        let mut signals = Map::new();
        for items in &self.items {
            let signal = signals.entry(items.signal).or_insert_with(|| Value::Object(Map::new()));
            signal[items.exporter] = items.counts().to_json();
        }
        Value::Object(signals)
    }
}

/// Time left until `deadline`.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
