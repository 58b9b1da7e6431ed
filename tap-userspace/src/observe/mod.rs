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
    enrich::names::Refused,
    policy::admission::Reason,
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
    /// Words to the kernel side, on what to capture, that its table had no room for.
    pub verdicts_refused: u64,
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

    /// DNS messages that told nothing, by reason.
    fn dns_refused(&self) -> [(&'static str, u64); Refused::REASONS.len()] {
        std::array::from_fn(|at| (Refused::REASONS[at], self.table.dns_refused[at]))
    }

    /// Events of the kernel side: connections that it did not admit, or all others.
    fn kernel_events(&self, filtered: bool) -> impl Iterator<Item = (&'static str, u64)> {
        let events = Event::ALL.into_iter().zip(self.events);
        let wanted = events.filter(move |(event, _)| Event::FILTERED.contains(event) == filtered);
        wanted.map(|(event, count)| (event.name(), count))
    }

    /// Connections that the daemon refused, by reason.
    fn filtered(&self) -> [(&'static str, u64); Reason::ALL.len()] {
        std::array::from_fn(|at| (Reason::ALL[at].name(), self.table.filtered[at]))
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
        let events: serde_json::Map<_, _> = self
            .kernel_events(false)
            .map(|(event, count)| (event.to_owned(), json!(count)))
            .collect();
        let of_kernel: serde_json::Map<_, _> = self
            .kernel_events(true)
            .map(|(event, count)| (event.to_owned(), json!(count)))
            .collect();
        let filtered = json!({ "kernel": of_kernel, "daemon": rows(self.filtered()) });
        json!({ "records": records, "kernel_events": events, "table": {
            "open": self.open,
            "evicted": self.table.evicted,
            "own": self.table.own,
            "nameless": self.table.nameless,
            "closes_found": self.table.closes_found,
            "unknown": self.table.unknown,
            "payload_shed": self.table.payload_shed,
            "verdicts_refused": self.verdicts_refused,
        }, "filtered": filtered, "exchanges": rows(self.table.exchanges.all()), "dns_refused": rows(self.dns_refused()) })
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
        for (event, count) in self.kernel_events(false) {
            samples.put(&KERNEL_EVENTS, &[("event", event)], count);
        }
        for (reason, count) in self.kernel_events(true) {
            samples.put(&FILTERED, &[("where", "kernel"), ("reason", reason)], count);
        }
        for (reason, count) in self.filtered() {
            samples.put(&FILTERED, &[("where", "daemon"), ("reason", reason)], count);
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
            ("unknown", self.table.unknown),
            ("payload_shed", self.table.payload_shed),
            ("verdicts_refused", self.verdicts_refused),
        ] {
            samples.put(&TABLE_EVENTS, &[("event", event)], count);
        }
        for (event, count) in self.table.exchanges.all() {
            samples.put(&EXCHANGE_EVENTS, &[("event", event)], count);
        }
        for (reason, count) in self.dns_refused() {
            samples.put(&DNS_REFUSED, &[("reason", reason)], count);
        }
    }
}

/// Names and counts as JSON.
fn rows<const N: usize>(rows: [(&'static str, u64); N]) -> Value {
    rows.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect()
}

const SEEN: Family = Family::counter("tap_records_seen_total", "Records due in the kernel.");
const DELIVERED: Family =
    Family::counter("tap_records_delivered_total", "Records read by the daemon.");
const DROPPED: Family = Family::counter("tap_records_dropped_total", "Records dropped, by reason.");
const IN_RING: Family = Family::gauge("tap_records_in_ring_total", "Records that wait in a ring.");
const KERNEL_EVENTS: Family =
    Family::counter("tap_kernel_events_total", "What the kernel side did besides.");
const FILTERED: Family = Family::counter(
    "tap_connections_filtered_total",
    "Connections that are not looked at, by who decided so and why.",
);
const OPEN: Family = Family::gauge("tap_connection_open", "Connections in the table.");
const OPENED: Family =
    Family::counter("tap.connection.opened", "Connections that were established while tap looked.")
        .of("tap.connection", "{connection}");
const TABLE_EVENTS: Family =
    Family::counter("tap_connection_events_total", "What the table did besides.");
const EXCHANGE_EVENTS: Family = Family::counter(
    "tap_exchange_events_total",
    "What became of exchanges, of their header fields, and of turns without one.",
);
const DNS_REFUSED: Family =
    Family::counter("tap_dns_refused_total", "DNS messages that told nothing.");

/// The families that [`Picture::read`] puts in.
const FAMILIES: [Family; 11] = [
    FILTERED,
    SEEN,
    DELIVERED,
    DROPPED,
    IN_RING,
    KERNEL_EVENTS,
    OPEN,
    OPENED,
    TABLE_EVENTS,
    EXCHANGE_EVENTS,
    DNS_REFUSED,
];

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connection::table::{Counts, Exchanges},
        telemetry::metric::{Reader, text},
    };

    #[test]
    fn what_is_counted_reaches_the_line_and_the_page() {
        let exchanges = Exchanges {
            told: 1,
            open: 2,
            crowded_out: 3,
            nameless: 13,
            fields_dropped: 4,
            turns_untold: 5,
        };
        let table = Counts {
            unknown: 6,
            exchanges,
            dns_refused: [7, 8, 9, 10, 11],
            filtered: [14, 15, 16, 17],
            ..Counts::default()
        };
        let mut picture = Picture { table, verdicts_refused: 12, ..Picture::default() };
        picture.events[Event::Excluded as usize] = 18;
        let (board, registry) = (Board::default(), Registry::default());
        board.publish(&picture);
        board.show(&registry);
        let text = text::render(&registry.read(Reader::Scrape), text::Format::Prometheus);
        let json = picture.to_json();
        for (pointer, row, count) in [
            ("/exchanges/told", "tap_exchange_events_total{event=\"told\"}", 1),
            ("/exchanges/open", "tap_exchange_events_total{event=\"open\"}", 2),
            ("/exchanges/crowded_out", "tap_exchange_events_total{event=\"crowded_out\"}", 3),
            ("/exchanges/nameless", "tap_exchange_events_total{event=\"nameless\"}", 13),
            ("/exchanges/fields_dropped", "tap_exchange_events_total{event=\"fields_dropped\"}", 4),
            ("/exchanges/turns_untold", "tap_exchange_events_total{event=\"turns_untold\"}", 5),
            ("/table/unknown", "tap_connection_events_total{event=\"unknown\"}", 6),
            ("/dns_refused/malformed", "tap_dns_refused_total{reason=\"malformed\"}", 7),
            ("/dns_refused/multicast", "tap_dns_refused_total{reason=\"multicast\"}", 11),
            (
                "/filtered/daemon/include",
                "tap_connections_filtered_total{where=\"daemon\",reason=\"include\"}",
                17,
            ),
            (
                "/filtered/kernel/exclude",
                "tap_connections_filtered_total{where=\"kernel\",reason=\"exclude\"}",
                18,
            ),
            (
                "/table/verdicts_refused",
                "tap_connection_events_total{event=\"verdicts_refused\"}",
                12,
            ),
        ] {
            assert_eq!(json.pointer(pointer), Some(&json!(count)), "{pointer}");
            assert!(text.lines().any(|line| line == format!("{row} {count}")), "{row} in {text}");
        }
    }
}
