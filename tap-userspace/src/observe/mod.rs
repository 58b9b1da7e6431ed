//! Numbers. Here tap's own of the kernel line: what the kernel side saw, dropped and delivered, and
//! what the table did; in [`traffic`] those of what it saw. The tracing thread publishes them as a whole; whoever asks gets one consistent
//! picture.

pub mod traffic;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tap_common::{
    counters::{self, Drop, Event},
    record::Kind,
};

use crate::{
    connection::table,
    telemetry::{
        metric::{Family, Registry, Samples},
        semconv,
    },
};

/// The identity of SPEC §7 for one kind of record: `seen = delivered + dropped + in_ring`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Due in the kernel.
    pub seen: u64,
    /// Read by the daemon.
    pub delivered: u64,
    /// Dropped in the kernel, by [`Drop`].
    pub dropped: [u64; Drop::ALL.len()],
    /// Read, but no record.
    pub invalid: u64,
}

impl Records {
    /// What waits in the ring.
    pub fn in_ring(&self) -> u64 {
        let known = self.delivered + self.invalid + self.dropped.iter().sum::<u64>();
        self.seen.saturating_sub(known)
    }
}

/// All numbers of one moment.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// By kind, in the order of [`Kind::ALL`].
    pub records: [Records; Kind::ALL.len()],
    /// By [`Event`], in the order of [`Event::ALL`].
    pub events: [u64; Event::ALL.len()],
    /// Connections in the table.
    pub open: u64,
    /// Connections that were opened, see [`Table::opened`](table::Table::opened).
    pub opened: [u64; 2],
    /// What the table did.
    pub table: table::Counts,
    /// Whether the hooks are attached at the true root and the reader runs.
    pub ready: bool,
    /// Monotonic time of the reader's last round.
    pub round_ns: u64,
}

impl Picture {
    /// Takes in the kernel side's counters.
    pub fn kernel(&mut self, slots: &[u64]) {
        let slot = |slot: u32| slots.get(slot as usize).copied().unwrap_or(0);
        for (records, kind) in self.records.iter_mut().zip(Kind::ALL) {
            records.seen = slot(counters::seen(kind));
            records.dropped = Drop::ALL.map(|reason| slot(counters::dropped(kind, reason)));
        }
        self.events = Event::ALL.map(|event| slot(counters::event(event)));
    }

    /// Records lost in the kernel so far.
    pub fn lost(&self) -> u64 {
        self.records.iter().flat_map(|records| records.dropped).sum()
    }

    /// The picture as the accounting line has it.
    pub fn to_json(&self) -> Value {
        let records: serde_json::Map<_, _> = Kind::ALL
            .iter()
            .zip(self.records)
            .map(|(kind, records)| {
                let dropped: serde_json::Map<_, _> = Drop::ALL
                    .iter()
                    .zip(records.dropped)
                    .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
                    .chain([("invalid".to_owned(), json!(records.invalid))])
                    .collect();
                let value = json!({
                    "seen": records.seen,
                    "delivered": records.delivered,
                    "dropped": dropped,
                    "in_ring": records.in_ring(),
                });
                (kind.name().to_owned(), value)
            })
            .collect();
        let events: serde_json::Map<_, _> = Event::ALL
            .iter()
            .zip(self.events)
            .map(|(event, count)| (event.name().to_owned(), json!(count)))
            .collect();
        json!({ "records": records, "kernel_events": events, "table": {
            "open": self.open,
            "evicted": self.table.evicted,
            "own": self.table.own,
            "nameless": self.table.nameless,
            "closes_found": self.table.closes_found,
        }})
    }

    /// Puts all of it among tap's numbers.
    pub fn read(&self, samples: &mut Samples) {
        for (kind, records) in Kind::ALL.iter().zip(&self.records) {
            let label = ("kind", kind.name());
            samples.put(&SEEN, &[label], records.seen);
            samples.put(&DELIVERED, &[label], records.delivered);
            samples.put(&IN_RING, &[label], records.in_ring());
            let reasons = Drop::ALL.iter().map(|reason| reason.name()).zip(records.dropped);
            for (reason, count) in reasons.chain([("invalid", records.invalid)]) {
                samples.put(&DROPPED, &[label, ("reason", reason)], count);
            }
        }
        for (event, count) in Event::ALL.iter().zip(self.events) {
            samples.put(&KERNEL_EVENTS, &[("event", event.name())], count);
        }
        samples.put(&OPEN, &[], self.open);
        for (direction, count) in ["ingress", "egress"].into_iter().zip(self.opened) {
            samples.put(&OPENED, &[(semconv::CONNECTION_DIRECTION.name, direction)], count);
        }
        for (event, count) in [
            ("evicted", self.table.evicted),
            ("own", self.table.own),
            ("nameless", self.table.nameless),
            ("closes_found", self.table.closes_found),
        ] {
            samples.put(&TABLE_EVENTS, &[("event", event)], count);
        }
    }
}

const SEEN: Family = Family::counter("tap_records_seen_total", "Records due in the kernel.");
const DELIVERED: Family =
    Family::counter("tap_records_delivered_total", "Records read by the daemon.");
const DROPPED: Family = Family::counter("tap_records_dropped_total", "Records dropped, by reason.");
const IN_RING: Family = Family::gauge("tap_records_in_ring_total", "Records that wait in a ring.");
const KERNEL_EVENTS: Family =
    Family::counter("tap_kernel_events_total", "What the kernel side did besides.");
const OPEN: Family = Family::gauge("tap_connection_open", "Connections in the table.");
const OPENED: Family =
    Family::counter("tap.connection.opened", "Connections that were established while tap looked.")
        .of("tap.connection", "{connection}");
const TABLE_EVENTS: Family =
    Family::counter("tap_connection_events_total", "What the table did besides.");

/// The families that [`Picture::read`] puts in.
const FAMILIES: [Family; 8] =
    [SEEN, DELIVERED, DROPPED, IN_RING, KERNEL_EVENTS, OPEN, OPENED, TABLE_EVENTS];

/// The newest picture, shared.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Picture>>);

impl Board {
    /// Puts a new picture up.
    pub fn publish(&self, picture: &Picture) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.clone_from(picture);
    }

    /// Shows the newest picture among the numbers of `registry`, all of one moment.
    pub fn show(&self, registry: &Registry) {
        let board = self.clone();
        registry.source(&FAMILIES, move |samples| board.picture().read(samples));
    }

    /// The newest picture.
    pub fn picture(&self) -> Picture {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
