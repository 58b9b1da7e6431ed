//! An exporter of requests, to a collector, a file or an object store: takes batches off the queue in memory
//! and encodes them. Without a queue on disk it sends them itself; with one it stores them there, and others send
//! what is stored. Every item ends as exported, rejected or dropped, or stays on the disk.

use std::{iter::Peekable, sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

pub use super::complaints::Complaints;
use super::{
    delivery::Delivery,
    disk::{DiskQueue, Pushed},
    items::{Items, Reason},
    queue::{Batch, Queue, Queued},
    retry::Backoff,
    sender::{End, Sender, Sending},
    transport::Transport,
    writes::Writer,
};
use crate::{
    policy::data::Source,
    telemetry::{resource::Resource, span::Frame},
};

/// A request is closed when it has this many bytes, whatever its spans: gRPC servers take 4 MiB
/// unless told otherwise.
const LARGEST_REQUEST: usize = 3 << 20;

/// Memory that a worker keeps from one request to the next: more than most need.
const LARGEST_KEPT: usize = 1 << 20;

/// How items become requests.
pub trait Requests: Send + Sync + 'static {
    /// What they are made of.
    type Item: Queued;
    /// Brings the items of a batch into the order in which they become requests.
    fn arrange(&self, batch: Batch<Self::Item>) -> Batch<Self::Item> {
        batch
    }
    /// Makes a request of the next items, behind the headroom that transports need
    /// ([`Transport::HEADROOM`]): where it starts and how many items it has, or `None` where there
    /// are none.
    fn next(
        &self,
        items: &mut Peekable<impl Iterator<Item = Self::Item>>,
        buffer: &mut Vec<u8>,
    ) -> Option<(usize, u64)>;
}

/// How single items are encoded.
pub trait Encoder: Send + Sync + 'static {
    /// What it encodes.
    type Item: Queued;
    /// The instrumentation scopes that items may have; a request has one.
    const SCOPES: &'static [&'static str];
    /// Index of an item's scope, unless it has its [`Self::source`] with it.
    fn scope(&self, item: &Self::Item) -> usize;
    /// Who made an item that processors have changed.
    fn source<'a>(&self, item: &'a Self::Item) -> Option<&'a Source>;
    /// Appends an item as field 2 of the request's scope message.
    fn encode(&self, item: &Self::Item, out: &mut Vec<u8>);
}

/// Requests of encoded items, each of one scope.
pub struct Framed<E> {
    encoder: E,
    frames: Vec<Frame>,
}

impl<E: Encoder> Framed<E> {
    /// Requests from `resource`.
    pub fn new(encoder: E, resource: &Resource) -> Self {
        let frames = E::SCOPES.iter().map(|scope| Frame::new(resource, scope)).collect();
        Self { encoder, frames }
    }

    /// Items with the same one can be in one request: the index of its scope, else its source's
    /// place in memory.
    fn origin(&self, item: &E::Item) -> (usize, (usize, usize)) {
        match self.encoder.source(item) {
            None => (self.encoder.scope(item), (0, 0)),
            Some(source) => (usize::MAX, source.order()),
        }
    }
}

impl<E: Encoder> Requests for Framed<E> {
    type Item = E::Item;

    /// Items of one scope together.
    fn arrange(&self, batch: Batch<E::Item>) -> Batch<E::Item> {
        let mut origins = batch.iter().flatten().map(|item| self.origin(item));
        let first = origins.next();
        if origins.all(|origin| Some(origin) == first) {
            return batch;
        }
        let mut all: Vec<_> = batch.into_iter().flatten().collect();
        all.sort_by_key(|item| self.origin(item));
        vec![all]
    }

    fn next(
        &self,
        items: &mut Peekable<impl Iterator<Item = E::Item>>,
        buffer: &mut Vec<u8>,
    ) -> Option<(usize, u64)> {
        let first = items.peek()?;
        let (origin, made) = (self.origin(first), self.encoder.source(first).map(Frame::of));
        let frame = match &made {
            Some(frame) => frame,
            None => self.frames.get(origin.0)?,
        };
        frame.begin(buffer);
        let mut count = 0;
        while buffer.len() < LARGEST_REQUEST
            && let Some(item) = items.next_if(|item| self.origin(item) == origin)
        {
            self.encoder.encode(&item, buffer);
            count += 1;
        }
        Some((frame.finish(buffer), count))
    }
}

/// A running exporter.
pub struct Exporter<R: Requests> {
    shared: Arc<Shared<R>>,
    workers: Vec<JoinHandle<()>>,
    /// Sends what is stored on disk.
    senders: Vec<JoinHandle<()>>,
    leave: watch::Sender<bool>,
}

/// The queues before an exporter, and its counts.
pub struct Queues<T> {
    /// In memory, where batches are made.
    pub memory: Arc<Queue<T>>,
    /// On disk, if that was asked for.
    pub disk: Option<Arc<DiskQueue>>,
    /// What becomes of each item.
    pub items: Arc<Items>,
    /// Is told what becomes of each request.
    pub writer: Writer,
}

struct Shared<R: Requests> {
    queue: Arc<Queue<R::Item>>,
    disk: Option<Arc<DiskQueue>>,
    items: Arc<Items>,
    sender: Sender,
    requests: Arc<R>,
    /// What finds no room on the disk waits for it.
    block: bool,
    leaving: watch::Receiver<bool>,
}

impl<R: Requests> Exporter<R> {
    /// Starts sending what `queues` give by `transport`, as `delivery` says.
    pub fn start(
        transport: Transport,
        delivery: &Delivery,
        requests: Arc<R>,
        queues: Queues<R::Item>,
        handle: &Handle,
    ) -> Self {
        let (leave, leaving) = watch::channel(false);
        let Queues { memory, disk, items, writer } = queues;
        let shared = Arc::new(Shared {
            queue: memory,
            disk,
            sender: Sender::new(transport, delivery.retry, writer, items.clone(), leaving.clone()),
            items,
            requests,
            block: delivery.block,
            leaving,
        });
        let (mut workers, mut senders) = (Vec::new(), Vec::new());
        match &shared.disk {
            None => {
                let worker = |_| handle.spawn(shared.clone().run());
                workers.extend((0..delivery.consumers).map(worker));
            }
            Some(disk) => {
                // One, so that the order is kept.
                workers.push(handle.spawn(shared.clone().run()));
                let sender = |_| handle.spawn(shared.clone().send_stored(disk.clone()));
                senders.extend((0..delivery.consumers).map(sender));
            }
        }
        Self { shared, workers, senders, leave }
    }

    /// Takes nothing in any more.
    pub fn close(&self) {
        self.shared.queue.close();
    }

    /// Sends what is queued, until `deadline`; what remains then is dropped, unless it is on disk.
    pub async fn shutdown(self, deadline: Instant) {
        let shared = self.shared;
        shared.queue.close();
        self.leave.send_replace(true);
        end(self.workers, deadline).await;
        let mut stored = 0;
        if let Some(disk) = &shared.disk {
            disk.close();
            end(self.senders, deadline).await;
            stored = disk.leave(deadline).await;
        }
        shared.queue.clear();
        shared.items.settle(|counts| {
            let rest = std::mem::take(&mut counts.queued) + std::mem::take(&mut counts.held);
            counts.queued = stored.min(rest);
            counts.drop(Reason::Shutdown, rest - counts.queued);
        });
    }
}

/// Waits for the tasks until `deadline`, then cancels them.
pub async fn end(tasks: Vec<JoinHandle<()>>, deadline: Instant) {
    for mut task in tasks {
        if tokio::time::timeout_at(deadline.into(), &mut task).await.is_err() {
            task.abort();
            // Cancelled, as it was told to be.
            drop(task.await);
        }
    }
}

impl<R: Requests> Shared<R> {
    /// Makes requests of what the queue in memory gives, and sends or stores them.
    async fn run(self: Arc<Self>) {
        // Fresh memory for each request would cost a fifth of the encoding.
        let mut buffer = Vec::new();
        while let Some(batch) = self.queue.take().await {
            let mut items = self.requests.arrange(batch).into_iter().flatten().peekable();
            while let Some((start, count)) = self.requests.next(&mut items, &mut buffer) {
                let message = std::mem::take(&mut buffer);
                buffer = match &self.disk {
                    None => self.send(message, start, count).await,
                    Some(disk) => self.store(disk, message, start, count).await,
                };
                buffer.clear();
                buffer.shrink_to(LARGEST_KEPT);
            }
        }
    }

    /// Sends a request from memory. The memory, if it can be used again.
    async fn send(&self, message: Vec<u8>, start: usize, count: u64) -> Vec<u8> {
        match self.sender.prepare(message, start, count) {
            Ok(mut sending) => {
                let end = self.sender.deliver(&mut sending, false).await;
                self.settle(count, end);
                sending.into_buffer().unwrap_or_default()
            }
            Err(end) => {
                self.settle(count, end);
                Vec::new()
            }
        }
    }

    /// Stores a request on disk. A disk that does not take it is no reason to lose it: it is sent
    /// from memory, or stored when the disk takes it again, whichever is first.
    async fn store(
        &self,
        disk: &Arc<DiskQueue>,
        message: Vec<u8>,
        start: usize,
        count: u64,
    ) -> Vec<u8> {
        let message = Bytes::from(message);
        let body = message.slice(start..);
        let mut direct = None;
        loop {
            match disk.push(body.clone(), count).await {
                Pushed::Stored => break,
                Pushed::Full if self.block && !*self.leaving.borrow() => disk.room().await,
                Pushed::Full => {
                    self.items.update(|counts| {
                        counts.held -= count;
                        counts.drop(Reason::QueueFull, count);
                    });
                    break;
                }
                Pushed::Failed(_) => {
                    let direct = direct.get_or_insert_with(|| {
                        let prepared = self.sender.prepare(message.to_vec(), start, count);
                        (prepared, Backoff::new(self.sender.retry()))
                    });
                    if let Some(end) = self.send_once(direct).await {
                        self.settle(count, end);
                        break;
                    }
                }
            }
        }
        drop(body);
        message.try_into_mut().map(Vec::from).unwrap_or_default()
    }

    /// One attempt to send what the disk does not take, and the pause after it.
    async fn send_once(
        &self,
        (prepared, backoff): &mut (Result<Sending, End>, Backoff),
    ) -> Option<End> {
        match prepared {
            Err(end) => Some(*end),
            Ok(sending) => match self.sender.attempt(sending).await {
                Ok(end) => Some(end),
                Err(asked) => self.sender.wait(backoff, asked, sending, false).await,
            },
        }
    }

    /// Sends what is stored, in its order, until the queue is closed and empty; or, once tap
    /// leaves, until the receiver does not take it: the next process will.
    async fn send_stored(self: Arc<Self>, disk: Arc<DiskQueue>) {
        let mut leaving = self.leaving.clone();
        while let Some((ticket, body)) = disk.take().await {
            let count = ticket.items();
            let start = Transport::HEADROOM;
            let end = match self.sender.prepare(body, start, count) {
                Ok(mut sending) => self.sender.deliver(&mut sending, true).await,
                Err(end) => end,
            };
            if end == End::Left {
                return;
            }
            disk.settle(ticket, move |counts, count| end.book(counts, count), &mut leaving).await;
        }
    }

    /// Moves items from held to where their request's end puts them.
    fn settle(&self, count: u64, end: End) {
        self.items.update(|counts| {
            counts.held -= count;
            end.book(counts, count);
        });
    }
}
