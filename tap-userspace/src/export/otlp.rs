//! The OTLP exporter of spans or log records: takes batches off the queue, encodes them, sends them and tries
//! again while that may help. Every item ends as exported, rejected or dropped.

use std::{
    iter::Peekable,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use super::{
    client,
    items::{Items, Reason},
    queue::{Batch, Queue, Queued},
    transport::{Outcome, Prepared, Transport},
};
use crate::{
    config::environment::Otlp,
    telemetry::{resource::Resource, span::Frame},
};

/// Requests under way at a time: a distant collector's round trip must not be the limit.
const WORKERS: usize = 4;

/// A request is closed when it has this many bytes, whatever its spans: gRPC servers take 4 MiB
/// unless told otherwise.
const LARGEST_REQUEST: usize = 3 << 20;

/// Memory that a worker keeps from one request to the next: more than most need.
const LARGEST_KEPT: usize = 1 << 20;

/// Between complaints about one endpoint.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Longest pause between attempts once tap is leaving.
const LEAVING_PAUSE: Duration = Duration::from_millis(250);

/// How items become requests.
pub trait Encoder: Send + Sync + 'static {
    /// What it encodes.
    type Item: Queued;
    /// The instrumentation scopes that items may have; a request has one.
    const SCOPES: &'static [&'static str];
    /// Index of an item's scope.
    fn scope(&self, item: &Self::Item) -> usize;
    /// Appends an item as field 2 of the request's scope message.
    fn encode(&self, item: &Self::Item, out: &mut Vec<u8>);
}

/// A running exporter.
pub struct Exporter<E: Encoder> {
    shared: Arc<Shared<E>>,
    workers: Vec<JoinHandle<()>>,
    leave: watch::Sender<bool>,
}

struct Shared<E: Encoder> {
    queue: Arc<Queue<E::Item>>,
    items: Arc<Items>,
    transport: Transport,
    frames: Vec<Frame>,
    encoder: E,
    give_up: Option<Duration>,
    complaints: Complaints,
    leaving: watch::Receiver<bool>,
}

impl<E: Encoder> Exporter<E> {
    /// Starts sending what `queue` gives the way that `otlp` says; a request is given up after
    /// `give_up`.
    pub fn start(
        otlp: &Otlp,
        give_up: Option<Duration>,
        resource: &Resource,
        encoder: E,
        queue: Arc<Queue<E::Item>>,
        items: Arc<Items>,
        handle: &Handle,
    ) -> Result<Self, client::Error> {
        let (leave, leaving) = watch::channel(false);
        let shared = Arc::new(Shared {
            queue,
            items,
            transport: Transport::new(otlp)?,
            frames: E::SCOPES.iter().map(|scope| Frame::new(resource, scope)).collect(),
            encoder,
            give_up,
            complaints: Complaints::default(),
            leaving,
        });
        let workers = (0..WORKERS).map(|_| handle.spawn(shared.clone().run())).collect();
        Ok(Self { shared, workers, leave })
    }

    /// Sends what is queued, until `deadline`; what remains then is dropped.
    pub async fn shutdown(self, deadline: Instant) {
        self.shared.queue.close();
        self.leave.send_replace(true);
        for mut worker in self.workers {
            if tokio::time::timeout_at(deadline.into(), &mut worker).await.is_err() {
                worker.abort();
                // Cancelled, as it was told to be.
                drop(worker.await);
            }
        }
        self.shared.queue.clear();
        self.shared.items.update(|counts| {
            let rest = std::mem::take(&mut counts.queued) + std::mem::take(&mut counts.held);
            counts.drop(Reason::Shutdown, rest);
        });
    }
}

impl<E: Encoder> Shared<E> {
    async fn run(self: Arc<Self>) {
        // Fresh memory for each request would cost a fifth of the encoding.
        let mut buffer = Vec::new();
        while let Some(batch) = self.queue.take().await {
            let mut items = self.by_scope(batch).into_iter().flatten().peekable();
            while let Some((start, spans)) = self.encode(&mut items, &mut buffer) {
                match self.transport.prepare(std::mem::take(&mut buffer), start) {
                    Ok(message) => {
                        self.deliver(&message, spans).await;
                        buffer = message.into_buffer().unwrap_or_default();
                        buffer.shrink_to(LARGEST_KEPT);
                    }
                    Err(cause) => self.refused(spans, &cause, "report this as a bug"),
                }
            }
        }
    }

    /// The batch, items of one scope together.
    fn by_scope(&self, batch: Batch<E::Item>) -> Batch<E::Item> {
        let mut scopes = batch.iter().flatten().map(|item| self.encoder.scope(item));
        let first = scopes.next();
        if scopes.all(|scope| Some(scope) == first) {
            return batch;
        }
        let mut all: Vec<_> = batch.into_iter().flatten().collect();
        all.sort_by_key(|item| self.encoder.scope(item));
        vec![all]
    }

    /// Encodes items of one scope into one request; where it starts and how many, or `None` where
    /// there are none.
    fn encode(
        &self,
        items: &mut Peekable<impl Iterator<Item = E::Item>>,
        buffer: &mut Vec<u8>,
    ) -> Option<(usize, u64)> {
        let scope = self.encoder.scope(items.peek()?);
        let frame = self.frames.get(scope)?;
        frame.begin(buffer);
        let mut count = 0;
        while buffer.len() < LARGEST_REQUEST
            && let Some(item) = items.next_if(|item| self.encoder.scope(item) == scope)
        {
            self.encoder.encode(&item, buffer);
            count += 1;
        }
        Some((frame.finish(buffer), count))
    }

    /// Sends a request until it is taken or refused, or it has taken too long.
    async fn deliver(&self, message: &Prepared, spans: u64) {
        let began = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let left = self.give_up.map(|limit| limit.saturating_sub(began.elapsed()));
            let timeout = match (self.transport.timeout(), left) {
                (Some(timeout), Some(left)) => Some(timeout.min(left)),
                (timeout, left) => timeout.or(left),
            };
            match self.transport.attempt(message, timeout).await {
                Outcome::Taken { rejected, message } => {
                    return self.taken(spans, rejected, &message);
                }
                Outcome::Refused { cause, remedy } => {
                    return self.refused(spans, &cause, remedy);
                }
                Outcome::Again { cause, after } => {
                    let pause = after.unwrap_or_else(|| backoff.pause());
                    let remedy = "check that a collector listens there, or change \
                                  OTEL_EXPORTER_OTLP_ENDPOINT; spans are kept and sent again";
                    self.complain(&cause, remedy);
                    if self.give_up.is_some_and(|limit| began.elapsed() + pause > limit) {
                        return self.settle(spans, |counts, spans| {
                            counts.drop(Reason::RetryExhausted, spans);
                        });
                    }
                    self.pause(pause, after.is_some()).await;
                }
            }
        }
    }

    /// Waits; less if tap is leaving, unless the server has asked for it.
    async fn pause(&self, pause: Duration, asked: bool) {
        let mut leaving = self.leaving.clone();
        if asked {
            tokio::time::sleep(pause).await;
        } else if *leaving.borrow() {
            tokio::time::sleep(pause.min(LEAVING_PAUSE)).await;
        } else {
            // Whichever is first.
            drop(tokio::time::timeout(pause, leaving.changed()).await);
        }
    }

    fn taken(&self, spans: u64, rejected: u64, message: &str) {
        let rejected = rejected.min(spans);
        self.settle(spans, |counts, spans| {
            counts.exported += spans - rejected;
            counts.rejected += rejected;
        });
        if rejected > 0 || !message.is_empty() {
            self.complain_of(message, "look into the collector's log", rejected);
        } else {
            self.complaints.recovered(&self.transport.endpoint());
        }
    }

    fn refused(&self, spans: u64, cause: &str, remedy: &str) {
        self.settle(spans, |counts, spans| counts.rejected += spans);
        self.complain_of(cause, remedy, spans);
    }

    /// Moves spans from held to where `change` puts them.
    fn settle(&self, spans: u64, change: impl FnOnce(&mut super::items::Counts, u64)) {
        self.items.update(|counts| {
            counts.held -= spans;
            change(counts, spans);
        });
    }

    fn complain(&self, cause: &str, remedy: &str) {
        if self.complaints.may() {
            let endpoint = self.transport.endpoint();
            tracing::warn!(endpoint, cause, remedy, "Spans cannot be sent.");
        }
    }

    fn complain_of(&self, cause: &str, remedy: &str, rejected: u64) {
        if self.complaints.may() {
            let endpoint = self.transport.endpoint();
            tracing::warn!(endpoint, cause, remedy, rejected, "The collector refuses spans.");
        }
    }
}

/// Pauses between attempts: from 1 s by 1.5 to 30 s, each up to half shorter or longer, so that
/// taps which lost their collector together do not come back together.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: i32,
}

impl Backoff {
    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let mut random = [0; 4];
        // Without randomness the pause is the shortest of its range.
        getrandom::fill(&mut random).unwrap_or_default();
        let jitter = f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX);
        let pause = 1.5f64.powi(self.attempts).min(30.0);
        self.attempts = (self.attempts + 1).min(16);
        Duration::from_secs_f64(pause * (0.5 + jitter))
    }
}

/// Holds complaints about one endpoint to one a minute.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Mutex<Option<Instant>>,
}

impl Complaints {
    /// Whether one may be made now; then it is.
    pub fn may(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    /// It works again. The next complaint still waits for its minute, so that an endpoint that
    /// comes and goes does not fill the log.
    pub fn recovered(&self, endpoint: &str) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some() {
            tracing::debug!(endpoint, "Spans are sent.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_their_range() {
        let mut backoff = Backoff::default();
        for attempt in 0..20 {
            let middle = 1.5f64.powi(attempt).min(30.0);
            let pause = backoff.pause().as_secs_f64();
            assert!(pause >= middle * 0.5 && pause <= middle * 1.5, "{attempt}: {pause}");
        }
    }

    #[test]
    fn one_complaint_a_minute() {
        let complaints = Complaints::default();
        assert!(complaints.may());
        assert!(!complaints.may());
        let past = Instant::now().checked_sub(COMPLAIN_EVERY);
        *complaints.last.lock().unwrap() = past;
        assert_eq!(complaints.may(), past.is_some());
    }
}
