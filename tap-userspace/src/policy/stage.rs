//! The processors of one pipeline on a thread of their own, between the stages that make items and the
//! exporters. Comes in: items, never waited for; goes out: what the processors let pass, to every
//! exporter of the pipeline; what they do not is counted at each of these, so that the identity of SPEC §7
//! holds for every exporter from the item's beginning.
#![forbid(unsafe_code)]

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;

use super::{
    data::{self, Attributes, Record, Source},
    processor::{Processor, Tally},
};
use crate::{
    config::processors::Processor as Settings,
    export::{
        items::{Items, Reason},
        otlp::Encoder,
        queue::{Batch, Bounds, Queue, Queued},
    },
    telemetry::{resource::Resource, semconv},
};

/// What may wait for the processors: a burst of a second, on a thread that takes some microseconds
/// for each.
const BOUNDS: Bounds = Bounds { items: 65_536, bytes: 64 << 20, batch: 512, delay: Duration::ZERO };

/// Items that processors can take.
pub trait Processed: Queued + Clone {
    /// What it is to them.
    type Record: Record;
    /// The item that a record is.
    fn made(record: Self::Record) -> Self;
}

/// Processors in their order.
pub type Chain<R> = Vec<Box<dyn Processor<R>>>;

/// Processors as the configuration has them: name and settings.
pub type Named = Vec<(Arc<str>, Settings)>;

/// Makes processors of their settings.
pub type Build<R> = Box<dyn Fn(&[(Arc<str>, Settings)]) -> Chain<R> + Send>;

/// One of a pipeline's exporters.
#[derive(Debug)]
pub struct Out<T> {
    /// Where items wait for it.
    pub queue: Arc<Queue<T>>,
    /// What becomes of them.
    pub items: Arc<Items>,
}

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), items: self.items.clone() }
    }
}

/// The running thread.
#[derive(Debug)]
pub struct Stage<T> {
    /// Of its pipeline.
    name: Arc<str>,
    queue: Arc<Queue<T>>,
    /// What it is to run from now on.
    next: Arc<Mutex<Option<Named>>>,
    ended: oneshot::Receiver<()>,
}

/// What makes records of items.
pub struct Making<E> {
    /// Encodes them.
    pub encoder: E,
    /// Who made them, by scope.
    pub sources: Vec<Source>,
}

impl<E: Encoder> Making<E> {
    /// Of items from `resource`.
    pub fn new(encoder: E, resource: &Resource) -> Self {
        let schema_url = ByteString::from_static(semconv::SCHEMA_URL);
        let mut attributes = Attributes::default();
        for (key, value) in resource.attributes() {
            attributes.set(key.as_str(), value.as_str());
        }
        let resource = Arc::new(data::Resource { attributes, schema_url: schema_url.clone() });
        let scope = |name: &&'static str| data::Scope {
            name: ByteString::from_static(name),
            version: ByteString::from_static(env!("CARGO_PKG_VERSION")),
            attributes: Attributes::default(),
            schema_url: schema_url.clone(),
        };
        let source = |name| Source { resource: resource.clone(), scope: Arc::new(scope(name)) };
        Self { encoder, sources: E::SCOPES.iter().map(source).collect() }
    }

    /// The record of an item, in `scratch`'s memory for a moment; `None` where the encoder makes
    /// nothing that can be read.
    pub fn record<R: Record>(&self, item: &E::Item, scratch: &mut Vec<u8>) -> Option<R> {
        scratch.clear();
        self.encoder.encode(item, scratch);
        // The encoder writes a field of its scope's message: a tag, a length, the item.
        let head = 2 + scratch.iter().skip(1).take_while(|&&byte| byte >= 0x80).count();
        // A piece of memory for each, so that one that is kept does not keep its batch.
        let bytes = Bytes::copy_from_slice(scratch.get(head..)?);
        R::decode(&bytes, self.sources.get(self.encoder.scope(item))?.clone()).ok()
    }
}

impl<T: Processed> Stage<T> {
    /// Starts the thread of the pipeline `name`; it makes records by `making`, and processors by
    /// `build`.
    pub fn start<E: Encoder<Item = T>>(
        name: Arc<str>,
        named: &Named,
        build: Build<T::Record>,
        making: Making<E>,
        outs: Vec<Out<T>>,
    ) -> io::Result<Self> {
        let counts = outs.iter().map(|out| out.items.clone()).collect();
        let queue = Arc::new(Queue::before(BOUNDS, counts));
        let next = Arc::default();
        let (end, ended) = oneshot::channel();
        let mut work = Work {
            queue: queue.clone(),
            next: Arc::clone(&next),
            named: Vec::new(),
            chain: Vec::new(),
            build,
            making,
            outs,
        };
        work.install(named.clone());
        std::thread::Builder::new().name("tap-policy".into()).spawn(move || {
            work.run();
            // Nobody waits any more if the deadline is over.
            end.send(()).unwrap_or_default();
        })?;
        Ok(Self { name, queue, next, ended })
    }
}

impl<T: Queued + Clone> Stage<T> {
    /// Starts the thread of the pipeline `name` for items that are changed as they are: `build` makes
    /// processors, and `step` has them change an item, if something of it goes on, and counts the
    /// rest.
    pub fn stepping<P: Send + 'static>(
        name: Arc<str>,
        named: &Named,
        build: impl Fn(&[(Arc<str>, Settings)]) -> P + Send + 'static,
        outs: Vec<Out<T>>,
        mut step: impl FnMut(&mut P, T, &mut Tally) -> Option<T> + Send + 'static,
    ) -> io::Result<Self> {
        let counts = outs.iter().map(|out| out.items.clone()).collect();
        let queue = Arc::new(Queue::before(BOUNDS, counts));
        let next: Arc<Mutex<Option<Named>>> = Arc::default();
        let (end, ended) = oneshot::channel();
        let (taken, swapped, mut chain) = (queue.clone(), next.clone(), build(named));
        std::thread::Builder::new().name("tap-policy".into()).spawn(move || {
            while let Some(batch) = taken.take_until(None) {
                for item in batch.into_iter().flatten() {
                    let mut tally = Tally::default();
                    let made = step(&mut chain, item, &mut tally);
                    taken.book(|counts| tally.book(counts));
                    hand(&outs, made.into_iter().collect(), taken.is_patient());
                }
                let next = swapped.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(named) = next {
                    chain = build(&named);
                }
            }
            // Nobody waits any more if the deadline is over.
            end.send(()).unwrap_or_default();
        })?;
        Ok(Self { name, queue, next, ended })
    }
}

/// Gives items to every exporter.
fn hand<T: Queued + Clone>(outs: &[Out<T>], made: Vec<T>, patient: bool) {
    let Some((last, others)) = outs.split_last() else { return };
    if made.is_empty() {
        return;
    }
    for out in others {
        out.queue.pass(made.clone(), patient);
    }
    last.queue.pass(made, patient);
}

impl<T: Queued> Stage<T> {
    /// What changes its processors.
    pub fn swap(&self) -> Swap {
        let (name, next) = (self.name.clone(), self.next.clone());
        let queue = self.queue.clone();
        Swap { name, next, wake: Box::new(move || queue.wake()) }
    }

    /// The way in.
    pub fn intake(&self) -> Arc<Queue<T>> {
        self.queue.clone()
    }

    /// Has the processors let go of what they keep, until `deadline`.
    pub async fn shutdown(self, deadline: Instant) {
        self.queue.close();
        // Over either way: what it still holds then is counted by the exporters.
        drop(tokio::time::timeout_at(deadline.into(), self.ended).await);
    }
}

/// Has other processors take the place of those that a stage runs.
pub struct Swap {
    /// The pipeline's name.
    pub name: Arc<str>,
    next: Arc<Mutex<Option<Named>>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Swap {
    /// Takes these, after the items that are there. One with the same name and settings goes on with
    /// what it keeps; what others keep goes on at once.
    pub fn apply(&self, named: Named) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(named);
        (self.wake)();
    }
}

impl fmt::Debug for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Swap").field(&self.name).finish()
    }
}

struct Work<T: Processed, E> {
    queue: Arc<Queue<T>>,
    next: Arc<Mutex<Option<Named>>>,
    /// What runs.
    named: Named,
    chain: Chain<T::Record>,
    build: Build<T::Record>,
    making: Making<E>,
    outs: Vec<Out<T>>,
}

impl<T: Processed, E: Encoder<Item = T>> Work<T, E> {
    fn run(&mut self) {
        let mut scratch = Vec::new();
        loop {
            let due = self.chain.iter().filter_map(|processor| processor.due()).min();
            let Some(batch) = self.queue.take_until(due) else { break };
            if self.chain.is_empty() {
                self.pass(batch.into_iter().flatten().collect());
            } else if !batch.is_empty() {
                let records = self.records(&batch, &mut scratch);
                self.process(0, records);
            }
            self.release(false);
            let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(named) = next {
                self.install(named);
            }
        }
        self.release(true);
    }

    /// Items as processors want them.
    fn records(&self, batch: &Batch<T>, scratch: &mut Vec<u8>) -> Vec<T::Record> {
        let mut records = Vec::new();
        let mut unread = 0;
        for item in batch.iter().flatten() {
            match self.making.record(item, scratch) {
                Some(record) => records.push(record),
                None => unread += 1,
            }
        }
        if unread > 0 {
            self.queue.book(|counts| {
                counts.held -= unread;
                counts.drop(Reason::Unreadable, unread);
            });
        }
        records
    }

    /// Takes these processors in the place of those that run.
    fn install(&mut self, named: Named) {
        // `batch` is none: what runs stands at the index of its settings among the others.
        let runs = |named: Named| {
            named.into_iter().filter(|(_, settings)| !matches!(settings, Settings::Batch(_)))
        };
        let named: Named = runs(named).collect();
        for index in 0..self.chain.len() {
            if !named.contains(&self.named[index]) {
                self.release_one(index, Instant::now(), true);
            }
        }
        let mut old: Vec<_> = std::mem::take(&mut self.named)
            .into_iter()
            .zip(std::mem::take(&mut self.chain))
            .collect();
        for one in named {
            match old.iter().position(|(before, _)| *before == one) {
                Some(index) => self.chain.push(old.swap_remove(index).1),
                None => self.chain.extend((self.build)(std::slice::from_ref(&one))),
            }
            self.named.push(one);
        }
    }

    /// Gives out what processors have kept: all of it, or what is due.
    fn release(&mut self, all: bool) {
        for index in 0..self.chain.len() {
            let now = Instant::now();
            if all || self.chain[index].due().is_some_and(|due| due <= now) {
                self.release_one(index, now, all);
            }
        }
    }

    fn release_one(&mut self, index: usize, now: Instant, all: bool) {
        let mut tally = Tally::default();
        let records = self.chain[index].release(now, all, &mut tally);
        self.queue.book(|counts| tally.book(counts));
        self.process(index + 1, records);
    }

    /// Gives records to the processors from `first` on, and what they let pass to the exporters.
    fn process(&mut self, first: usize, mut records: Vec<T::Record>) {
        let mut tally = Tally::default();
        for processor in &mut self.chain[first..] {
            if records.is_empty() {
                break;
            }
            processor.process(&mut records, Instant::now(), &mut tally);
        }
        if tally != Tally::default() {
            self.queue.book(|counts| tally.book(counts));
        }
        self.pass(records.into_iter().map(T::made).collect());
    }

    /// Gives items to the exporters.
    fn pass(&self, items: Vec<T>) {
        hand(&self.outs, items, self.queue.is_patient());
    }
}
