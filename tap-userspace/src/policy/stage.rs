//! The processors of one pipeline on a thread of their own, between the stages that make items and the
//! exporters. Comes in: items, never waited for; goes out: what the processors let pass, to every
//! exporter of the pipeline; what they do not is counted at each of these, so that the identity of SPEC §7
//! holds for every exporter from the item's beginning.
#![forbid(unsafe_code)]

use std::{
    io,
    sync::Arc,
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
    export::{
        items::{Items, Reason},
        otlp::Encoder,
        queue::{Bounds, Queue, Queued},
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
    queue: Arc<Queue<T>>,
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
    /// Starts the thread, if there are processors; it makes records by `making`.
    pub fn start<E: Encoder<Item = T>>(
        chain: Chain<T::Record>,
        making: impl FnOnce() -> Making<E>,
        outs: Vec<Out<T>>,
    ) -> io::Result<Option<Self>> {
        if chain.is_empty() {
            return Ok(None);
        }
        let making = making();
        let counts = outs.iter().map(|out| out.items.clone()).collect();
        let queue = Arc::new(Queue::before(BOUNDS, counts));
        let (end, ended) = oneshot::channel();
        let mut work = Work { queue: queue.clone(), chain, making, outs };
        std::thread::Builder::new().name("tap-policy".into()).spawn(move || {
            work.run();
            // Nobody waits any more if the deadline is over.
            end.send(()).unwrap_or_default();
        })?;
        Ok(Some(Self { queue, ended }))
    }
}

impl<T: Queued> Stage<T> {
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

struct Work<T: Processed, E> {
    queue: Arc<Queue<T>>,
    chain: Chain<T::Record>,
    making: Making<E>,
    outs: Vec<Out<T>>,
}

impl<T: Processed, E: Encoder<Item = T>> Work<T, E> {
    fn run(&mut self) {
        let mut scratch = Vec::new();
        loop {
            let due = self.chain.iter().filter_map(|processor| processor.due()).min();
            let Some(batch) = self.queue.take_until(due) else { break };
            if !batch.is_empty() {
                let mut records = Vec::new();
                let mut unread = 0;
                for item in batch.iter().flatten() {
                    match self.making.record(item, &mut scratch) {
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
                self.process(0, records);
            }
            self.release(false);
        }
        self.release(true);
    }

    /// Gives out what processors have kept: all of it, or what is due.
    fn release(&mut self, all: bool) {
        for index in 0..self.chain.len() {
            let now = Instant::now();
            if all || self.chain[index].due().is_some_and(|due| due <= now) {
                let mut tally = Tally::default();
                let records = self.chain[index].release(now, all, &mut tally);
                self.queue.book(|counts| tally.book(counts));
                self.process(index + 1, records);
            }
        }
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
        let Some((last, others)) = self.outs.split_last() else { return };
        if records.is_empty() {
            return;
        }
        let made: Vec<T> = records.into_iter().map(T::made).collect();
        let patient = self.queue.is_patient();
        for out in others {
            out.queue.pass(made.clone(), patient);
        }
        last.queue.pass(made, patient);
    }
}
