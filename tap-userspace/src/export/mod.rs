//! Finished connections and exchanges leave: by OTLP, to files, or to standard output. Comes in: batches
//! of [`Connection`]s and [`Transaction`]s through [`Sink`]s that never block; goes out: requests and lines, and [`Items`] that tell what
//! became of each.

mod certificates;
pub mod client;
pub mod complaints;
pub mod console;
pub mod delivery;
pub mod disk;
pub mod file;
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
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use tokio::runtime::Handle;

use self::{
    delivery::Delivery,
    disk::DiskQueue,
    items::{Items, Reason},
    object::Objects,
    queue::{Queue, Queued},
    records::{Lives, Records},
    spans::{Exchanges, SpanOf, Spans},
    transport::Transport,
    writes::Writes,
};
use crate::{
    config::{
        environment::{Environment, Signal},
        exporters,
        http_capture::HttpCapture,
        pipelines::{Destination, Line, Pipelines, To},
        processors::Batch,
    },
    connection::model::Connection,
    policy::{
        chain::{self, Shared},
        memory::Pressure,
        redact::Redaction,
        sample::Sampler,
        stage::{self, Making, Out, Stage},
    },
    protocol::content::Collect,
    telemetry::{
        eventstore::Backend,
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
    /// The file of a file exporter.
    #[error(transparent)]
    File(#[from] file::OpenError),
    /// A thread that prints, or has processors.
    #[error("there is no thread for a pipeline: {0}; raise the limit on threads")]
    Thread(io::Error),
}

/// The exporters of one signal, and the way into them. Each has a queue, counts, complaints and
/// threads or tasks of its own, so that none waits for another.
pub(crate) struct Ways<R: otlp::Requests> {
    pub(crate) sink: Sink<R::Item>,
    /// Past the processors, and without what prints.
    stores: Sink<R::Item>,
    stages: Vec<Stage<R::Item>>,
    running: Vec<Running<R>>,
}

/// Starts the processors of a pipeline, before these.
type MakeStage<'a, T> = dyn Fn(&Line, Vec<Out<T>>) -> io::Result<Stage<T>> + 'a;

/// One exporter.
enum Running<R: otlp::Requests> {
    /// To a collector or a file.
    Requests(otlp::Exporter<R>),
    /// To standard output.
    Lines(console::Exporter<R::Item>),
}

impl<R: otlp::Requests<Item: Clone + console::Printed>> Ways<R> {
    /// Starts every exporter of `signal`, and what `stage` makes of a pipeline that has processors,
    /// or may get some.
    pub(crate) fn start(
        with: &mut Start<'_>,
        signal: Signal,
        requests: R,
        stage: Option<&MakeStage<'_, R::Item>>,
    ) -> Result<Self, Error> {
        let requests = Arc::new(requests);
        let (mut outs, mut stores, mut running) = (Vec::new(), Vec::new(), Vec::new());
        let pipelines = with.pipelines;
        for Destination { name, to, batch } in pipelines.of(signal) {
            let batch = batch.as_ref();
            let (transport, delivery) = match to {
                To::Otlp(otlp, block) => {
                    (Transport::new(otlp)?, with.delivery(signal, block, batch))
                }
                To::File(file) => {
                    let transport =
                        Transport::to_file(name.clone(), signal, with.file(name, file)?);
                    (transport, with.delivery(signal, &Default::default(), batch).of_file(file))
                }
                To::Console => {
                    let (out, exporter) = with.print(signal, name, console::Form::Lines)?;
                    outs.push(out);
                    running.push(Running::Lines(exporter));
                    continue;
                }
            };
            let waiting = with.queues(signal, name, &delivery, &transport)?;
            let out = Out { queue: waiting.memory.clone(), items: waiting.items.clone() };
            stores.push(out.queue.clone());
            outs.push(out);
            let handle = with.handle;
            let exporter =
                otlp::Exporter::start(transport, &delivery, requests.clone(), waiting, handle);
            running.push(Running::Requests(exporter));
        }
        let (mut queues, mut stages) = (Vec::new(), Vec::new());
        for line in pipelines.lines(signal) {
            let to: Vec<_> = line.to.iter().filter_map(|&index| outs.get(index)).cloned().collect();
            if to.is_empty() {
                continue;
            }
            match stage.filter(|_| pipelines.live || line.has_steps()) {
                Some(stage) => {
                    let stage = stage(line, to).map_err(Error::Thread)?;
                    queues.push(stage.intake());
                    stages.push(stage);
                }
                None => queues.extend(to.into_iter().map(|out| out.queue)),
            }
        }
        if let (Signal::Traces, Some(form)) = (signal, with.bare) {
            let (out, exporter) = with.print(signal, &"console".into(), form)?;
            queues.push(out.queue);
            running.push(Running::Lines(exporter));
        }
        let sampler = match signal {
            // They are made of all traffic.
            Signal::Metrics => Sampler::AlwaysOn,
            Signal::Traces | Signal::Logs => with.environment.sampler(),
        };
        let stores = Sink { sampler, queues: stores.into() };
        Ok(Self { sink: Sink { sampler, queues: queues.into() }, stores, stages, running })
    }

    /// What changes the processors.
    pub(crate) fn swaps(&self) -> impl Iterator<Item = stage::Swap> {
        self.stages.iter().map(Stage::swap)
    }

    /// Sends and prints what is queued, all at the same time, until `deadline`.
    pub(crate) async fn shutdown(self, deadline: Instant) {
        let Self { sink, stores, stages, running } = self;
        drop((sink, stores));
        all(stages.into_iter().map(|stage| stage.shutdown(deadline)).collect()).await;
        let ends = running.into_iter().map(|exporter| async move {
            match exporter {
                Running::Requests(exporter) => exporter.shutdown(deadline).await,
                Running::Lines(exporter) => exporter.shutdown(deadline).await,
            }
        });
        all(ends.collect()).await;
    }
}

/// Waits for all of them, at the same time.
async fn all(ends: Vec<impl Future<Output = ()>>) {
    let mut ends: Vec<_> = ends.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        ends.retain_mut(|end| end.as_mut().poll(context).is_pending());
        if ends.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// What the exporters of all signals start from.
pub(crate) struct Start<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) pipelines: &'a Pipelines,
    pub(crate) resource: &'a Resource,
    terms: &'a log::Terms,
    pub(crate) handle: &'a Handle,
    /// Connections are printed, since nobody has said anything of exporters.
    bare: Option<console::Form>,
    counters: ItemCounters,
    writes: Arc<Writes>,
    /// Those of file exporters, by name: several signals may go to one.
    files: BTreeMap<Arc<str>, Arc<file::Writer>>,
}

impl Start<'_> {
    /// The numbers that are exported as metrics.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.counters.registry.clone()
    }

    /// How items of a signal wait for an exporter, and how that tries again.
    fn delivery(&self, signal: Signal, block: &exporters::Otlp, batch: Option<&Batch>) -> Delivery {
        let batching = self.environment.batching(signal);
        let batched = batch.map(|batch| delivery::batched(batch, batching));
        let batching = batched.as_ref().unwrap_or(batching);
        match signal {
            Signal::Metrics => Delivery::of_metrics(block, batching, self.environment.metering()),
            Signal::Traces | Signal::Logs => Delivery::new(block, batching),
        }
    }

    /// The file of the exporter `name`.
    fn file(
        &mut self,
        name: &Arc<str>,
        settings: &exporters::File,
    ) -> Result<Arc<file::Writer>, file::OpenError> {
        if let Some(file) = self.files.get(name) {
            return Ok(file.clone());
        }
        let file = file::Writer::open(name, settings)?;
        self.files.insert(name.clone(), file.clone());
        Ok(file)
    }

    /// A thread that prints a signal.
    fn print<T: console::Printed>(
        &mut self,
        signal: Signal,
        name: &Arc<str>,
        form: console::Form,
    ) -> Result<(Out<T>, console::Exporter<T>), Error> {
        let bounds = self.delivery(signal, &Default::default(), None).bounds;
        let (queue, items) = self.queue(signal, name, bounds);
        let printer = console::Printer::new(form, self.terms.clone(), io::stdout());
        let exporter = console::Exporter::start(printer, queue.clone(), items.clone())
            .map_err(Error::Thread)?;
        Ok((Out { queue, items }, exporter))
    }

    /// A queue and its counts for one exporter of a signal.
    fn queue<T: Queued>(
        &mut self,
        signal: Signal,
        exporter: &Arc<str>,
        bounds: queue::Bounds,
    ) -> (Arc<Queue<T>>, Arc<Items>) {
        let items = self.counters.add(signal.lower(), exporter.clone());
        (Arc::new(Queue::new(bounds, items.clone())), items)
    }

    /// The same with a queue on disk, if `delivery` wants one.
    fn queues<T: Queued>(
        &mut self,
        signal: Signal,
        exporter: &Arc<str>,
        delivery: &Delivery,
        transport: &Transport,
    ) -> Result<otlp::Queues<T>, disk::OpenError> {
        let (memory, items) = self.queue(signal, exporter, delivery.bounds);
        let disk = delivery.storage.as_ref().map(|storage| {
            let own = storage.folder.join(delivery::folder(exporter, signal.lower()));
            DiskQueue::open(&own, storage.limits, items.clone(), self.counters.registry())
        });
        let writer = self.writes.of(Backend {
            name: items.exporter.clone(),
            signal: items.signal,
            protocol: transport.protocol(),
            server: transport.server(),
        });
        Ok(otlp::Queues { memory, disk: disk.transpose()?, items, writer })
    }
}

/// Before the deadline, for the last reading of metrics: it tells how the others ended.
const LAST_WORD: Duration = Duration::from_millis(500);

/// All exporters, running.
pub struct Exporters {
    spans: Ways<otlp::Framed<Spans>>,
    logs: Ways<otlp::Framed<Records>>,
    /// Exchanges that have spans, by scope.
    children: [bool; log::SCOPES.len()],
    objects: Option<Objects>,
    meter: Option<Meter>,
    writes: Arc<Writes>,
    counters: ItemCounters,
    pressure: Pressure,
}

impl Exporters {
    /// Starts every exporter of `pipelines`. `console`: print to standard output where nobody has
    /// said anything of exporters. `terms`: what log records say.
    pub fn start(
        environment: &Environment,
        pipelines: &Pipelines,
        resource: Resource,
        handle: &Handle,
        console: bool,
        terms: &log::Terms,
    ) -> Result<Self, Error> {
        let bare = (console && pipelines.bare).then(|| match io::stdout().is_terminal() {
            true => console::Form::Table,
            false => console::Form::Lines,
        });
        let mut with = Start {
            environment,
            pipelines,
            resource: &resource,
            terms,
            handle,
            bare,
            counters: ItemCounters::default(),
            writes: Arc::default(),
            files: BTreeMap::new(),
        };
        let shared = Shared { registry: with.registry(), ..Shared::default() };
        let limits = environment.limits();
        let encoder = || Spans(log::Terms { limits, ..terms.clone() });
        let requests = otlp::Framed::new(encoder(), &resource);
        let spans = Ways::start(
            &mut with,
            Signal::Traces,
            requests,
            Some(&|line, outs| {
                let making = Making::new(encoder(), &resource);
                let (name, named) = (line.name.clone(), &line.processors);
                let (pipeline, shared) = (name.clone(), shared.clone());
                let build = move |named: &_| chain::of_spans(&pipeline, named, &shared);
                Stage::start(name, named, Box::new(build), making, outs)
            }),
        )?;
        let encoder = || Records(terms.clone());
        let requests = otlp::Framed::new(encoder(), &resource);
        let logs = Ways::start(
            &mut with,
            Signal::Logs,
            requests,
            Some(&|line, outs| {
                let making = Making::new(encoder(), &resource);
                let (name, named) = (line.name.clone(), &line.processors);
                let (pipeline, shared) = (name.clone(), shared.clone());
                let build = move |named: &_| chain::of_logs(&pipeline, named, &shared);
                Stage::start(name, named, Box::new(build), making, outs)
            }),
        )?;
        let meter = meter::start(&mut with)?;
        let Start { counters, writes, .. } = with;
        if terms.writes {
            writes.tell(spans.stores.clone());
        }
        let (children, pressure) = (terms.spans, shared.pressure);
        Ok(Self { spans, logs, children, objects: None, meter, writes, counters, pressure })
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
        let (sampler, writes) = (environment.sampler(), self.writes.clone());
        let with = object::Start { config, collect, redaction, sampler, writes, out };
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

    /// What changes the processors, for other threads.
    pub fn swap(&self) -> Swap {
        let of_metrics = self.meter.iter().flat_map(Meter::swaps);
        Swap(self.spans.swaps().chain(self.logs.swaps()).chain(of_metrics).collect())
    }

    /// Whether memory is short, as a memory limiter says.
    pub fn pressure(&self) -> Pressure {
        self.pressure.clone()
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
        let Self { spans, logs, objects, meter, writes, counters, .. } = self;
        let before = match meter {
            Some(_) => deadline.checked_sub(LAST_WORD).unwrap_or(deadline),
            None => deadline,
        };
        // First, as what it has goes to the others.
        let uploads = match objects {
            Some(objects) => Some(objects.close(before).await),
            None => None,
        };
        writes.close();
        let uploads = async {
            if let Some(uploads) = uploads {
                uploads.shutdown(before).await;
            }
        };
        tokio::join!(spans.shutdown(before), logs.shutdown(before), uploads);
        // Last, so that it tells how the others ended.
        if let Some(meter) = meter {
            meter.shutdown(deadline).await;
        }
        counters.to_json()
    }
}

/// Has processors take the place of those that run.
#[derive(Debug)]
pub struct Swap(Vec<stage::Swap>);

impl Swap {
    /// Those of `pipelines`, by the pipelines' names.
    pub fn apply(&self, pipelines: &Pipelines) {
        for line in Signal::ALL.iter().flat_map(|signal| pipelines.lines(*signal)) {
            for swap in self.0.iter().filter(|swap| *swap.name == *line.name) {
                swap.apply(line.processors.clone());
            }
        }
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

    /// Counts items that got lost on their way here.
    pub(crate) fn lose(&self, lost: u64, reason: Reason) {
        self.queues.iter().for_each(|queue| queue.lose(lost, reason));
    }

    /// Takes nothing in any more.
    pub(crate) fn close(&self) {
        self.queues.iter().for_each(|queue| queue.close());
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
    pub(crate) fn add(
        &mut self,
        signal: &'static str,
        exporter: impl Into<Arc<str>>,
    ) -> Arc<Items> {
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
            signal[&*items.exporter] = items.counts().to_json();
        }
        Value::Object(signals)
    }
}

/// Time left until `deadline`.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
