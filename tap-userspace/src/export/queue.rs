//! Finished connections and exchanges between the tracing thread and an exporter: bounded in number and bytes.
//! Comes in: whole batches, never waited for; goes out: batches of the exporter's size, full ones at
//! once and others after the delay. What finds no room is dropped and counted.
//!
//! Connections wait as they are: that is a third of their encoded size, and encoding is then the
//! exporter's time, not the tracing thread's.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::items::{Counts, Items, Reason};
use crate::connection::{
    model::{Connection, Event},
    transaction::Transaction,
};

/// How much may wait, and how it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections or exchanges.
    pub items: usize,
    /// Bytes of memory.
    pub bytes: usize,
    /// Connections that leave together.
    pub batch: usize,
    /// Longest wait for a batch to fill.
    pub delay: Duration,
}

/// Connections that leave together, in the pieces they came in.
pub type Batch<T> = Vec<Vec<T>>;

#[derive(Debug)]
struct State<T> {
    chunks: VecDeque<(Instant, Vec<T>)>,
    items: usize,
    bytes: usize,
    closed: bool,
    woken: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    bounds: Bounds,
    /// Those of the exporter that it stands before, or of all that its processors stand before.
    items: Box<[Arc<Items>]>,
    /// Its source can wait.
    patient: AtomicBool,
    /// A batch may be ready (for [`Queue::take`]).
    ready: Notify,
    /// The same (for [`Queue::take_blocking`]).
    arrived: Condvar,
    /// There may be room (for [`Queue::offer_waiting`]).
    room: Condvar,
}

/// What a taker does next.
enum Next<T> {
    Take(Batch<T>),
    End,
    Wait(Option<Instant>),
}

impl<T: Queued> Queue<T> {
    /// An empty queue that counts in `items`.
    pub fn new(bounds: Bounds, items: Arc<Items>) -> Self {
        Self::before(bounds, [items].into())
    }

    /// An empty queue that counts in all of `items`: what becomes of an item here becomes of it at
    /// each of these exporters.
    pub fn before(bounds: Bounds, items: Box<[Arc<Items>]>) -> Self {
        Self {
            state: Mutex::new(State {
                chunks: VecDeque::new(),
                items: 0,
                bytes: 0,
                closed: false,
                woken: false,
            }),
            bounds,
            items,
            patient: AtomicBool::new(false),
            ready: Notify::new(),
            arrived: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Takes in what there is room for and drops the rest; never waits for room. `sampled` more
    /// were left out before.
    pub fn offer(&self, mut batch: Vec<T>, sampled: usize) {
        let mut state = self.lock();
        let rest = batch.split_off(self.room_for(&state, &batch));
        let (admitted, left) = (count(&batch), count(&rest));
        let shut = state.closed;
        self.push(&mut state, batch);
        self.book(|counts| {
            counts.produced += admitted + left + sampled as u64;
            counts.sampled += sampled as u64;
            counts.queued += admitted;
            let reason = if shut { Reason::Shutdown } else { Reason::QueueFull };
            counts.drop(reason, left);
        });
        drop(state);
        // Freed outside of the lock.
        drop(rest);
    }

    /// Takes in what was held before it: by the processors of its pipeline. What finds no room is
    /// dropped, unless there is time (`patient`).
    pub fn pass(&self, mut batch: Vec<T>, patient: bool) {
        let mut state = self.lock();
        loop {
            let rest = batch.split_off(self.room_for(&state, &batch));
            let (admitted, left) = (count(&batch), count(&rest));
            let shut = state.closed;
            self.push(&mut state, batch);
            let wait = patient && !shut && left > 0;
            self.book(|counts| {
                counts.held -= admitted;
                counts.queued += admitted;
                if !wait {
                    counts.held -= left;
                    let reason = if shut { Reason::Shutdown } else { Reason::QueueFull };
                    counts.drop(reason, left);
                }
            });
            if !wait {
                return;
            }
            batch = rest;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether its source has waited for room.
    pub fn is_patient(&self) -> bool {
        self.patient.load(Relaxed)
    }

    /// Counts the same at each exporter.
    pub fn book(&self, change: impl Fn(&mut Counts)) {
        self.items.iter().for_each(|items| items.update(&change));
    }

    /// Counts items that got lost on their way here.
    pub fn lose(&self, lost: u64, reason: Reason) {
        self.book(|counts| {
            counts.produced += lost;
            counts.drop(reason, lost);
        });
    }

    /// Takes in everything, waiting for room.
    pub fn offer_waiting(&self, mut batch: Vec<T>, sampled: usize) {
        self.patient.store(true, Relaxed);
        let mut state = self.lock();
        let mut admitted = self.room_for(&state, &batch);
        while admitted < batch.len() && !state.closed {
            // What is larger than the queue goes in pieces.
            if admitted > 0 {
                let rest = batch.split_off(admitted);
                let admitted = count(&batch);
                self.push(&mut state, batch);
                self.book(|counts| {
                    counts.produced += admitted;
                    counts.queued += admitted;
                });
                batch = rest;
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            admitted = self.room_for(&state, &batch);
        }
        drop(state);
        // One source fills the queue, so the room is still there.
        self.offer(batch, sampled);
    }

    /// The next batch, which counts as held from now on; `None` when the queue is closed and empty.
    pub async fn take(&self) -> Option<Batch<T>> {
        loop {
            let ready = self.ready.notified();
            tokio::pin!(ready);
            // From here on no notification is missed.
            ready.as_mut().enable();
            match self.next(self.bounds.delay) {
                Next::Take(batch) => return Some(batch),
                Next::End => return None,
                Next::Wait(None) => ready.await,
                // Either way, the queue tells what to do next.
                Next::Wait(Some(until)) => drop(tokio::time::timeout_at(until.into(), ready).await),
            }
        }
    }

    /// Like [`Self::take`], for a thread, and without a delay.
    pub fn take_blocking(&self) -> Option<Batch<T>> {
        self.take_until(None)
    }

    /// The same, and an empty batch where none comes `until` then, or [`Self::wake`] is called.
    pub fn take_until(&self, until: Option<Instant>) -> Option<Batch<T>> {
        loop {
            match self.next(Duration::ZERO) {
                Next::Take(batch) => return Some(batch),
                Next::End => return None,
                Next::Wait(_) => {}
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Some(Batch::new());
            }
            let mut state = self.lock();
            if std::mem::take(&mut state.woken) {
                return Some(Batch::new());
            }
            if state.chunks.is_empty() && !state.closed {
                match left {
                    None => drop(self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner)),
                    Some(left) => drop(self.arrived.wait_timeout(state, left)),
                }
            }
        }
    }

    /// Has [`Self::take_until`] return.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.arrived.notify_all();
    }

    /// Takes nothing in any more; what waits leaves without delay.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_waiters();
        self.arrived.notify_all();
        self.room.notify_all();
    }

    /// Drops what waits; the caller counts it.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.chunks.clear();
        (state.items, state.bytes) = (0, 0);
    }

    fn next(&self, delay: Duration) -> Next<T> {
        let mut state = self.lock();
        let Some((oldest, _)) = state.chunks.front() else {
            return if state.closed { Next::End } else { Next::Wait(None) };
        };
        let due = *oldest + delay;
        if state.items < self.bounds.batch && !state.closed && due > Instant::now() {
            return Next::Wait(Some(due));
        }
        let batch = self.cut(&mut state);
        let taken = batch.iter().map(|chunk| count(chunk)).sum::<u64>();
        self.book(|counts| {
            counts.queued -= taken;
            counts.held += taken;
        });
        if !state.chunks.is_empty() {
            // Another taker waits for what remains.
            self.ready.notify_one();
        }
        self.room.notify_all();
        Next::Take(batch)
    }

    /// Takes a batch off the front.
    fn cut(&self, state: &mut State<T>) -> Batch<T> {
        let mut batch = Vec::new();
        let mut missing = self.bounds.batch;
        while missing > 0
            && let Some((since, mut chunk)) = state.chunks.pop_front()
        {
            if chunk.len() > missing {
                if !batch.is_empty() {
                    // A smaller batch is cheaper than a copy of what is left over.
                    state.chunks.push_front((since, chunk));
                    break;
                }
                let rest = chunk.split_off(missing);
                state.chunks.push_front((since, rest));
            }
            missing -= chunk.len();
            state.items -= chunk.len();
            state.bytes -= chunk.iter().map(Queued::weight).sum::<usize>();
            batch.push(chunk);
        }
        batch
    }

    fn push(&self, state: &mut State<T>, batch: Vec<T>) {
        if batch.is_empty() {
            return;
        }
        let first = state.chunks.is_empty();
        state.items += batch.len();
        state.bytes += batch.iter().map(Queued::weight).sum::<usize>();
        state.chunks.push_back((Instant::now(), batch));
        if first || state.items >= self.bounds.batch {
            self.ready.notify_one();
            self.arrived.notify_one();
        }
    }

    /// How many of `batch` there is room for.
    fn room_for(&self, state: &State<T>, batch: &[T]) -> usize {
        if state.closed {
            return 0;
        }
        let items = self.bounds.items.saturating_sub(state.items);
        let mut bytes = self.bounds.bytes.saturating_sub(state.bytes);
        batch
            .iter()
            .take(items)
            .take_while(|item| {
                let weight = item.weight();
                let fits = weight <= bytes;
                bytes = bytes.saturating_sub(weight);
                fits
            })
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Items`] count of these.
pub(super) fn count<T: Queued>(of: &[T]) -> u64 {
    of.iter().map(Queued::count).sum()
}

/// What may stand in a queue.
pub trait Queued: Send + 'static {
    /// How many items it is to [`Items`].
    fn count(&self) -> u64 {
        1
    }

    /// Memory of it, about.
    fn weight(&self) -> usize;
    /// Whose trace it belongs to, for the head sampler.
    fn trace_id(&self) -> &[u8; 16];
}

impl Queued for Connection {
    // Its process is shared with others.
    fn weight(&self) -> usize {
        let hello = self.client_hello.as_ref().map_or(0, |hello| {
            let alpn: usize =
                hello.alpn.iter().map(|name| name.capacity() + size_of::<String>()).sum();
            let name = hello.server_name.as_ref().map_or(0, String::capacity);
            size_of_val(&**hello) + hello.ciphers.capacity() * size_of::<&str>() + alpn + name
        });
        size_of::<Self>() + self.events.capacity() * size_of::<Event>() + hello
    }

    fn trace_id(&self) -> &[u8; 16] {
        &self.identity.trace_id
    }
}

impl Queued for Transaction {
    // What is the same for all of its connection is shared.
    fn weight(&self) -> usize {
        size_of::<Self>() + self.exchange.memory()
    }

    fn trace_id(&self) -> &[u8; 16] {
        &self.about.identity.trace_id
    }
}
