//! What became of every item of a signal at one exporter (SPEC §7). All terms change together
//! under one lock, once per batch, so that the identity holds in every picture of them:
//! `produced + recovered = exported + filtered + sampled + refused + rejected + dropped + held + queued`.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use serde_json::{Value, json};

use crate::telemetry::metric::{Family, Samples};

/// Why an item was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The queue was full.
    QueueFull,
    /// A processor's buffer was full.
    BufferFull,
    /// The collector could not be reached, or had no time, for too long.
    RetryExhausted,
    /// tap left before it could be sent.
    Shutdown,
    /// Standard output could not be written.
    Output,
    /// The disk no longer holds what was stored there.
    Damaged,
    /// It could not be read back for the processors.
    Unreadable,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::BufferFull,
        Self::RetryExhausted,
        Self::Shutdown,
        Self::Output,
        Self::Damaged,
        Self::Unreadable,
    ];

    /// Its label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::BufferFull => "buffer_full",
            Self::RetryExhausted => "retry_exhausted",
            Self::Shutdown => "shutdown",
            Self::Output => "output",
            Self::Damaged => "damaged",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The terms, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Came to this exporter.
    pub produced: u64,
    /// Found on disk at the start: an earlier process has left it there.
    pub recovered: u64,
    /// The receiver has taken it.
    pub exported: u64,
    /// A filter took it out.
    pub filtered: u64,
    /// The head sampler, or a sampling processor, left it out (`sampled out`).
    pub sampled: u64,
    /// The memory limiter did not let it in.
    pub refused: u64,
    /// The receiver refuses it for good.
    pub rejected: u64,
    /// Lost, by [`Reason`].
    pub dropped: [u64; Reason::ALL.len()],
    /// With the processors, being sent, or waiting to be sent again.
    pub held: u64,
    /// Waiting to be sent. At the end: on disk, for the next process.
    pub queued: u64,
}

impl Counts {
    /// All that was lost.
    pub fn all_dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Whether nothing is lost silently.
    pub fn balance(&self) -> bool {
        let known = self.exported + self.rejected + self.held + self.queued;
        let left_out = self.filtered + self.sampled + self.refused;
        self.produced + self.recovered == known + left_out + self.all_dropped()
    }

    /// Lost for `reason`.
    pub const fn drop(&mut self, reason: Reason, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// As the accounting line has it.
    pub fn to_json(&self) -> Value {
        let dropped: serde_json::Map<_, _> = Reason::ALL
            .iter()
            .zip(self.dropped)
            .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
            .collect();
        json!({
            "produced": self.produced,
            "recovered": self.recovered,
            "exported": self.exported,
            "filtered": self.filtered,
            "sampled": self.sampled,
            "refused": self.refused,
            "rejected": self.rejected,
            "dropped": dropped,
            "held": self.held,
            "queued": self.queued,
        })
    }
}

/// The terms of one signal at one exporter.
#[derive(Debug)]
pub struct Items {
    /// `traces`, `logs` or `metrics`, whose items are data points.
    pub signal: &'static str,
    /// The exporter's name, as `otlp`, `console` or `file/archive`.
    pub exporter: Arc<str>,
    /// The terms, and whether they are final.
    counts: Mutex<(Counts, bool)>,
    /// Requests, by [`Attempt`].
    attempts: [AtomicU64; Attempt::ALL.len()],
}

/// What became of one attempt of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver has taken it, but perhaps for some items.
    Taken,
    /// The receiver refuses it for good.
    Refused,
    /// It failed, and is worth another attempt.
    Failed,
}

impl Attempt {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Taken, "taken"), (Self::Refused, "refused"), (Self::Failed, "failed")];
}

impl Items {
    /// None yet.
    pub fn new(signal: &'static str, exporter: impl Into<Arc<str>>) -> Self {
        Self {
            signal,
            exporter: exporter.into(),
            counts: Mutex::default(),
            attempts: <_>::default(),
        }
    }

    /// Counts an attempt.
    pub fn attempted(&self, outcome: Attempt) {
        self.attempts[outcome as usize].fetch_add(1, Relaxed);
    }

    /// The terms now.
    pub fn counts(&self) -> Counts {
        self.lock().0
    }

    /// Changes terms, as one step.
    pub fn update(&self, change: impl FnOnce(&mut Counts)) {
        self.change(change, false);
    }

    /// Changes terms for the last time: for whoever still holds items then it is too late.
    pub fn settle(&self, change: impl FnOnce(&mut Counts)) {
        self.change(change, true);
    }

    fn change(&self, change: impl FnOnce(&mut Counts), last: bool) {
        let (counts, settled) = &mut *self.lock();
        if !*settled {
            change(counts);
        }
        *settled |= last;
        debug_assert!(counts.balance(), "{} {} {counts:?}", self.signal, self.exporter);
    }

    fn lock(&self) -> MutexGuard<'_, (Counts, bool)> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the terms among tap's numbers.
    pub fn read(&self, samples: &mut Samples) {
        let counts = self.counts();
        let labels = [("signal", self.signal), ("exporter", &*self.exporter)];
        for (family, value) in [
            (&PRODUCED, counts.produced),
            (&RECOVERED, counts.recovered),
            (&EXPORTED, counts.exported),
            (&FILTERED, counts.filtered),
            (&SAMPLED, counts.sampled),
            (&REFUSED, counts.refused),
            (&REJECTED, counts.rejected),
            (&HELD, counts.held),
            (&QUEUED, counts.queued),
        ] {
            samples.put(family, &labels, value);
        }
        for (reason, count) in Reason::ALL.iter().zip(counts.dropped) {
            samples.put(&DROPPED, &[labels[0], labels[1], ("reason", reason.name())], count);
        }
        for ((_, outcome), count) in Attempt::ALL.iter().zip(&self.attempts) {
            let labels = [labels[0], labels[1], ("outcome", *outcome)];
            samples.put(&ATTEMPTS, &labels, count.load(Relaxed));
        }
    }
}

const PRODUCED: Family =
    Family::counter("tap_items_produced_total", "Items that came to an exporter.");
const RECOVERED: Family = Family::counter(
    "tap_items_recovered_total",
    "Items that an earlier process has left in the queue on disk.",
);
const EXPORTED: Family = Family::counter("tap_items_exported_total", "Items that were taken.");
const FILTERED: Family =
    Family::counter("tap_items_filtered_total", "Items that a filter took out.");
const SAMPLED: Family =
    Family::counter("tap_items_sampled_total", "Items that a sampler left out.");
const REFUSED: Family =
    Family::counter("tap_items_refused_total", "Items that the memory limiter did not let in.");
const REJECTED: Family =
    Family::counter("tap_items_rejected_total", "Items that the receiver refused for good.");
const DROPPED: Family = Family::counter("tap_items_dropped_total", "Items lost, by reason.");
const HELD: Family =
    Family::gauge("tap_items_held_total", "Items with the processors, being sent, or sent again.");
const QUEUED: Family = Family::gauge("tap_items_queued_total", "Items that wait to be sent.");

const ATTEMPTS: Family = Family::counter(
    "tap_export_attempts_total",
    "Attempts to send a request: taken, refused for good, or failed and worth another.",
);

/// The families that [`Items::read`] puts in.
pub const FAMILIES: [Family; 11] = [
    PRODUCED, RECOVERED, EXPORTED, FILTERED, SAMPLED, REFUSED, REJECTED, DROPPED, HELD, QUEUED,
    ATTEMPTS,
];
