//! Finished connections leave: by OTLP, or to standard output. Comes in: batches of [`Connection`]s
//! through a [`Sink`] that never blocks; goes out: requests and lines, and [`Items`] that tell what
//! became of each.

pub mod client;
pub mod console;
mod grpc;
mod http;
pub mod items;
pub mod line;
pub mod otlp;
pub mod queue;
pub mod table;
pub mod transport;

use std::{
    io::IsTerminal as _,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use tokio::runtime::Handle;

use self::{items::Items, queue::Queue};
use crate::{
    config::environment::{Environment, Exporter, Signal},
    connection::model::Connection,
    policy::sample::Sampler,
    telemetry::{
        meter::{self, Meter},
        metric::{Format, Registry},
        resource::Resource,
    },
};

/// Why exporting cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The way to the collector.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The thread that prints.
    #[error("there is no thread to print connections with: {0}; raise the limit on threads")]
    Thread(std::io::Error),
}

/// All exporters, running.
#[derive(Debug)]
pub struct Exporters {
    sink: Sink,
    otlp: Option<otlp::Exporter>,
    console: Option<console::Exporter>,
    meter: Option<Meter>,
    counters: ItemCounters,
}

impl Exporters {
    /// Starts what the environment names. `console`: print to standard output where the environment
    /// holds no `OTEL_*` at all.
    pub fn start(
        environment: &Environment,
        resource: Resource,
        handle: &Handle,
        console: bool,
    ) -> Result<Self, Error> {
        let wanted = environment.exporters(Signal::Traces);
        let bare = console && !environment.is_set();
        let mut exporters = Self {
            sink: Sink { sampler: environment.sampler(), queues: Arc::new([]) },
            otlp: None,
            console: None,
            meter: None,
            counters: ItemCounters::default(),
        };
        let mut queues = Vec::new();
        if wanted.contains(&Exporter::Otlp) {
            let (queue, items) = exporters.queue(environment, "otlp");
            queues.push(queue.clone());
            exporters.otlp =
                Some(otlp::Exporter::start(environment, &resource, queue, items, handle)?);
        }
        if wanted.contains(&Exporter::Console) || bare {
            let (queue, items) = exporters.queue(environment, "console");
            queues.push(queue.clone());
            let table = bare && std::io::stdout().is_terminal();
            let form = if table { console::Form::Table } else { console::Form::Lines };
            let printer = console::Printer::new(form, environment.limits(), std::io::stdout());
            exporters.console =
                Some(console::Exporter::start(printer, queue, items).map_err(Error::Thread)?);
        }
        exporters.sink.queues = queues.into();
        exporters.meter = meter::start(environment, &resource, &exporters.counters, handle)?;
        Ok(exporters)
    }

    /// Takes finished connections; never blocks, and counts what there is no room for.
    pub fn offer(&self, batch: Vec<Connection>) {
        self.sink.offer(batch);
    }

    /// The way in, for other threads.
    pub fn sink(&self) -> Sink {
        self.sink.clone()
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
        let Self { sink, otlp, console, meter, counters } = self;
        drop(sink);
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
        // Last, so that it tells how the others ended.
        if let Some(meter) = meter {
            meter.shutdown(deadline).await;
        }
        counters.to_json()
    }

    /// A queue and its counts for one exporter of spans.
    fn queue(
        &mut self,
        environment: &Environment,
        exporter: &'static str,
    ) -> (Arc<Queue>, Arc<Items>) {
        let items = self.counters.add("traces", exporter);
        let batching = environment.batching();
        let bounds = queue::Bounds {
            spans: batching.max_queue,
            bytes: batching.max_bytes,
            batch: batching.max_batch,
            delay: batching.delay,
        };
        (Arc::new(Queue::new(bounds, items.clone())), items)
    }
}

/// The way into the exporters.
#[derive(Clone, Debug)]
pub struct Sink {
    sampler: Sampler,
    queues: Arc<[Arc<Queue>]>,
}

impl Sink {
    /// Takes finished connections; never blocks, and counts what there is no room for.
    pub fn offer(&self, batch: Vec<Connection>) {
        self.each(batch, Queue::offer);
    }

    /// Takes finished connections and waits for room: for a source that can wait, a recording.
    pub fn offer_waiting(&self, batch: Vec<Connection>) {
        self.each(batch, Queue::offer_waiting);
    }

    fn each(&self, mut batch: Vec<Connection>, offer: impl Fn(&Queue, Vec<Connection>, usize)) {
        let Some((last, others)) = self.queues.split_last() else { return };
        let offered = batch.len();
        if self.sampler != Sampler::AlwaysOn {
            batch.retain(|connection| self.sampler.keeps(&connection.identity.trace_id));
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
    fn add(&mut self, signal: &'static str, exporter: &'static str) -> Arc<Items> {
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

    /// All numbers of the registry as Prometheus text.
    pub fn to_prometheus(&self) -> String {
        self.registry.render(Format::Prometheus)
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
