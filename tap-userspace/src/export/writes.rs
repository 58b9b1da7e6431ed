//! Writes to backends become spans of the traces pipeline ([`eventstore`]). Comes in: the end of
//! each request, from the exporters of all signals; goes out: [`Write`]s, some at a time, through
//! the same [`Sink`] that connections take, so that they are sampled, bounded and counted as all
//! spans are. A request costs one such span, and a request of such spans none.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use super::{Sink, spans::SpanOf};
use crate::{
    connection::clock,
    telemetry::eventstore::{self, Backend, Became, Write},
};

/// Writes that are handed on together: a request of their own for each would double the requests.
const TOGETHER: usize = 64;

/// Longest wait for others.
const DELAY: Duration = Duration::from_secs(1);

/// The way from the ends of requests to the traces pipeline.
#[derive(Debug, Default)]
pub struct Writes {
    /// Set once the traces pipeline is there, and never where nobody wants these spans.
    way: OnceLock<Sink<SpanOf>>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    writes: Vec<SpanOf>,
    closed: bool,
}

impl Writes {
    /// From now on writes are told to `way`.
    pub fn tell(&self, way: Sink<SpanOf>) {
        if way.is_wanted() {
            // It is set once.
            drop(self.way.set(way));
        }
    }

    /// What the requests to a backend are told through.
    pub fn of(self: &Arc<Self>, backend: Backend) -> Writer {
        Writer { writes: self.clone(), backend: Arc::new(backend) }
    }

    /// Hands on what waits and takes nothing more: tap leaves, and what is written from now on
    /// could not be told any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.hand_on();
    }

    fn add(self: &Arc<Self>, write: Write) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        waiting.writes.push(SpanOf::Write(Box::new(write)));
        let count = waiting.writes.len();
        drop(waiting);
        if count >= TOGETHER {
            self.hand_on();
        } else if count == 1 {
            let writes = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(DELAY).await;
                writes.hand_on();
            });
        }
    }

    fn hand_on(&self) {
        let writes = std::mem::take(&mut self.lock().writes);
        if let Some(way) = self.way.get().filter(|_| !writes.is_empty()) {
            way.offer(writes);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same for one exporter of one signal.
#[derive(Clone, Debug)]
pub struct Writer {
    writes: Arc<Writes>,
    backend: Arc<Backend>,
}

/// A request under way, as its span will tell.
#[derive(Debug)]
pub struct Begun {
    began_ns: u64,
    items: u64,
    attempts: u32,
    /// Of the last attempt that failed.
    error: Option<Cow<'static, str>>,
}

impl Begun {
    /// The first attempt is about to be made.
    pub fn start(&mut self) {
        self.began_ns = clock::wall();
    }

    /// One more attempt.
    pub const fn attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// It failed.
    pub fn failed(&mut self, error: Cow<'static, str>) {
        self.error = Some(error);
    }
}

impl Writer {
    /// Whether a request, as protobuf, is to be told; it is that of `items` items.
    pub fn begin(&self, request: &[u8], items: u64) -> Option<Begun> {
        let wanted = self.writes.way.get().is_some() && !eventstore::is_all_of(request);
        wanted.then_some(Begun { began_ns: 0, items, attempts: 0, error: None })
    }

    /// Its end; `bytes` were sent each time. One whose attempts were none was no write.
    pub fn end(&self, begun: Option<Begun>, bytes: u64, became: Became) {
        let Some(begun) = begun.filter(|begun| begun.attempts > 0) else { return };
        let now_ns = clock::wall();
        let (trace_id, span_id) = Write::ids(now_ns);
        let error = match became {
            Became::Ok => None,
            Became::Partial(_) => Some(Cow::Borrowed("partial_success")),
            Became::Refused | Became::Dropped => begun.error.or(Some(Cow::Borrowed("_OTHER"))),
        };
        self.writes.add(Write {
            backend: self.backend.clone(),
            trace_id,
            span_id,
            // The wall clock may be set back.
            times: [begun.began_ns, now_ns.max(begun.began_ns)],
            items: begun.items,
            bytes,
            attempts: begun.attempts,
            became,
            error,
        });
    }
}
