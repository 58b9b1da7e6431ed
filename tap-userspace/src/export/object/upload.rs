//! Objects on their way into a store. Comes in: objects with their keys, through a bounded queue;
//! each ends as exported, rejected or dropped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use object_store::path::Path;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use super::store::{Outcome, Store};
use crate::{
    config::{
        exporters::{RetryOnFailure, Sizer},
        http_capture::HttpCapture,
    },
    export::{
        complaints::Complaints,
        disk::{DiskQueue, Pushed},
        items::{Attempt, Items, Reason},
        otlp::end,
        queue::{Bounds, Queue, Queued},
        retry::{Backoff, Retry},
        sender::End,
        transport::Transport,
        writes::{Begun, Writer},
    },
    telemetry::eventstore::Became,
};

/// Uploads at a time, as the Collector's `num_consumers`.
const CONSUMERS: usize = 10;

/// Longest pause between attempts once tap is leaving.
const LEAVING_PAUSE: Duration = Duration::from_millis(250);

/// An object that waits.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its name.
    pub key: Path,
    /// All of it.
    pub bytes: Bytes,
    /// Of its transaction.
    pub trace_id: [u8; 16],
}

impl Queued for Upload {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.key.as_ref().len() + self.bytes.len()
    }

    fn trace_id(&self) -> &[u8; 16] {
        &self.trace_id
    }
}

impl Upload {
    /// As it lies in the queue on disk: the length of its key, its key, all of it.
    fn to_bytes(&self) -> Bytes {
        let key = self.key.as_ref().as_bytes();
        let len = u16::try_from(key.len()).unwrap_or(u16::MAX);
        [&len.to_be_bytes()[..], &key[..len.into()], &self.bytes].concat().into()
    }

    /// The same back; `None` of what is none.
    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let bytes = Bytes::from(bytes);
        let bytes = bytes.slice(Transport::HEADROOM.min(bytes.len())..);
        let len = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
        let key = std::str::from_utf8(bytes.get(2..2 + len)?).ok()?;
        let key = Path::parse(key).ok()?;
        // The head sampler has kept it.
        Some(Self { key, bytes: bytes.slice(2 + len..), trace_id: [0; 16] })
    }
}

/// What may wait in memory: an object is a request. What waits on disk has bounds of its own.
pub fn bounds(config: &HttpCapture) -> Bounds {
    let queue = &config.sending_queue;
    let size = usize::try_from(queue.queue_size).unwrap_or(usize::MAX);
    let (items, bytes) = match queue.sizer {
        _ if queue.storage.is_some() => (usize::MAX, usize::MAX),
        Sizer::Requests | Sizer::Items => (size, usize::MAX),
        Sizer::Bytes => (usize::MAX, size),
    };
    let bytes = bytes.min(config.memory_limit);
    Bounds { items, bytes, batch: 1, delay: Duration::ZERO }
}

/// On disk nothing is given up unless the configuration says so.
fn retry(block: Option<&RetryOnFailure>, stored: bool) -> Retry {
    match block {
        Some(block) => Retry::of(block, stored),
        None => Retry { give_up: Retry::default().give_up.filter(|_| !stored), ..Retry::default() },
    }
}

/// Uploading.
pub struct Uploads {
    queue: Arc<Queue<Upload>>,
    items: Arc<Items>,
    disk: Option<Arc<DiskQueue>>,
    workers: Vec<JoinHandle<()>>,
    /// Upload what is stored on disk.
    senders: Vec<JoinHandle<()>>,
    leave: watch::Sender<bool>,
}

/// The queues before the store, and what counts.
pub struct Waiting {
    /// In memory.
    pub memory: Arc<Queue<Upload>>,
    /// On disk, if that was asked for.
    pub disk: Option<Arc<DiskQueue>>,
    /// What becomes of each object.
    pub items: Arc<Items>,
    /// Is told of each upload.
    pub writer: Writer,
}

struct Shared {
    store: Store,
    queue: Arc<Queue<Upload>>,
    disk: Option<Arc<DiskQueue>>,
    items: Arc<Items>,
    retry: Retry,
    complaints: Complaints,
    writer: Writer,
    leaving: watch::Receiver<bool>,
}

impl Uploads {
    /// Starts to upload what waits.
    pub fn start(store: Store, config: &HttpCapture, waiting: Waiting, handle: &Handle) -> Self {
        let Waiting { memory: queue, disk, items, writer } = waiting;
        let (leave, leaving) = watch::channel(false);
        let shared = Arc::new(Shared {
            store,
            queue: queue.clone(),
            disk: disk.clone(),
            items: items.clone(),
            retry: retry(config.retry_on_failure.as_ref(), disk.is_some()),
            complaints: Complaints::default(),
            writer,
            leaving,
        });
        // An object that is uploaded twice is the same one: several at a time do no harm.
        let consumers = config.sending_queue.num_consumers.unwrap_or(CONSUMERS);
        let workers = if disk.is_some() { 1 } else { consumers };
        let workers = (0..workers).map(|_| handle.spawn(shared.clone().run())).collect();
        let sender = |disk: &Arc<DiskQueue>| handle.spawn(shared.clone().send_stored(disk.clone()));
        let senders = disk.iter().flat_map(|disk| (0..consumers).map(|_| sender(disk))).collect();
        Self { queue, items, disk, workers, senders, leave }
    }

    /// Uploads what is queued, until `deadline`; what remains is dropped, unless it is on disk.
    pub async fn shutdown(self, deadline: Instant) {
        self.queue.close();
        self.leave.send_replace(true);
        end(self.workers, deadline).await;
        let mut stored = 0;
        if let Some(disk) = &self.disk {
            disk.close();
            end(self.senders, deadline).await;
            stored = disk.leave(deadline).await;
        }
        self.queue.clear();
        self.items.update(|counts| {
            let rest = std::mem::take(&mut counts.queued) + std::mem::take(&mut counts.held);
            counts.queued = stored.min(rest);
            counts.drop(Reason::Shutdown, rest - counts.queued);
        });
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        while let Some(batch) = self.queue.take().await {
            for upload in batch.into_iter().flatten() {
                let end = match &self.disk {
                    None => self.deliver(upload, false).await,
                    Some(disk) => match disk.push(upload.to_bytes(), 1).await {
                        Pushed::Stored => continue,
                        Pushed::Full => {
                            self.items.update(|counts| {
                                counts.held -= 1;
                                counts.drop(Reason::QueueFull, 1);
                            });
                            continue;
                        }
                        // A disk that does not take it is no reason to lose it.
                        Pushed::Failed(_) => self.deliver(upload, false).await,
                    },
                };
                self.items.update(|counts| {
                    counts.held -= 1;
                    end.book(counts, 1);
                });
            }
        }
    }

    /// Uploads what is stored until the queue is closed and empty; or, once tap leaves, until the
    /// store does not take it: the next process will.
    async fn send_stored(self: Arc<Self>, disk: Arc<DiskQueue>) {
        let mut leaving = self.leaving.clone();
        while let Some((ticket, bytes)) = disk.take().await {
            let end = match Upload::from_bytes(bytes) {
                Some(upload) => self.deliver(upload, true).await,
                // Somebody else's, whole by its checksum.
                None => End::Refused,
            };
            if end == End::Left {
                return;
            }
            disk.settle(ticket, move |counts, count| end.book(counts, count), &mut leaving).await;
        }
    }

    /// Uploads an object, again and again while that may help; or, if it is `kept` elsewhere, until
    /// tap leaves and the store does not take it.
    async fn deliver(&self, upload: Upload, kept: bool) -> End {
        let mut write = self.writer.begin(&[], 1);
        if let Some(write) = &mut write {
            write.start();
        }
        let end = self.upload(&upload, kept, &mut write).await;
        let became = match end {
            End::Taken { .. } => Became::Ok,
            End::Refused => Became::Refused,
            End::Exhausted => Became::Dropped,
            // It is not over.
            End::Left => return end,
        };
        self.writer.end(write, upload.bytes.len() as u64, became);
        end
    }

    async fn upload(&self, upload: &Upload, kept: bool, write: &mut Option<Begun>) -> End {
        let began = Instant::now();
        let mut backoff = Backoff::new(self.retry);
        loop {
            if let Some(write) = write {
                write.attempt();
            }
            let asked = match self.store.put(&upload.key, upload.bytes.clone()).await {
                Outcome::Taken => {
                    self.items.attempted(Attempt::Taken);
                    self.complaints.recovered(&self.store.place);
                    return End::Taken { rejected: 0 };
                }
                Outcome::Refused(cause) => {
                    self.items.attempted(Attempt::Refused);
                    if self.complaints.may() {
                        let store = &self.store.place;
                        let remedy = "check the bucket and what its credentials may do";
                        tracing::warn!(store, cause, remedy, "The store refuses objects.");
                    }
                    return End::Refused;
                }
                Outcome::Again(cause, asked) => {
                    self.items.attempted(Attempt::Failed);
                    if self.complaints.may() {
                        let store = &self.store.place;
                        let remedy = "objects are kept and sent again; check http_capture.store";
                        tracing::warn!(store, cause, remedy, "Objects cannot be stored.");
                    }
                    asked
                }
            };
            let mut leaving = self.leaving.clone();
            if kept && *leaving.borrow() {
                return End::Left;
            }
            let pause = backoff.pause(asked);
            let exhausted = self.retry.give_up.is_some_and(|limit| began.elapsed() + pause > limit);
            if exhausted || !self.retry.enabled {
                return End::Exhausted;
            }
            if asked.is_some() && !kept {
                // The store is not asked before it wants to be.
                tokio::time::sleep(pause).await;
            } else if *leaving.borrow() {
                tokio::time::sleep(pause.min(LEAVING_PAUSE)).await;
            } else {
                // Whichever is first.
                drop(tokio::time::timeout(pause, leaving.changed()).await);
            }
        }
    }
}
