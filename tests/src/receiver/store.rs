//! What arrived: spans, and the requests that brought them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Point, Protocol, faults::Faults};
use crate::span::Span;

/// The scope of the daemon's spans of its own requests.
const WRITES: &str = "tap.eventstore";

/// One export request.
#[derive(Clone, Debug)]
pub struct Request {
    /// How it came.
    pub protocol: Protocol,
    /// Its headers or gRPC metadata, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Spans that it held.
    pub spans: usize,
}

/// All that arrived.
#[derive(Debug, Default)]
pub struct Store {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Faults to come.
    pub(super) faults: Faults,
}

#[derive(Debug, Default)]
struct Inner {
    spans: Vec<Arc<Span>>,
    writes: Vec<Arc<Span>>,
    requests: Vec<Request>,
    complaints: Vec<String>,
    points: Vec<Point>,
}

impl Store {
    /// Every point of a metric, in the order they came.
    pub(super) fn points(&self, metric: &str) -> Vec<Point> {
        self.lock().points.iter().filter(|point| point.metric == metric).cloned().collect()
    }

    /// Keeps points.
    pub(super) fn add_points(&self, points: Vec<Point>) {
        self.lock().points.extend(points);
        self.changed.notify_all();
    }

    /// Every span so far of connections and of what is in them.
    pub fn spans(&self) -> Vec<Arc<Span>> {
        self.lock().spans.clone()
    }

    /// Every span so far that tells of a request.
    pub fn writes(&self) -> Vec<Arc<Span>> {
        self.lock().writes.clone()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// What was wrong with requests that could not be read.
    pub fn complaints(&self) -> Vec<String> {
        self.lock().complaints.clone()
    }

    /// Keeps a request and its spans.
    pub(super) fn add(&self, request: Request, spans: Vec<Span>) {
        let mut inner = self.lock();
        inner.requests.push(request);
        let spans = spans.into_iter().map(Arc::new);
        let (writes, spans): (Vec<_>, Vec<_>) = spans.partition(|it| it.scope == WRITES);
        inner.spans.extend(spans);
        inner.writes.extend(writes);
        drop(inner);
        self.changed.notify_all();
    }

    /// Keeps a complaint about a request.
    pub(super) fn complain(&self, what: String) {
        self.lock().complaints.push(what);
        self.changed.notify_all();
    }

    /// See [`super::Receiver::wait_for`].
    pub(super) fn wait_for(
        &self,
        what: &str,
        count: usize,
        limit: Duration,
        wanted: impl Fn(&Span) -> bool,
    ) -> Result<Vec<Arc<Span>>> {
        let deadline = Instant::now() + limit;
        let (mut seen, mut found) = (0, Vec::new());
        let mut inner = self.lock();
        loop {
            found.extend(inner.spans[seen..].iter().filter(|span| wanted(span)).cloned());
            seen = inner.spans.len();
            if let Some(complaint) = inner.complaints.first() {
                bail!("the receiver could not read a request: {complaint}");
            }
            if found.len() >= count {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "waited {limit:?} in vain for {what}: {} of {count} spans, {seen} of any kind",
                    found.len()
                );
            }
            inner = self.changed.wait_timeout(inner, left).expect("no holder panics").0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}
