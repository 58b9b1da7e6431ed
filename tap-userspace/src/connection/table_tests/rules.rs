//! Connections that rules have still to decide about when the kernel side has admitted them.

use std::sync::Arc;

use tap_common::record::Owner;

use super::*;
use crate::{
    enrich::process::Process,
    policy::admission::{Reason, Rulebook, Rules},
};

fn rules(text: &str) -> Arc<Rules> {
    Arc::new(Rules::new(&serde_yaml::from_str(text).unwrap()).unwrap())
}

fn bench(text: &str) -> Bench {
    let mut bench = Bench::new();
    let table = std::mem::replace(&mut bench.table, Bench::new().table);
    bench.table = table.with_rules(Rulebook::new(rules(text)));
    bench.table.listens("192.0.2.1".parse().unwrap(), 1); // the first listing is over
    bench.table.tick(true);
    bench
}

fn process(name: &str) -> Arc<Process> {
    let executable = format!("/usr/bin/{name}").into();
    Arc::new(Process { pid: 7, name: name.into(), executable, ..Process::default() })
}

impl Bench {
    fn owner(&mut self, cookie: u64, process: Option<&Arc<Process>>, flags: u16) {
        let mut header = self.header(Kind::Owner, Lane::Life, cookie, 1);
        header.flags = flags;
        let owner = Owner { header, tgid: 7, tid: 7, comm: [0; 16] };
        self.table.record(&Record::Owner(owner), process);
    }

    fn filtered(&self, reason: Reason) -> u64 {
        self.table.counts().filtered[reason as usize]
    }
}

#[test]
fn what_is_refused_once_its_owner_is_known_is_not_told() {
    let mut bench = bench("exclude: [{ exe: curl }]");
    bench.open(1);
    bench.turn(1, Lane::Transmit, 0, b"GET / HTTP/1.1\r\n\r\n");
    assert!(bench.table.take_refused().is_empty());
    bench.owner(1, Some(&process("curl")), 0);
    assert_eq!(bench.table.take_refused(), [(1, 0)]);
    assert_eq!(bench.filtered(Reason::Exclude), 1);
    // Records that were under way change nothing; its close ends it.
    bench.turn(1, Lane::Receive, 0, b"HTTP/1.1 200 OK\r\n\r\n");
    bench.close(1, [19, 18], [3, 1, 1]);
    bench.table.tick(true);
    assert!(bench.take().is_empty() && bench.table.is_empty());
    // Its word may still wait in the kernel's table.
    assert_eq!(bench.table.take_interests().1, [1]);
    assert_eq!(bench.table.counts().own, 0);
}

#[test]
fn what_the_kernel_side_lets_go_is_forgotten_after_a_while() {
    let mut bench = bench("include: [{ exe: nginx }]");
    bench.open(1);
    bench.owner(1, Some(&process("curl")), 0);
    assert_eq!(bench.filtered(Reason::Include), 1);
    bench.owner(1, None, flags::REFUSED);
    bench.turn(1, Lane::Receive, 0, b"late");
    bench.table.tick(true);
    assert_eq!(bench.table.len(), 1);
    bench.at(1100);
    bench.table.tick(true);
    assert!(bench.table.is_empty() && bench.take().is_empty());
    assert_eq!(bench.table.counts().own, 0);
}

#[test]
fn what_is_wanted_is_told_whole() {
    let mut bench = bench("include: [{ exe: curl }]");
    bench.open(1);
    bench.turn(1, Lane::Transmit, 0, b"GET / HTTP/1.1\r\n\r\n");
    bench.owner(1, Some(&process("curl")), 0);
    bench.close(1, [0, 18], [3, 0, 1]);
    let told = bench.one();
    assert_eq!(data(&told), [(Direction::Transmit, 18)]);
    assert!(bench.table.take_refused().is_empty());
}

#[test]
fn what_nobody_owns_is_decided_at_its_end() {
    for (text, told) in [
        ("include: [{ exe: curl }]", 0),
        ("exclude: [{ exe: curl }]", 1),
        ("include: [{ condition: \"connection.protocol == 'http'\" }]", 0),
        ("include: [{ exe: curl }, { port: 80 }]", 1),
    ] {
        let mut bench = bench(text);
        bench.open(1);
        bench.close(1, [0, 0], [2, 0, 0]);
        assert_eq!(bench.take().len(), told, "{text}");
        // A connect that failed has no open.
        bench.close(2, [0, 0], [1, 0, 0]);
        bench.at(2000);
        bench.table.tick(true);
        assert_eq!(bench.take().len(), told, "{text}");
        // At the end of tap.
        bench.open(3);
        let snapshot = bench.close_record(3, [0, 0], [1, 0, 0]);
        bench.table.flush(&[snapshot]);
        assert_eq!(bench.take().len(), told, "{text}");
    }
}

#[test]
fn a_condition_on_the_protocol_waits_for_it() {
    let mut bench = bench("exclude: [{ condition: \"connection.protocol == 'http'\" }]");
    bench.open(1);
    assert_eq!(bench.filtered(Reason::Exclude), 0);
    bench.turn(1, Lane::Transmit, 0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(bench.filtered(Reason::Exclude), 1);
    bench.open(2);
    bench.turn(2, Lane::Transmit, 0, b"SSH-2.0-x\r\n");
    bench.close(2, [0, 11], [2, 0, 1]);
    assert_eq!(bench.one().cookie, 2);
}

#[test]
fn a_connection_is_judged_by_the_rules_that_admitted_it() {
    let mut bench = bench("exclude: [{ exe: curl }]");
    let book = Rulebook::new(rules("exclude: [{ exe: curl }]"));
    book.put(1, rules("{}"));
    let table = std::mem::replace(&mut bench.table, Bench::new().table);
    bench.table = table.with_rules(book);
    for (cookie, flag) in [(1, 0), (2, flags::SECOND_RULES)] {
        let header = bench.header(Kind::Open, Lane::Life, cookie, 0);
        let mut connection = bench.connection();
        connection.flags |= flag;
        let curl = process("curl");
        bench.table.record(&Record::Open(Open { header, connection }), Some(&curl));
        bench.close(cookie, [0, 0], [2, 0, 0]);
    }
    assert_eq!(bench.one().cookie, 2);
    assert_eq!(bench.filtered(Reason::Exclude), 1);
}

#[test]
fn what_a_listing_shows_is_judged_too() {
    let mut bench = bench("exclude: [{ port: 80 }]");
    let header = bench.header(Kind::Open, Lane::Life, 1, 0);
    let mut connection = bench.connection();
    connection.flags |= flags::PREEXISTING;
    bench.table.listed(&Open { header, connection }, None);
    // Whoever refused it first has counted it.
    assert!(bench.table.is_empty() && bench.table.take_refused().is_empty());
    assert_eq!(bench.filtered(Reason::Exclude), 0);
}
