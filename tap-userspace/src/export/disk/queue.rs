//! A [`Store`] among tasks: the disk is waited for on threads that may wait, and what the disk has
//! done and what [`Items`] say of it change under one lock, so that a task may be cancelled at any
//! time.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::{Limits, OpenError, Refused, Store, Taken, Ticket};
use crate::{
    export::{
        complaints::Complaints,
        items::{Counts, Items, Reason},
        left,
        transport::Transport,
    },
    telemetry::metric::{Family, Number, Registry},
};

/// Between attempts to put down that a batch is done, on a disk that does not take it.
const MARK_AGAIN: Duration = Duration::from_secs(1);

/// Longest that a taker for whom there is no room waits without looking.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

const BATCHES: Family = Family::gauge("tap_queue_batches", "Batches that wait on disk.");
const ITEMS: Family = Family::gauge("tap_queue_items", "Items that wait on disk.");
const BYTES: Family = Family::gauge("tap_queue_disk_bytes", "Bytes of the queue's files.");
const DAMAGED: Family =
    Family::counter("tap_queue_damaged_segments_total", "Files of the queue that were set aside.");
const ERRORS: Family =
    Family::counter("tap_queue_disk_errors_total", "Reads and writes that the disk refused.");

#[derive(Debug)]
struct Numbers {
    batches: Number,
    items: Number,
    bytes: Number,
    damaged: Number,
    errors: Number,
}

impl Numbers {
    fn new(registry: &Registry, items: &Items) -> Self {
        let labels = [("signal", items.signal), ("exporter", &*items.exporter)];
        let number = |family| registry.number(family, &labels);
        Self {
            batches: number(BATCHES),
            items: number(ITEMS),
            bytes: number(BYTES),
            damaged: number(DAMAGED),
            errors: number(ERRORS),
        }
    }
}

/// What became of a batch that was to be stored.
#[derive(Debug)]
pub enum Pushed {
    /// It is on the disk, and counts as queued.
    Stored,
    /// There is no room. It still counts as held.
    Full,
    /// The disk does not take it. It still counts as held.
    Failed(io::Error),
}

/// The queue. Its takers see batches in their order; with several, one may overtake another.
#[derive(Debug)]
pub struct DiskQueue {
    /// `None` once the queue has been left.
    store: Mutex<Option<Store>>,
    items: Arc<Items>,
    numbers: Numbers,
    complaints: Complaints,
    closed: AtomicBool,
    ready: Notify,
    room: Notify,
}

impl DiskQueue {
    /// The queue in `folder`, with what an earlier process has left in it: that counts as recovered
    /// and queued.
    pub fn open(
        folder: &Path,
        limits: Limits,
        items: Arc<Items>,
        registry: &Registry,
    ) -> Result<Arc<Self>, OpenError> {
        let (store, found) = Store::open(folder, limits)?;
        items.update(|counts| {
            counts.recovered += found.items + found.damaged_items;
            counts.queued += found.items;
            counts.drop(Reason::Damaged, found.damaged_items);
        });
        let numbers = Numbers::new(registry, &items);
        numbers.damaged.add(found.damaged_segments);
        let queue = Self {
            store: Mutex::new(None),
            items,
            numbers,
            complaints: Complaints::default(),
            closed: AtomicBool::new(false),
            ready: Notify::new(),
            room: Notify::new(),
        };
        queue.show(&store);
        if found.batches > 0 {
            tracing::info!(
                folder = %folder.display(),
                batches = found.batches,
                items = found.items,
                "Sending what an earlier tap has left in its queue."
            );
        }
        *queue.lock() = Some(store);
        Ok(Arc::new(queue))
    }

    /// Stores a request of `count` items that count as held.
    pub async fn push(self: &Arc<Self>, body: Bytes, count: u64) -> Pushed {
        let stored = self.with(move |queue, store| {
            let stored = store.append(u32::try_from(count).unwrap_or(u32::MAX), &body);
            if stored.is_ok() {
                queue.items.update(|counts| {
                    counts.held -= count;
                    counts.queued += count;
                });
            }
            stored
        });
        match stored.await {
            Some(Ok(())) => {
                self.ready.notify_one();
                Pushed::Stored
            }
            Some(Err(Refused::Full)) => Pushed::Full,
            Some(Err(Refused::Disk(error))) => {
                self.failed(&error);
                Pushed::Failed(error)
            }
            None => Pushed::Failed(io::Error::other("the queue is closed")),
        }
    }

    /// Waits until there may be room again.
    pub async fn room(&self) {
        // Whichever is first.
        drop(tokio::time::timeout(LOOK_AGAIN, self.room.notified()).await);
    }

    /// The next request, behind [`Transport::HEADROOM`] bytes; it counts as held from now on.
    /// `None` when the queue is closed and empty.
    pub async fn take(self: &Arc<Self>) -> Option<(Ticket, Vec<u8>)> {
        loop {
            let ready = self.ready.notified();
            tokio::pin!(ready);
            // From here on no notification is missed.
            ready.as_mut().enable();
            let closed = self.closed.load(Relaxed);
            match self.with(Self::take_now).await? {
                Some(Taken::Batch(ticket, body)) => return Some((ticket, body)),
                Some(Taken::Damaged(_)) => {}
                None if closed => return None,
                None => ready.await,
            }
        }
    }

    fn take_now(&self, store: &mut Store) -> Option<Taken> {
        let taken = store.take(Transport::HEADROOM);
        self.items.update(|counts| match &taken {
            Some(Taken::Batch(ticket, _)) => {
                counts.queued -= ticket.items();
                counts.held += ticket.items();
            }
            Some(Taken::Damaged(items)) => {
                counts.queued -= items;
                counts.drop(Reason::Damaged, *items);
            }
            None => {}
        });
        if matches!(taken, Some(Taken::Damaged(_))) {
            self.numbers.damaged.add(store.take_damaged_segments());
        }
        taken
    }

    /// A request is done with: its items go from held to where `change` puts them. Returns when
    /// this is on the disk, so that no more than what its takers hold is ever sent twice; or when
    /// tap is `leaving` and the disk does not take it.
    pub async fn settle(
        self: &Arc<Self>,
        ticket: Ticket,
        change: impl FnOnce(&mut Counts, u64) + Send + 'static,
        leaving: &mut watch::Receiver<bool>,
    ) {
        let settled = self.with(move |queue, store| {
            queue.items.update(|counts| {
                counts.held -= ticket.items();
                change(counts, ticket.items());
            });
            store.finish(&ticket);
            let marked = store.mark(&ticket);
            (ticket, marked)
        });
        let mut settled = settled.await;
        self.room.notify_one();
        while let Some((ticket, Err(error))) = settled {
            self.failed(&error);
            if *leaving.borrow() {
                return;
            }
            // Whichever is first.
            drop(tokio::time::timeout(MARK_AGAIN, leaving.changed()).await);
            let again = self.with(move |_, store| {
                let marked = store.mark(&ticket);
                (ticket, marked)
            });
            settled = again.await;
        }
    }

    /// Takes nothing in any more; what waits is still given out.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.ready.notify_waiters();
        self.room.notify_waiters();
    }

    /// Lets the folder go. Items that stay in it for the next process.
    pub async fn leave(self: &Arc<Self>, deadline: Instant) -> u64 {
        let queue = self.clone();
        let leave = tokio::task::spawn_blocking(move || {
            let mut store = queue.lock().take()?;
            store.close();
            queue.show(&store);
            Some(store.held().items)
        });
        // A disk that hangs is not waited for, and then nothing of what is there is promised.
        let wait = left(deadline).max(LOOK_AGAIN);
        tokio::time::timeout(wait, leave).await.ok().and_then(Result::ok).flatten().unwrap_or(0)
    }

    /// Runs `job` where it may wait for the disk; to its end, even if nobody waits for it any more.
    async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Self, &mut Store) -> T + Send + 'static,
    ) -> Option<T> {
        let queue = self.clone();
        let run = tokio::task::spawn_blocking(move || {
            let mut store = queue.lock();
            let store = store.as_mut()?;
            let result = job(&queue, store);
            queue.show(store);
            Some(result)
        });
        run.await.ok().flatten()
    }

    fn show(&self, store: &Store) {
        self.numbers.batches.set(store.held().batches);
        self.numbers.items.set(store.held().items);
        self.numbers.bytes.set(store.used());
    }

    fn failed(&self, error: &io::Error) {
        self.numbers.errors.add(1);
        if self.complaints.may() {
            let remedy = "make room, or see to the disk; what cannot be stored is sent from memory";
            tracing::warn!(%error, remedy, "The sending queue's disk refuses reads or writes.");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
