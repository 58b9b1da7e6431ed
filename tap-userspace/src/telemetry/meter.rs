//! The export of metrics: once an interval the registry is read, and what it tells goes the way of
//! spans and log records, to the same exporters, each data point accounted for.

use std::{iter::Peekable, sync::Arc, time::Duration, time::Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    log::Terms,
    metric::{Reader, Registry, line, otlp::Encoder},
};
use crate::{
    config::{
        environment::Signal,
        pipelines::{Line, To},
    },
    connection::clock,
    export::{
        Error, Sink, Start, Ways,
        console::{Form, Printed},
        left,
        otlp::Requests,
        queue::Queued,
        transport::Transport,
    },
    policy::{chain, metrics, processor::Tally, stage::Stage},
};

/// Data points that leave together, in the forms that are asked for.
#[derive(Clone, Debug)]
pub struct Reading {
    points: u64,
    /// An OTLP request.
    request: Bytes,
    /// Lines of JSON.
    lines: Bytes,
}

impl Queued for Reading {
    fn count(&self) -> u64 {
        self.points
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.request.len() + self.lines.len()
    }

    // Of all traces, and never sampled.
    fn trace_id(&self) -> &[u8; 16] {
        &[0; 16]
    }
}

impl Printed for Reading {
    fn print(&self, _form: Form, _terms: &Terms, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lines);
    }
}

/// A reading is a request.
struct Whole;

impl Requests for Whole {
    type Item = Reading;

    fn next(
        &self,
        items: &mut Peekable<impl Iterator<Item = Reading>>,
        buffer: &mut Vec<u8>,
    ) -> Option<(usize, u64)> {
        let Reading { points, request, .. } = items.next()?;
        buffer.clear();
        buffer.resize(Transport::HEADROOM, 0);
        buffer.extend_from_slice(&request);
        Some((Transport::HEADROOM, points))
    }
}

/// The running export of metrics.
pub struct Meter {
    leave: watch::Sender<bool>,
    task: JoinHandle<()>,
    ways: Ways<Whole>,
}

/// Starts it, where metrics have an exporter.
pub(crate) fn start(with: &mut Start<'_>) -> Result<Option<Meter>, Error> {
    let destinations = with.pipelines.of(Signal::Metrics);
    if destinations.is_empty() {
        return Ok(None);
    }
    let prints = |to: &To| matches!(to, To::Console);
    let pipelines = with.pipelines;
    let requests = destinations.iter().any(|destination| !prints(&destination.to))
        || pipelines.live
        || pipelines.lines(Signal::Metrics).iter().any(Line::has_steps);
    let lines = destinations.iter().any(|destination| prints(&destination.to));
    let metering = with.environment.metering();
    let encoder = Encoder::new(with.resource, metering.temporality, clock::wall());
    let printed = |line: &Line| {
        line.to.iter().filter_map(|&index| destinations.get(index)).any(|it| prints(&it.to))
    };
    let stage = |line: &Line, outs| {
        let (name, named, lines) = (line.name.clone(), &line.processors, printed(line));
        Stage::stepping(name, named, chain::of_metrics, outs, move |chain, reading, tally| {
            processed(chain, reading, lines, tally)
        })
    };
    let ways = Ways::start(with, Signal::Metrics, Whole, Some(&stage))?;
    let (leave, leaving) = watch::channel(false);
    let export = Export {
        registry: with.registry(),
        interval: with.environment.metering().interval,
        encoder: requests.then_some(encoder),
        lines,
        sink: ways.sink.clone(),
        leaving,
    };
    Ok(Some(Meter { leave, task: with.handle.spawn(export.run()), ways }))
}

/// What processors make of a reading, if something remains; `lines`: somebody takes these.
fn processed(
    chain: &mut metrics::Chain,
    reading: Reading,
    lines: bool,
    tally: &mut Tally,
) -> Option<Reading> {
    if chain.is_empty() {
        return Some(reading);
    }
    let made = ExportMetricsServiceRequest::decode(reading.request)
        .ok()
        .and_then(|request| metrics::run(chain, request).ok());
    let Some((request, filtered)) = made else {
        tally.unread = reading.points;
        return None;
    };
    tally.filtered = filtered.min(reading.points);
    let points = reading.points - tally.filtered;
    if points == 0 {
        return None;
    }
    let mut text = Vec::new();
    if lines {
        line::of_request(&request, &mut text);
    }
    Some(Reading { points, request: request.encode_to_vec().into(), lines: text.into() })
}

impl Meter {
    /// What changes the processors.
    pub(crate) fn swaps(&self) -> impl Iterator<Item = crate::policy::stage::Swap> {
        self.ways.swaps()
    }

    /// Tells the numbers once more, until `deadline`.
    pub async fn shutdown(self, deadline: Instant) {
        let Self { leave, mut task, ways } = self;
        leave.send_replace(true);
        if tokio::time::timeout(left(deadline), &mut task).await.is_err() {
            task.abort();
            // Cancelled, as it was told to be.
            drop(task.await);
        }
        ways.shutdown(deadline).await;
    }
}

struct Export {
    registry: Arc<Registry>,
    interval: Duration,
    /// Where somebody takes requests.
    encoder: Option<Encoder>,
    /// Somebody takes lines.
    lines: bool,
    sink: Sink<Reading>,
    leaving: watch::Receiver<bool>,
}

impl Export {
    async fn run(mut self) {
        let mut next = Instant::now();
        loop {
            next = (next + self.interval).max(Instant::now());
            // Told to leave, or left alone.
            let last = tokio::time::timeout_at(next.into(), self.leaving.changed()).await.is_ok();
            self.once();
            if last {
                return;
            }
        }
    }

    /// One reading, for every exporter: deltas are read once only.
    fn once(&mut self) {
        let read = self.registry.read(Reader::Push);
        let now_ns = clock::wall();
        let mut text = Vec::new();
        let printed = if self.lines { line::lines(&read, now_ns, &mut text) } else { 0 };
        let mut lines = Bytes::from(text);
        let Some(encoder) = &mut self.encoder else {
            self.sink.offer(vec![Reading { points: printed, request: Bytes::new(), lines }]);
            return;
        };
        let requests = encoder.encode(read, now_ns).into_iter();
        // The first one has the lines of all: they are not cut where requests are.
        let readings = requests.map(|(request, points)| Reading {
            points,
            request: request.encode_to_vec().into(),
            lines: std::mem::take(&mut lines),
        });
        self.sink.offer(readings.collect());
    }
}
