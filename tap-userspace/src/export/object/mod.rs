//! HTTP transactions as objects in an object store. Comes in: transactions, with what is kept of
//! their bodies; goes out: the same without the bodies, each naming its object if it has one; and
//! the objects, uploaded.
//!
//! A thread of its own (`tap-objects`) judges, encodes and hashes: the tracing thread only hands
//! over, and where that finds no room, transactions go on without objects, which is counted. Digest
//! and URL are known before the upload: a record may name an object that is dropped later, and that
//! is counted too (signal `objects`).

pub mod document;
pub mod store;
pub mod template;
mod transport;
mod upload;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use object_store::path::Path;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use self::{
    document::Maker,
    store::{Outcome, Store},
    template::{Fields, Template},
    upload::{Upload, Uploads, Waiting},
};
use super::{
    ItemCounters,
    complaints::Complaints,
    delivery,
    disk::{self, DiskQueue},
    items::{Items, Reason},
    queue::{Queue, Queued as _},
    spans::Exchanges,
    writes::Writes,
};
use crate::{
    config::http_capture::{HttpCapture, Level, Rule, Store as StoreConfig},
    connection::transaction::{Object, Transaction},
    policy::{condition::Variables, redact::Redaction, sample::Sampler},
    protocol::{content::Collect, exchange::Message},
    telemetry::{eventstore::Backend, log, metric::Family},
};

/// Batches that wait for the thread; their bytes are bounded besides.
const BATCHES: usize = 1024;

/// Running.
pub struct Objects {
    intake: Intake,
    thread: JoinHandle<()>,
    uploads: Uploads,
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
        let store = Store::new(of, config.timeout)?;
        let items = counters.add("objects", store.name);
        let queue = Arc::new(Queue::new(upload::bounds(config), items.clone()));
        let writer = writes.of(Backend {
            name: items.exporter.clone(),
            signal: items.signal,
            protocol: store.name,
            server: None,
        });
        let disk = delivery::storage(&config.sending_queue).map(|storage| {
            let own = storage.folder.join(format!("{}-objects", store.name));
            DiskQueue::open(&own, storage.limits, items.clone(), counters.registry())
        });
        let waiting = Waiting {
            memory: queue.clone(),
            disk: disk.transpose()?,
            items: items.clone(),
            writer,
        };
        let uploads = Uploads::start(store, config, waiting, handle);
        let failed = Arc::new(AtomicU64::new(0));
        let shown = failed.clone();
        counters.registry().source(&FAMILIES, move |samples| {
            samples.put(&FAILED, &[], shown.load(Relaxed));
            samples.put(&CUT, &[], collect.as_ref().map_or(0, |collect| collect.cut()));
        });
        let (sender, receiver) = sync_channel(BATCHES);
        let bytes = Arc::new(AtomicUsize::new(0));
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
            out,
        };
        let thread = std::thread::Builder::new()
            .name("tap-objects".into())
            .spawn(move || stage.run(&receiver))
            .map_err(Error::Thread)?;
        let intake = Intake { sender, bytes, most: config.memory_limit, items };
        Ok(Some(Self { intake, thread, uploads }))
    }

    /// The way in.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Nothing comes any more: what is under way goes on to where it goes. Then what uploads.
    pub async fn close(self, deadline: Instant) -> Uploads {
        let Self { intake, thread, uploads } = self;
        let ended = tokio::task::spawn_blocking(move || {
            // If the thread is gone, so is what it would do.
            let _ = intake.sender.send(Given::End);
            thread.join().is_ok()
        });
        if !matches!(tokio::time::timeout_at(deadline.into(), ended).await, Ok(Ok(true))) {
            tracing::error!("Objects could not be made in time; their transactions are lost.");
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

/// What the thread is given.
enum Given {
    /// Transactions; whether it may wait for room on their behalf.
    Batch(Vec<Transaction>, bool),
    /// No more.
    End,
}

/// The way in for transactions.
#[derive(Clone, Debug)]
pub struct Intake {
    sender: SyncSender<Given>,
    bytes: Arc<AtomicUsize>,
    most: usize,
    items: Arc<Items>,
}

impl Intake {
    /// Takes transactions, waiting for room if it `may`. What there is no room for comes back, to
    /// go on without objects.
    pub fn offer(&self, batch: Vec<Transaction>, may: bool) -> Option<Vec<Transaction>> {
        let weight = weight(&batch);
        if may {
            self.bytes.fetch_add(weight, Relaxed);
            let result = self.sender.send(Given::Batch(batch, true));
            return result.err().and_then(|error| self.refused(error.0, weight, Reason::Shutdown));
        }
        if self.bytes.fetch_add(weight, Relaxed) > self.most {
            return self.refused(Given::Batch(batch, false), weight, Reason::QueueFull);
        }
        match self.sender.try_send(Given::Batch(batch, false)) {
            Ok(()) => None,
            Err(TrySendError::Full(back)) => self.refused(back, weight, Reason::QueueFull),
            Err(TrySendError::Disconnected(back)) => self.refused(back, weight, Reason::Shutdown),
        }
    }

    fn refused(&self, back: Given, weight: usize, reason: Reason) -> Option<Vec<Transaction>> {
        self.bytes.fetch_sub(weight, Relaxed);
        let Given::Batch(mut batch, _) = back else { return None };
        batch.iter_mut().for_each(forget_content);
        // Nobody knows which of them would have become objects.
        let count = batch.iter().filter(|it| is_http(it)).count() as u64;
        self.items.update(|counts| {
            counts.produced += count;
            counts.drop(reason, count);
        });
        Some(batch)
    }
}

fn weight(batch: &[Transaction]) -> usize {
    batch.iter().map(|transaction| transaction.weight()).sum()
}

const fn is_http(transaction: &Transaction) -> bool {
    matches!(transaction.exchange.message, Message::Http(_))
}

fn forget_content(transaction: &mut Transaction) {
    if let Message::Http(http) = &mut transaction.exchange.message {
        http.content = None;
    }
}

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
    out: Exchanges,
}

impl Stage {
    fn run(self, receiver: &Receiver<Given>) {
        while let Ok(Given::Batch(mut batch, may_wait)) = receiver.recv() {
            let weight = weight(&batch);
            for transaction in batch.iter_mut().filter(|it| is_http(it)) {
                self.take(transaction, may_wait);
                forget_content(transaction);
            }
            if may_wait {
                self.out.offer_waiting(batch);
            } else {
                self.out.offer(batch);
            }
            self.bytes.fetch_sub(weight, Relaxed);
        }
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
    let store = match Store::new(of, config.timeout.min(Duration::from_secs(5))) {
        Ok(store) => store,
        Err(error) => return Some(Err(error.to_string())),
    };
    let key = Path::from(format!("{}tap-check.json", config.key.folder()));
    let place = store.place.clone();
    Some(match store.put(&key, Bytes::from_static(b"{\"metadata\":{\"check\":true}}")).await {
        Outcome::Taken => Ok(match store.delete(&key).await {
            Ok(()) => format!("{place} takes objects"),
            Err(why) => {
                format!("{place} takes objects; {key} stays there, as it cannot be deleted: {why}")
            }
        }),
        Outcome::Refused(why) => Err(format!(
            "{place} refuses objects: {why}; check the bucket and what its credentials may do"
        )),
        Outcome::Again(why, _) => Err(format!(
            "{place} is not reachable: {why}; check http_capture.store (tap would run, and try again)"
        )),
    })
}
