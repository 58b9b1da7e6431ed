//! tap's own numbers of the kernel line: what the kernel side saw, dropped and delivered, and what
//! the table did. The tracing thread publishes them as a whole; whoever asks gets one consistent
//! picture.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use tap_common::{
    counters::{self, Drop, Event},
    record::Kind,
};

use crate::{connection::table, enrich::names::Refused};

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
            "unknown": self.table.unknown,
            "verdicts_refused": self.verdicts_refused,
        }, "exchanges": rows(self.table.exchanges.all()), "dns_refused": rows(self.dns_refused()) })
    }

    /// The picture as Prometheus text.
    pub fn to_prometheus(&self) -> String {
        let mut out = String::with_capacity(4096);
        let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
        };
        let by_kind = |of: &dyn Fn(&Records) -> u64| -> Vec<(String, u64)> {
            Kind::ALL
                .iter()
                .zip(&self.records)
                .map(|(kind, records)| (format!("{{kind=\"{}\"}}", kind.name()), of(records)))
                .collect()
        };
        let counter = "counter";
        family(
            "tap_records_seen_total",
            counter,
            "Records due in the kernel.",
            &by_kind(&|r| r.seen),
        );
        let delivered = by_kind(&|r| r.delivered);
        family("tap_records_delivered_total", counter, "Records read by the daemon.", &delivered);
        let dropped: Vec<_> = Kind::ALL
            .iter()
            .zip(&self.records)
            .flat_map(|(kind, records)| {
                let rows = Drop::ALL.iter().map(|reason| reason.name()).zip(records.dropped);
                rows.chain([("invalid", records.invalid)]).map(|(reason, count)| {
                    (format!("{{kind=\"{}\",reason=\"{reason}\"}}", kind.name()), count)
                })
            })
            .collect();
        family("tap_records_dropped_total", counter, "Records dropped, by reason.", &dropped);
        let in_ring = by_kind(&Records::in_ring);
        family("tap_records_in_ring_total", "gauge", "Records that wait in a ring.", &in_ring);
        let events: Vec<_> = Event::ALL
            .iter()
            .zip(self.events)
            .map(|(event, count)| (format!("{{event=\"{}\"}}", event.name()), count))
            .collect();
        family("tap_kernel_events_total", counter, "What the kernel side did besides.", &events);
        let one = |value: u64| [(String::new(), value)];
        family("tap_connection_open", "gauge", "Connections in the table.", &one(self.open));
        let table = [
            ("evicted", self.table.evicted),
            ("own", self.table.own),
            ("nameless", self.table.nameless),
            ("closes_found", self.table.closes_found),
            ("unknown", self.table.unknown),
            ("verdicts_refused", self.verdicts_refused),
        ]
        .map(|(event, count)| (format!("{{event=\"{event}\"}}"), count));
        family("tap_connection_events_total", counter, "What the table did besides.", &table);
        let exchanges = self
            .table
            .exchanges
            .all()
            .map(|(event, count)| (format!("{{event=\"{event}\"}}"), count));
        let help = "What became of exchanges, of their header fields, and of turns without one.";
        family("tap_exchange_events_total", counter, help, &exchanges);
        let refused =
            self.dns_refused().map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), count));
        family("tap_dns_refused_total", counter, "DNS messages that told nothing.", &refused);
        out
    }
}

/// Names and counts as JSON.
fn rows<const N: usize>(rows: [(&'static str, u64); N]) -> Value {
    rows.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect()
}

/// The newest picture, shared.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Picture>>);

impl Board {
    /// Puts a new picture up.
    pub fn publish(&self, picture: &Picture) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.clone_from(picture);
    }

    /// The newest picture.
    pub fn picture(&self) -> Picture {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::table::{Counts, Exchanges};

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
        let table =
            Counts { unknown: 6, exchanges, dns_refused: [7, 8, 9, 10, 11], ..Counts::default() };
        let picture = Picture { table, verdicts_refused: 12, ..Picture::default() };
        let (json, text) = (picture.to_json(), picture.to_prometheus());
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
