//! Objects on their way into a store. Comes in: objects with their keys, through a bounded queue;
//! each ends as exported, rejected or dropped.

use std::{sync::Arc, time::Instant};

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
        items::{Items, Reason},
        queue::{Bounds, Queue, Queued},
        retry::{Backoff, Retry},
        sender::End,
    },
};

/// Uploads at a time, as the Collector's `num_consumers`.
const CONSUMERS: usize = 10;

/// Longest pause between attempts once tap is leaving.
const LEAVING_PAUSE: std::time::Duration = std::time::Duration::from_millis(250);

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

/// What may wait: an object is a request.
pub fn bounds(config: &HttpCapture) -> Bounds {
    let size = usize::try_from(config.sending_queue.queue_size).unwrap_or(usize::MAX);
    let (items, bytes) = match config.sending_queue.sizer {
        Sizer::Requests | Sizer::Items => (size, usize::MAX),
        Sizer::Bytes => (usize::MAX, size),
    };
    let bytes = bytes.min(config.memory_limit);
    Bounds { items, bytes, batch: 1, delay: std::time::Duration::ZERO }
}

fn retry(block: Option<&RetryOnFailure>) -> Retry {
    let Some(block) = block else { return Retry::default() };
    Retry {
        enabled: block.enabled,
        initial: block.initial_interval,
        randomization: block.randomization_factor,
        multiplier: block.multiplier,
        longest: block.max_interval,
        give_up: match block.max_elapsed_time {
            None => Retry::default().give_up,
            Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
        },
    }
}

/// Uploading.
pub struct Uploads {
    queue: Arc<Queue<Upload>>,
    items: Arc<Items>,
    workers: Vec<JoinHandle<()>>,
    leave: watch::Sender<bool>,
}

struct Shared {
    store: Store,
    queue: Arc<Queue<Upload>>,
    items: Arc<Items>,
    retry: Retry,
    complaints: Complaints,
    leaving: watch::Receiver<bool>,
}

impl Uploads {
    /// Starts to upload what `queue` gives.
    pub fn start(
        store: Store,
        config: &HttpCapture,
        queue: Arc<Queue<Upload>>,
        items: Arc<Items>,
        handle: &Handle,
    ) -> Self {
        let (leave, leaving) = watch::channel(false);
        let shared = Arc::new(Shared {
            store,
            queue: queue.clone(),
            items: items.clone(),
            retry: retry(config.retry_on_failure.as_ref()),
            complaints: Complaints::default(),
            leaving,
        });
        let consumers = config.sending_queue.num_consumers.unwrap_or(CONSUMERS);
        let workers = (0..consumers).map(|_| handle.spawn(shared.clone().run())).collect();
        Self { queue, items, workers, leave }
    }

    /// Uploads what is queued, until `deadline`; what remains is dropped.
    pub async fn shutdown(self, deadline: Instant) {
        self.queue.close();
        self.leave.send_replace(true);
        for mut worker in self.workers {
            if tokio::time::timeout_at(deadline.into(), &mut worker).await.is_err() {
                worker.abort();
                // Cancelled, as it was told to be.
                drop(worker.await);
            }
        }
        self.queue.clear();
        self.items.update(|counts| {
            let rest = std::mem::take(&mut counts.queued) + std::mem::take(&mut counts.held);
            counts.drop(Reason::Shutdown, rest);
        });
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        while let Some(batch) = self.queue.take().await {
            for upload in batch.into_iter().flatten() {
                let end = self.deliver(upload).await;
                self.items.update(|counts| {
                    counts.held -= 1;
                    end.book(counts, 1);
                });
            }
        }
    }

    async fn deliver(&self, upload: Upload) -> End {
        let began = Instant::now();
        let mut backoff = Backoff::new(self.retry);
        loop {
            let asked = match self.store.put(&upload.key, upload.bytes.clone()).await {
                Outcome::Taken => {
                    self.complaints.recovered(&self.store.place);
                    return End::Taken { rejected: 0 };
                }
                Outcome::Refused(cause) => {
                    if self.complaints.may() {
                        let store = &self.store.place;
                        let remedy = "check the bucket and what its credentials may do";
                        tracing::warn!(store, cause, remedy, "The store refuses objects.");
                    }
                    return End::Refused;
                }
                Outcome::Again(cause, asked) => {
                    if self.complaints.may() {
                        let store = &self.store.place;
                        let remedy = "objects are kept and sent again; check http_capture.store";
                        tracing::warn!(store, cause, remedy, "Objects cannot be stored.");
                    }
                    asked
                }
            };
            let pause = backoff.pause(asked);
            let exhausted = self.retry.give_up.is_some_and(|limit| began.elapsed() + pause > limit);
            if exhausted || !self.retry.enabled {
                return End::Exhausted;
            }
            let mut leaving = self.leaving.clone();
            if asked.is_some() {
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
