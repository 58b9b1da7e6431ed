//! A `tail_sampling` in a pipeline of log records: they follow what the sampler of that name has decided
//! on their trace. Comes in: log records; goes out: those of traces that were kept. One whose trace is
//! not decided on waits, and goes on when that takes longer than a decision takes: its connection
//! is still open then, and the head sampler has kept it.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hashbrown::HashMap;

use super::{TraceId, Verdicts};
use crate::{
    config::processors::tail_sampling::TailSampling,
    policy::{
        chain::Place,
        data::{LogRecord, Record as _},
        processor::{Processor, Tally},
    },
    telemetry::metric::{Family, Number},
};

/// Between two looks at what was decided.
const LOOK: Duration = Duration::from_millis(500);

/// A decision may come so much later than `decision_wait` after a span: at the next full second, and
/// after the span has come through its pipeline.
const SLACK: Duration = Duration::from_secs(2);

/// Most log records that wait.
const RECORDS_MAX: usize = 65_536;

const FOLLOWED: Family = Family::counter(
    "tap_policy_followed_records_total",
    "Log records at a tail sampler (`how`: sampled, not_sampled: as their trace; undecided: it was not \
     decided in time, no_room, no_trace: they went on).",
);
const HELD: Family = Family::gauge(
    "tap_policy_records_held",
    "Log records that wait for what a tail sampler decides on their trace.",
);

/// What became of records.
#[derive(Clone, Copy, Debug)]
enum How {
    NotSampled,
    Sampled,
    Undecided,
    NoRoom,
    NoTrace,
}

/// A running follower.
#[derive(Debug)]
pub struct Follower {
    name: Arc<str>,
    verdicts: Verdicts,
    patience: Duration,
    most_bytes: usize,
    /// By trace: since when, and its place in `order`.
    waiting: HashMap<TraceId, Waiting>,
    /// The traces of `waiting` in the order that they came.
    order: BTreeMap<u64, TraceId>,
    next: u64,
    records: usize,
    bytes: usize,
    looked: Option<Instant>,
    /// By [`How`].
    counts: [Number; 5],
    held: Number,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    since: Instant,
    records: Vec<LogRecord>,
    bytes: usize,
}

impl Follower {
    /// Of the sampler with these settings.
    pub fn new(settings: &TailSampling, place: &Place<'_>) -> Self {
        let names = ["not_sampled", "sampled", "undecided", "no_room", "no_trace"];
        Self {
            name: place.processor.clone(),
            verdicts: place.shared.verdicts.clone(),
            patience: settings.decision_wait.max(Duration::from_secs(1)) + SLACK,
            most_bytes: settings.maximum_buffer_size_bytes,
            waiting: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            records: 0,
            bytes: 0,
            looked: None,
            counts: names.map(|how| place.number(FOLLOWED, &[("how", how)])),
            held: place.number(HELD, &[]),
        }
    }

    /// Counts, and says whether they go on.
    fn count(&self, how: How, records: usize) -> bool {
        self.counts[how as usize].add(records as u64);
        !matches!(how, How::NotSampled)
    }

    fn hold(&mut self, record: LogRecord, now: Instant) {
        let (id, weight) = (record.trace_id, record.weight());
        let next = &mut self.next;
        let waiting = self.waiting.entry(id).or_insert_with(|| {
            let number = *next;
            *next += 1;
            self.order.insert(number, id);
            Waiting { number, since: now, records: Vec::new(), bytes: 0 }
        });
        waiting.bytes += weight;
        waiting.records.push(record);
        self.records += 1;
        self.bytes += weight;
    }

    /// The records of a trace, no longer held.
    fn let_go(&mut self, id: &TraceId) -> Vec<LogRecord> {
        let Some(waiting) = self.waiting.remove(id) else { return Vec::new() };
        self.order.remove(&waiting.number);
        self.records -= waiting.records.len();
        self.bytes -= waiting.bytes;
        waiting.records
    }

    fn verdict(&self, id: &TraceId) -> Option<How> {
        self.verdicts.of(&self.name, id).map(|keep| match keep {
            true => How::Sampled,
            false => How::NotSampled,
        })
    }
}

impl Processor<LogRecord> for Follower {
    fn process(&mut self, batch: &mut Vec<LogRecord>, now: Instant, tally: &mut Tally) {
        for record in std::mem::take(batch) {
            let how = match record.trace_id {
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Some(How::NoTrace),
                id => self.verdict(&id),
            };
            match how {
                Some(how) if self.count(how, 1) => batch.push(record),
                Some(_) => tally.sampled += 1,
                None => self.hold(record, now),
            }
        }
        while (self.records > RECORDS_MAX || self.bytes > self.most_bytes)
            && let Some((_, &oldest)) = self.order.first_key_value()
        {
            let records = self.let_go(&oldest);
            self.count(How::NoRoom, records.len());
            batch.extend(records);
        }
        self.held.set(self.records as u64);
    }

    fn due(&self) -> Option<Instant> {
        let (_, oldest) = self.order.first_key_value()?;
        let since = self.waiting.get(oldest)?.since;
        Some(self.looked.map_or(since, |looked| looked.max(since)) + LOOK)
    }

    fn release(&mut self, now: Instant, all: bool, tally: &mut Tally) -> Vec<LogRecord> {
        self.looked = Some(now);
        let mut out = Vec::new();
        let ids: Vec<TraceId> = self.order.values().copied().collect();
        for id in ids {
            let Some(since) = self.waiting.get(&id).map(|waiting| waiting.since) else { continue };
            let over = all || now.saturating_duration_since(since) >= self.patience;
            let Some(how) = self.verdict(&id).or(over.then_some(How::Undecided)) else { continue };
            let records = self.let_go(&id);
            match self.count(how, records.len()) {
                true => out.extend(records),
                false => tally.sampled += records.len() as u64,
            }
        }
        self.held.set(self.records as u64);
        out
    }
}
