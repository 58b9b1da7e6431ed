//! That a connection has opened is told once, before it is over.

use std::sync::Arc;

use tap_common::record::{Kind, Lane, Open, Owner, flags};

use super::{Bench, MS};
use crate::{
    connection::{
        life::{Life, Moment},
        table::Settings,
    },
    enrich::process::Process,
    source::decode::Record,
};

/// A table that tells when connections open.
fn telling() -> Bench {
    Bench::with(Settings {
        capacity: 100,
        max_age_ns: 60_000 * MS,
        event_limit: 128,
        collect: None,
        lives: true,
        parse: false,
        statements: false,
        self_tgid: 77,
    })
}

impl Bench {
    fn lives(&mut self) -> Vec<Life> {
        self.table.take_lives().into_items().collect()
    }

    fn owned(&mut self, cookie: u64, tgid: u32) {
        let header = self.header(Kind::Owner, Lane::Life, cookie, 1);
        let owner = Owner { header, tgid, tid: tgid, comm: [0; 16] };
        let process = Arc::new(Process { pid: tgid, ..Process::default() });
        self.table.record(&Record::Owner(owner), Some(&process));
    }
}

#[test]
fn an_open_is_told_once_before_the_close_with_the_ids_of_the_span() {
    // When the owner is known, when tick comes, and when it closes; when the open is told.
    for (owner, close, told) in [
        // At once with its owner.
        (Some(1001), Some(5000), 1002),
        // An owner that comes late is waited for, and not for ever.
        (Some(1050), Some(5000), 1051),
        (None, Some(5000), 1100),
        // Closed before.
        (None, Some(1020), 1020),
        // Never.
        (None, None, 1100),
    ] {
        let mut bench = telling();
        bench.open(1);
        let mut opened: Vec<(u64, Life)> = Vec::new();
        let mut finished = Vec::new();
        for ms in 1000..=5001 {
            bench.at(ms);
            if owner == Some(ms) {
                bench.owned(1, 5);
            }
            if close == Some(ms) {
                let owners = u32::from(owner.is_some());
                bench.close(1, [3, 4], [2 + owners, 0, 0]);
            }
            bench.table.tick(true);
            opened.extend(bench.lives().into_iter().map(|life| (ms, life)));
            finished.extend(bench.take());
            assert!(finished.is_empty() || !opened.is_empty(), "closed before it opened");
        }
        if close.is_none() {
            bench.table.flush(&[]);
            finished.extend(bench.take());
        }
        assert_eq!(opened.len(), 1, "{owner:?} {close:?}");
        let (at, life) = &opened[0];
        // One round later at most.
        assert!((told - 1..=told).contains(at), "{owner:?} {close:?}: {at}");
        assert_eq!(life.process.is_some(), owner.is_some());
        let last = Life::from(&finished[0]);
        let moment = if close.is_some() { Moment::Closed } else { Moment::Updated };
        assert_eq!((life.moment, last.moment), (Moment::Opened, moment));
        assert_eq!((life.id, life.identity), (last.id, last.identity));
        assert_eq!((life.opened_ns, life.at_ns), (last.opened_ns, last.opened_ns));
        assert_eq!(life.bytes, [0; 2]);
    }
}

#[test]
fn what_is_taps_own_or_older_than_tap_does_not_open() {
    let mut bench = telling();
    bench.open(1);
    bench.at(1010);
    // Tap itself has accepted it.
    bench.owned(1, 77);
    for ms in 1010..1500 {
        bench.at(ms);
        bench.table.tick(true);
    }
    assert!(bench.lives().is_empty() && bench.table.is_empty());
    let mut listed =
        Open { header: bench.header(Kind::Open, Lane::Life, 2, 0), connection: bench.connection() };
    listed.connection.flags |= flags::PREEXISTING;
    bench.table.listed(&listed, None);
    bench.at(2000);
    bench.table.tick(true);
    assert!(bench.lives().is_empty());
    // And where nobody wants to know, nobody is told.
    let mut silent = Bench::new();
    silent.open(1);
    silent.at(1500);
    silent.table.tick(true);
    silent.close(1, [0; 2], [2, 0, 0]);
    assert!(silent.lives().is_empty());
    assert_eq!(silent.take().len(), 1);
}

/// A host that opens more than the table holds waits for no owner.
#[test]
fn what_waits_to_be_told_is_bounded() {
    let mut bench = telling();
    for cookie in 1..=1000 {
        bench.open(cookie);
        if cookie % 50 == 0 {
            bench.table.tick(true);
        }
    }
    assert!(bench.lives().len() >= 900);
}
