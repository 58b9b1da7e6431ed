//! HTTP transactions as objects in an object store. Comes in: transactions, with what is kept of
//! their bodies; goes out: the same without the bodies, each naming its object if it has one; and
//! the objects, uploaded.
//!
//! A thread of its own (`tap-objects`) judges, encodes and hashes: the tracing thread only hands
//! over, and where that finds no room, transactions go on without objects, which is counted. Digest
//! and URL are known before the upload: a record may name an object that is dropped later, and that
//! is counted too (signal `objects`).

pub mod document;
mod intake;
pub mod store;
pub mod template;
mod transport;
pub mod upload;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use object_store::path::Path;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

pub use self::intake::Intake;
use self::{
    document::Maker,
    intake::{Due, Given, Inside, forget_content, is_http, weight},
    store::Store,
    template::{Fields, Template},
    upload::{Upload, Uploads},
};
use super::{
    ItemCounters,
    complaints::Complaints,
    delivery::{self, Delivery},
    disk::{self, DiskQueue},
    items::Reason,
    otlp::{Exporter, Queues},
    queue::Queue,
    spans::Exchanges,
    transport::{Outcome, Transport},
    writes::Writes,
};
use crate::{
    config::http_capture::{HttpCapture, Level, Rule, Store as StoreConfig},
    connection::transaction::{Object, Transaction},
    policy::{condition::Variables, redact::Redaction, sample::Sampler},
    protocol::{content::Collect, exchange::Message},
    telemetry::{eventstore::Backend, log, metric::Family},
};

/// What objects are among the signals that are accounted for.
pub const SIGNAL: &str = "objects";

/// What a thread needs at the most to see that it is to end.
const LET_GO: Duration = Duration::from_millis(100);

/// Batches that wait for the thread; their bytes are bounded besides.
const BATCHES: usize = 1024;

/// Running.
pub struct Objects {
    intake: Intake,
    thread: JoinHandle<()>,
    out: Exchanges,
    uploads: Exporter<Uploads>,
}

/// Why objects cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The queue on disk.
    #[error(transparent)]
    Queue(#[from] disk::OpenError),
    /// The thread.
    #[error("there is no thread to make objects with: {0}; raise the limit on threads")]
    Thread(std::io::Error),
}

/// What objects are made from.
pub struct Start<'a> {
    /// The configuration.
    pub config: &'a HttpCapture,
    /// How bodies are collected, if they are.
    pub collect: Option<Arc<Collect>>,
    /// What is taken out.
    pub redaction: Redaction,
    /// Of which traces.
    pub sampler: Sampler,
    /// Is told of uploads.
    pub writes: Arc<Writes>,
    /// Where transactions go on to.
    pub out: Exchanges,
}

/// How bodies are collected, if any object could hold one.
pub fn collect(config: &HttpCapture) -> Option<Arc<Collect>> {
    config.wants_bodies().then(|| Arc::new(Collect::new(config.max_bytes, config.memory_limit)))
}

impl Objects {
    /// Starts, if the configuration asks for objects.
    pub fn start(
        with: Start<'_>,
        counters: &mut ItemCounters,
        handle: &Handle,
    ) -> Result<Option<Self>, Error> {
        let Start { config, collect, redaction, sampler, writes, out } = with;
        let Some(of) = config.store.as_ref().filter(|_| config.is_on()) else { return Ok(None) };
        let transport = Transport::to_store(Store::new(of, config.timeout)?);
        let delivery = Delivery::of_objects(config);
        let items = counters.add(SIGNAL, transport.exporter());
        let queue = Arc::new(Queue::new(delivery.bounds, items.clone()));
        let writer = writes.of(Backend {
            name: items.exporter.clone(),
            signal: items.signal,
            protocol: transport.protocol(),
            server: transport.server(),
        });
        let disk = delivery.storage.as_ref().map(|storage| {
            let own = storage.folder.join(delivery::folder(&items.exporter, SIGNAL));
            DiskQueue::open(&own, storage.limits, items.clone(), counters.registry())
        });
        let queues =
            Queues { memory: queue.clone(), disk: disk.transpose()?, items: items.clone(), writer };
        let uploads = Exporter::start(transport, &delivery, Arc::new(Uploads), queues, handle);
        let failed = Arc::new(AtomicU64::new(0));
        let shown = failed.clone();
        counters.registry().source(&FAMILIES, move |samples| {
            samples.put(&FAILED, &[], shown.load(Relaxed));
            samples.put(&CUT, &[], collect.as_ref().map_or(0, |collect| collect.cut()));
        });
        let (sender, receiver) = sync_channel(BATCHES);
        let bytes = Arc::new(AtomicUsize::new(0));
        let inside = Arc::new(Inside::default());
        let stage = Stage {
            rules: config.rules.clone(),
            level: config.level,
            maker: Maker { redaction, max_bytes: config.max_bytes },
            names: Names::new(config, of),
            sampler,
            queue,
            failed,
            complaints: Complaints::default(),
            bytes: bytes.clone(),
            inside: inside.clone(),
            out: out.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("tap-objects".into())
            .spawn(move || stage.run(&receiver))
            .map_err(Error::Thread)?;
        let intake = Intake { sender, bytes, most: config.memory_limit, items, inside };
        Ok(Some(Self { intake, thread, out, uploads }))
    }

    /// The way in.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Nothing comes any more: what is under way goes on to where it goes, or is counted as lost at the
    /// `deadline`. Then what uploads.
    pub async fn close(self, deadline: Instant) -> Exporter<Uploads> {
        let Self { intake, thread, out, uploads } = self;
        let (inside, items) = (intake.inside.clone(), intake.items.clone());
        let mut ended = tokio::task::spawn_blocking(move || {
            // If the thread is gone, so is what it would do.
            let _ = intake.sender.send(Given::End);
            thread.join().is_ok()
        });
        let in_time = tokio::time::timeout_at(deadline.into(), &mut ended).await;
        if !matches!(in_time, Ok(Ok(true))) {
            let lost = inside.give_up();
            out.lose(lost.records, Reason::Shutdown);
            items.update(|counts| {
                counts.produced += lost.objects;
                counts.drop(Reason::Shutdown, lost.objects);
            });
            let transactions = lost.records[1];
            tracing::error!(transactions, "Objects could not be made in time.");
            // Where it waits for room it is let go, so that it counts what it has in its hands.
            uploads.close();
            out.close();
            if in_time.is_err() {
                drop(tokio::time::timeout(LET_GO, ended).await);
            }
        }
        uploads
    }
}

const FAILED: Family = Family::counter(
    "tap_capture_conditions_failed_total",
    "Conditions of http_capture that gave neither true nor false, and so did not hold.",
);
const CUT: Family = Family::counter(
    "tap_capture_bodies_cut_total",
    "Bodies that were cut for want of memory in their connection or in all.",
);
const FAMILIES: [Family; 2] = [FAILED, CUT];

/// Whether it is one of tap's own uploads, seen from the store's end.
fn is_upload(transaction: &Transaction) -> bool {
    let Message::Http(http) = &transaction.exchange.message else { return false };
    http.request.get(transport::MARK) == Some(&transport::mark().0)
}

/// What the thread does.
struct Stage {
    rules: Vec<Rule>,
    level: Level,
    maker: Maker,
    names: Names,
    sampler: Sampler,
    queue: Arc<Queue<Upload>>,
    failed: Arc<AtomicU64>,
    complaints: Complaints,
    bytes: Arc<AtomicUsize>,
    inside: Arc<Inside>,
    out: Exchanges,
}

impl Stage {
    fn run(self, receiver: &Receiver<Given>) {
        while let Ok(Given::Batch(batch, may_wait)) = receiver.recv() {
            let weight = weight(&batch);
            if self.pass(batch, may_wait).is_none() {
                return;
            }
            self.bytes.fetch_sub(weight, Relaxed);
        }
    }

    /// Makes the objects of a batch and hands it on; `None` where it was given up, and counted.
    fn pass(&self, mut batch: Vec<Transaction>, may_wait: bool) -> Option<()> {
        for transaction in batch.iter_mut().filter(|it| is_http(it)) {
            self.inside.take(Due { objects: 1, ..Due::default() })?;
            self.take(transaction, may_wait);
            forget_content(transaction);
        }
        self.inside.take(Due { records: self.out.count(&batch), ..Due::default() })?;
        if may_wait {
            self.out.offer_waiting(batch);
        } else {
            self.out.offer(batch);
        }
        Some(())
    }

    /// Makes the object of a transaction, if it has one.
    fn take(&self, transaction: &mut Transaction, may_wait: bool) {
        let level = self.level(transaction);
        if level == Level::None {
            return;
        }
        let trace_id = transaction.about.identity.trace_id;
        if !self.sampler.keeps(&trace_id) {
            return self.queue.offer(Vec::new(), 1);
        }
        let Some(bytes) = self.maker.make(transaction, level) else { return };
        let digest = document::hex(&Sha256::digest(&bytes));
        let (key, url) = self.names.of(transaction, &digest);
        let upload = Upload { key, bytes: Bytes::from(bytes), trace_id };
        if may_wait {
            self.queue.offer_waiting(vec![upload], 0);
        } else {
            self.queue.offer(vec![upload], 0);
        }
        transaction.object = Some(Arc::new(Object { digest, url }));
    }

    /// By the first rule that holds. One that fails does not.
    fn level(&self, transaction: &Transaction) -> Level {
        if is_upload(transaction) {
            return Level::None;
        }
        if self.rules.is_empty() {
            return self.level;
        }
        let conditions = self.rules.iter().map(|rule| &rule.condition);
        let variables = Variables::of(transaction, conditions);
        for rule in &self.rules {
            match rule.condition.holds(&variables) {
                Ok(true) => return rule.level,
                Ok(false) => {}
                Err(failed) => {
                    self.failed.fetch_add(1, Relaxed);
                    if self.complaints.may() {
                        let cause = failed.to_string();
                        let remedy = "ask for what may be absent with has() or in";
                        tracing::warn!(cause, remedy, "A condition of http_capture failed.");
                    }
                }
            }
        }
        self.level
    }
}

/// How objects are named.
struct Names {
    key: Template,
    url: Template,
    bucket: String,
    region: String,
    endpoint: String,
}

impl Names {
    fn new(config: &HttpCapture, store: &StoreConfig) -> Self {
        let (prefix, bucket, region, endpoint) = match store {
            StoreConfig::S3(s3) => ("s3://", &*s3.bucket, &s3.region, &s3.endpoint),
            StoreConfig::Gcs(gcs) => ("gs://", &*gcs.bucket, &None, &gcs.endpoint),
            StoreConfig::Azure(azure) => ("az://", &*azure.bucket, &None, &azure.endpoint),
            StoreConfig::Local(path) => {
                ("file://", path.to_str().unwrap_or_default(), &None, &None)
            }
        };
        let by_type = || Template::of_key(&format!("{prefix}{}/", bucket.trim_end_matches('/')));
        Self {
            key: config.key.clone(),
            url: config.url.clone().unwrap_or_else(by_type),
            bucket: bucket.to_owned(),
            region: region.clone().unwrap_or_default(),
            endpoint: endpoint.as_deref().unwrap_or_default().trim_end_matches('/').to_owned(),
        }
    }

    /// Key and URL of a transaction's object.
    fn of(&self, transaction: &Transaction, digest: &str) -> (Path, String) {
        let about = &transaction.about;
        let id = about.id.encode();
        let request_id = log::request_id(transaction);
        let mut fields = Fields {
            began_ns: transaction.exchange.began_ns,
            connection_id: log::id(&id),
            number: transaction.number,
            request_id: &request_id,
            direction: log::direction(about.role),
            digest,
            bucket: &self.bucket,
            region: &self.region,
            endpoint: &self.endpoint,
            ..Fields::default()
        };
        if let Message::Http(http) = &transaction.exchange.message {
            fields.host = http.host().unwrap_or_default();
            fields.method = &http.method;
            fields.status = http.status;
        }
        let key = Path::from(self.key.fill(&fields));
        fields.key = key.as_ref();
        let url = self.url.fill(&fields);
        (key, url)
    }
}

/// Stores an object and takes it away again, for `tap check`. What was found, or what is wrong.
pub async fn probe(config: &HttpCapture) -> Option<Result<String, String>> {
    let of = config.store.as_ref()?;
    let patience = config.timeout.min(Duration::from_secs(5));
    let store = match Store::new(of, patience) {
        Ok(store) => store,
        Err(error) => return Some(Err(error.to_string())),
    };
    let key = Path::from(format!("{}tap-check.json", config.key.folder()));
    let place = store.place.clone();
    let put = store.put(&key, Bytes::from_static(b"{\"metadata\":{\"check\":true}}"));
    let outcome = tokio::time::timeout(patience, put)
        .await
        .unwrap_or_else(|_| Outcome::again(format!("no answer within {patience:?}"), "timeout"));
    Some(match outcome {
        Outcome::Taken { .. } => Ok(match store.delete(&key).await {
            Ok(()) => format!("{place} takes objects"),
            Err(why) => {
                format!("{place} takes objects; {key} stays there, as it cannot be deleted: {why}")
            }
        }),
        Outcome::Refused { cause: why, remedy, .. } => {
            Err(format!("{place} refuses objects: {why}; {remedy}"))
        }
        Outcome::Again { cause: why, .. } => Err(format!(
            "{place} is not reachable: {why}; check http_capture.store (tap would run, and try again)"
        )),
    })
}
