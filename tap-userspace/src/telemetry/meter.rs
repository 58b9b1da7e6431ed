//! The export of metrics: once an interval the registry is read, and what it tells goes by OTLP, to
//! standard output, or both. Requests take the same way as those of spans, with the same
//! certificates, headers and proxies, and each data point is accounted for.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use super::{
    eventstore::Became,
    metric::{Read, Reader, Registry, line, otlp::Encoder},
    resource::Resource,
};
use crate::{
    config::environment::{Environment, Exporter, Signal},
    connection::clock,
    export::{
        ItemCounters, client,
        complaints::Complaints,
        items::{Items, Reason},
        left,
        retry::{Backoff, Retry},
        transport::{Outcome, Prepared, Transport},
        writes::{Writer, Writes},
    },
};

/// The running export of metrics.
#[derive(Debug)]
pub struct Meter {
    /// When it must have ended, once that is known.
    leave: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
    items: Vec<Arc<Items>>,
}

/// Starts it, where the environment says so.
pub fn start(
    environment: &Environment,
    resource: &Resource,
    counters: &mut ItemCounters,
    writes: &Arc<Writes>,
    handle: &Handle,
) -> Result<Option<Meter>, client::Error> {
    let exporters = environment.exporters(Signal::Metrics);
    let metering = environment.metering();
    let (leave, leaving) = watch::channel(None);
    let mut items = Vec::new();
    let mut account = |exporter| {
        let of_exporter = counters.add("metrics", exporter);
        items.push(of_exporter.clone());
        of_exporter
    };
    let mut otlp = None;
    if exporters.contains(&Exporter::Otlp) {
        let (way, items) = (environment.otlp(Signal::Metrics), account("otlp"));
        otlp = Some(Sender {
            transport: Transport::new(way)?,
            encoder: Encoder::new(resource, metering.temporality, clock::wall()),
            writer: writes.of(&items, way),
            items,
            complaints: Complaints::default(),
            give_up: metering.give_up,
            leaving: leaving.clone(),
        });
    }
    let console = exporters.contains(&Exporter::Console).then(|| account("console"));
    if otlp.is_none() && console.is_none() {
        return Ok(None);
    }
    let registry = counters.registry().clone();
    let export = Export { registry, interval: metering.interval, otlp, console, leaving };
    Ok(Some(Meter { leave, task: handle.spawn(export.run()), items }))
}

impl Meter {
    /// Tells the numbers once more, until `deadline`.
    pub async fn shutdown(self, deadline: Instant) {
        let Self { leave, mut task, items } = self;
        leave.send_replace(Some(deadline));
        if tokio::time::timeout_at(deadline.into(), &mut task).await.is_err() {
            task.abort();
            // Cancelled, as it was told to be.
            drop(task.await);
        }
        for items in items {
            items.update(|counts| {
                let rest = std::mem::take(&mut counts.held);
                counts.drop(Reason::Shutdown, rest);
            });
        }
    }
}

struct Export {
    registry: Arc<Registry>,
    interval: Duration,
    otlp: Option<Sender>,
    console: Option<Arc<Items>>,
    leaving: watch::Receiver<Option<Instant>>,
}

impl Export {
    async fn run(mut self) {
        let mut next = Instant::now();
        loop {
            next = (next + self.interval).max(Instant::now());
            // Told to leave, or left alone.
            let last = tokio::time::timeout_at(next.into(), self.leaving.changed()).await.is_ok();
            self.once().await;
            if last {
                return;
            }
        }
    }

    /// One reading, told to everybody: deltas are read once only.
    async fn once(&mut self) {
        let read = self.registry.read(Reader::Push);
        let now_ns = clock::wall();
        if let Some(items) = &self.console {
            print(&read, now_ns, items).await;
        }
        if let Some(sender) = &mut self.otlp {
            sender.send(read, now_ns).await;
        }
    }
}

/// Prints a reading; a reader that hangs holds up metrics only.
async fn print(read: &[Read], now_ns: u64, items: &Items) {
    let mut text = Vec::new();
    let points = line::lines(read, now_ns, &mut text);
    hold(items, points);
    let written = tokio::task::spawn_blocking(move || {
        let mut output = std::io::stdout().lock();
        output.write_all(&text).and_then(|()| output.flush())
    });
    let written = matches!(written.await, Ok(Ok(())));
    items.update(|counts| {
        counts.held -= points;
        if written {
            counts.exported += points;
        } else {
            counts.drop(Reason::Output, points);
        }
    });
}

fn hold(items: &Items, points: u64) {
    items.update(|counts| {
        counts.produced += points;
        counts.held += points;
    });
}

/// Sends readings by OTLP.
struct Sender {
    transport: Transport,
    encoder: Encoder,
    items: Arc<Items>,
    writer: Writer,
    complaints: Complaints,
    give_up: Option<Duration>,
    leaving: watch::Receiver<Option<Instant>>,
}

/// Why a request was not taken.
struct Failed {
    cause: String,
    reason: Option<Reason>,
}

impl Sender {
    async fn send(&mut self, read: Vec<Read>, now_ns: u64) {
        let requests = self.encoder.encode(read, now_ns);
        let began = Instant::now();
        for (message, points) in requests {
            hold(&self.items, points);
            let rejected = match self.request(&message, points, began).await {
                Ok(rejected) => Ok(rejected.min(points)),
                Err(Failed { cause, reason }) => {
                    self.complain(&cause);
                    Err(reason)
                }
            };
            self.items.update(|counts| {
                counts.held -= points;
                match rejected {
                    Ok(rejected) => {
                        counts.exported += points - rejected;
                        counts.rejected += rejected;
                    }
                    Err(Some(reason)) => counts.drop(reason, points),
                    Err(None) => counts.rejected += points,
                }
            });
        }
    }

    /// Sends one request until it is taken or refused, or the export has taken too long; how many of
    /// its points the receiver refuses.
    async fn request(
        &self,
        message: &ExportMetricsServiceRequest,
        points: u64,
        began: Instant,
    ) -> Result<u64, Failed> {
        let refused = |cause| Failed { cause, reason: None };
        let mut bytes = vec![0; Transport::HEADROOM];
        message.encode(&mut bytes).map_err(|error| refused(error.to_string()))?;
        let mut write = self.writer.begin(&bytes[Transport::HEADROOM..], points);
        let prepared = self.transport.prepare(bytes, Transport::HEADROOM).map_err(refused)?;
        let size = prepared.len() as u64;
        if let Some(write) = &mut write {
            write.start();
        }
        let mut backoff = Backoff::new(Retry::default());
        loop {
            if let Some(write) = &mut write {
                write.attempt();
            }
            match self.attempt(&prepared, began).await {
                Outcome::Taken { rejected, message } => {
                    let became = if rejected > 0 {
                        Became::Partial(rejected.min(points))
                    } else {
                        Became::Ok
                    };
                    self.writer.end(write, size, became);
                    if rejected > 0 || !message.is_empty() {
                        self.complain(&message);
                    }
                    return Ok(rejected);
                }
                Outcome::Refused { cause, error, .. } => {
                    if let Some(write) = &mut write {
                        write.failed(error);
                    }
                    self.writer.end(write, size, Became::Refused);
                    return Err(refused(cause));
                }
                Outcome::Again { cause, after, error } => {
                    if let Some(write) = &mut write {
                        write.failed(error);
                    }
                    let pause = backoff.pause(after);
                    let leaving = *self.leaving.borrow();
                    if self.rest(began).is_some_and(|rest| rest <= pause) {
                        let reason = match leaving {
                            Some(_) => Reason::Shutdown,
                            None => Reason::RetryExhausted,
                        };
                        self.writer.end(write, size, Became::Dropped);
                        return Err(Failed { cause, reason: Some(reason) });
                    }
                    let mut told = self.leaving.clone();
                    // Whichever is first; a receiver that has asked for time gets it.
                    if leaving.is_some() || after.is_some() {
                        tokio::time::sleep(pause).await;
                    } else {
                        drop(tokio::time::timeout(pause, told.changed()).await);
                    }
                }
            }
        }
    }

    async fn attempt(&self, message: &Prepared, began: Instant) -> Outcome {
        let timeout = match (self.transport.timeout(), self.rest(began)) {
            (Some(timeout), Some(rest)) => Some(timeout.min(rest)),
            (timeout, rest) => timeout.or(rest),
        };
        self.transport.attempt(message, timeout).await
    }

    /// What is left of the time for this export.
    fn rest(&self, began: Instant) -> Option<Duration> {
        let export = self.give_up.map(|limit| limit.saturating_sub(began.elapsed()));
        let leaving = self.leaving.borrow().map(left);
        match (export, leaving) {
            (Some(export), Some(leaving)) => Some(export.min(leaving)),
            (export, leaving) => export.or(leaving),
        }
    }

    fn complain(&self, cause: &str) {
        if self.complaints.may() {
            let endpoint = self.transport.endpoint();
            let remedy =
                "check that a collector listens there, or change OTEL_EXPORTER_OTLP_ENDPOINT";
            tracing::warn!(endpoint, cause, remedy, "Metrics cannot be sent.");
        }
    }
}
