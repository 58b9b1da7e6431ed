//! The table against hand-made records: order, loss, generations, segments, bounds.

mod lives;
mod rules;

use tap_common::record::{self, Close, Data, Header, Kind, LANES, Lane, Open, flags};

use super::{
    entry::{EMPTY, without_word},
    identity::Identities,
    model::{Connection, Direction, Quality, Role, State, What},
    table::{Counts, Settings, Table},
};
use crate::{
    config::file::Config,
    enrich::names::Refused,
    protocol::{
        Protocol,
        exchange::{Headers, Message, Trouble},
        http1::OUTSTANDING_MAX,
    },
    source::decode::Record,
};

const MS: u64 = 1_000_000;

/// A table and a clock.
struct Bench {
    table: Table,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings {
            capacity: 100,
            max_age_ns: 60_000 * MS,
            event_limit: 128,
            lives: false,
            parse: false,
            statements: false,
            collect: None,
            self_tgid: 77,
        })
    }

    fn with(settings: Settings) -> Self {
        let identities = Identities::new(&Config::default().trace, false);
        let mut bench = Self { table: Table::new(settings, identities), now: 0 };
        bench.at(1000);
        bench
    }

    fn at(&mut self, ms: u64) {
        self.now = ms * MS;
        self.table.set_clock(self.now, 1_700_000_000_000 * MS as i64);
    }

    fn take(&mut self) -> Vec<Connection> {
        self.table.take_finished().into_items().collect()
    }

    fn one(&mut self) -> Connection {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }

    fn header(&self, kind: Kind, lane: Lane, cookie: u64, number: u32) -> Header {
        Header {
            kind: kind as u8,
            lane: lane as u8,
            flags: 0,
            payload_len: 0,
            cookie,
            generation: 0,
            number,
            time_ns: self.now,
        }
    }

    fn connection(&self) -> record::Connection {
        let mut connection = EMPTY;
        connection.tuple.local[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        connection.tuple.remote[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 2]);
        connection.tuple.local_port = 40_000;
        connection.tuple.remote_port = 80;
        connection.opened_ns = 1000 * MS;
        connection.local_isn = 11;
        connection.remote_isn = 22;
        connection.flags = flags::ACTIVE | flags::ESTABLISHED;
        connection
    }

    fn open(&mut self, cookie: u64) {
        let header = self.header(Kind::Open, Lane::Life, cookie, 0);
        let open = Open { header, connection: self.connection() };
        self.table.record(&Record::Open(open), None);
    }

    fn turn(&mut self, cookie: u64, lane: Lane, position: u64, payload: &[u8]) {
        let mut header = self.header(Kind::Data, lane, cookie, 0);
        header.flags = flags::TURN;
        let len = payload.len() as u32;
        let data = Data {
            header,
            offset: position,
            position,
            previous_ns: 0,
            segment_len: len,
            turn: 1,
            tgid: 0,
            pad: 0,
        };
        self.table.record(&Record::Data(data, payload), None);
    }

    fn close_record(&self, cookie: u64, bytes: [u64; 2], sent: [u32; LANES]) -> Close {
        let mut close = without_word(self.connection(), self.now);
        close.header = self.header(Kind::Close, Lane::Life, cookie, sent[0].wrapping_sub(1));
        close.bytes = bytes;
        close.sent = sent;
        close.old_state = 9;
        close
    }

    fn close(&mut self, cookie: u64, bytes: [u64; 2], sent: [u32; LANES]) {
        let close = self.close_record(cookie, bytes, sent);
        self.table.record(&Record::Close(close), None);
    }
}

fn data(connection: &Connection) -> Vec<(Direction, u64)> {
    let of = |event: &super::model::Event| match event.what {
        What::Data { direction, bytes } => Some((direction, bytes)),
        _ => None,
    };
    connection.events.iter().filter_map(of).collect()
}

#[test]
fn a_connection_in_order() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.at(1010);
    bench.turn(1, Lane::Transmit, 0, b"GET / HTTP/1.1\r\n\r\n");
    bench.at(1310);
    bench.turn(1, Lane::Receive, 0, b"HTTP/1.1 200 OK\r\n\r\n");
    bench.at(1400);
    bench.close(1, [19, 18], [2, 1, 1]);
    let connection = bench.one();
    assert_eq!((connection.role, connection.state), (Role::Client, State::Closed));
    assert_eq!(connection.bytes, [19, 18]);
    assert_eq!(data(&connection), [(Direction::Transmit, 18), (Direction::Receive, 19)]);
    assert_eq!(connection.end_ns - connection.start_ns, 400 * MS);
    assert!(!connection.quality.has(Quality::LOST_EVENTS));
    assert!(matches!(connection.events.first().unwrap().what, What::Open));
    assert!(matches!(connection.events.last().unwrap().what, What::Close));
    assert!(connection.events.is_sorted_by_key(|event| event.time_ns));
    assert!(bench.table.is_empty());
}

#[test]
fn a_close_waits_for_its_data() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.close(1, [5, 0], [2, 1, 0]);
    bench.table.tick(true);
    assert!(bench.take().is_empty());
    bench.turn(1, Lane::Receive, 0, b"hello");
    let connection = bench.one();
    assert_eq!(data(&connection), [(Direction::Receive, 5)]);
    assert!(!connection.quality.has(Quality::LOST_EVENTS));
}

#[test]
fn lost_records_mark_the_span_and_it_still_comes() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.close(1, [5, 0], [2, 1, 0]);
    bench.at(1100);
    bench.table.tick(false);
    assert!(bench.take().is_empty(), "the data ring was not empty yet");
    bench.table.tick(true);
    let connection = bench.one();
    assert!(connection.quality.has(Quality::LOST_EVENTS));
    assert_eq!(connection.bytes, [5, 0]);
}

#[test]
fn a_lost_open_is_made_up_for_by_the_close() {
    let mut bench = Bench::new();
    bench.turn(1, Lane::Receive, 0, b"hello");
    bench.close(1, [5, 0], [2, 1, 0]);
    bench.at(1100);
    bench.table.tick(true);
    let connection = bench.one();
    assert_eq!((connection.peer.1, connection.local.1), (80, 40_000));
    assert_eq!(data(&connection), [(Direction::Receive, 5)]);
    assert!(connection.quality.has(Quality::LOST_EVENTS));
}

#[test]
fn data_before_its_open_joins_it() {
    let mut bench = Bench::new();
    bench.turn(1, Lane::Receive, 0, b"hello");
    bench.open(1);
    bench.close(1, [5, 0], [2, 1, 0]);
    assert!(!bench.one().quality.has(Quality::LOST_EVENTS));
}

#[test]
fn a_socket_that_connects_again_is_another_connection() {
    let mut bench = Bench::new();
    let mut refused = bench.close_record(1, [0, 0], [1, 0, 0]);
    refused.connection.flags = flags::ACTIVE | flags::RST_RECEIVED;
    refused.error = libc::ECONNREFUSED as u16;
    bench.table.record(&Record::Close(refused), None);
    // The answer that names its peer may come in the same round.
    assert!(bench.take().is_empty());
    bench.table.tick(true);
    let first = bench.one();
    assert_eq!((first.state, first.error_type), (State::Refused, Some("refused")));
    let mut again = bench.close_record(1, [0, 0], [1, 0, 0]);
    again.header.generation = 1;
    bench.table.record(&Record::Close(again), None);
    assert_ne!(bench.one().id, first.id);
}

#[test]
fn turns_without_bytes_are_no_events() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn(1, Lane::Receive, 0, b"forged");
    bench.turn(1, Lane::Receive, 0, b"hello");
    bench.close(1, [5, 0], [2, 2, 0]);
    assert_eq!(data(&bench.one()), [(Direction::Receive, 5)]);
}

#[test]
fn turns_beyond_the_records_are_counted() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn(1, Lane::Receive, 0, b"a");
    let mut close = bench.close_record(1, [10, 7], [2, 1, 0]);
    close.turns = [3, 2];
    close.cut_at = [4, 0];
    bench.table.record(&Record::Close(close), None);
    let connection = bench.one();
    assert_eq!(data(&connection), [(Direction::Receive, 4)]);
    assert_eq!((connection.bytes, connection.dropped_events), ([10, 7], 4));
    assert!(connection.quality.has(Quality::EVENT_LIMIT));
}

#[test]
fn the_event_limit_keeps_the_close() {
    let mut bench = Bench::new();
    bench.table = Bench::with(Settings {
        capacity: 10,
        max_age_ns: u64::MAX,
        event_limit: 4,
        lives: false,
        parse: false,
        statements: false,
        collect: None,
        self_tgid: 0,
    })
    .table;
    bench.at(1000);
    bench.open(1);
    for position in 0..6 {
        bench.turn(1, Lane::Receive, position, b"");
    }
    bench.close(1, [6, 0], [2, 6, 0]);
    let connection = bench.one();
    assert_eq!((connection.events.len(), connection.dropped_events), (4, 4));
    assert!(matches!(connection.events[3].what, What::Close));
}

#[test]
fn a_long_connection_comes_in_segments_of_one_trace() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn(1, Lane::Receive, 0, b"12345");
    bench.at(61_500);
    assert!(bench.table.wants_segments());
    let mut snapshot = bench.close_record(1, [5, 0], [1, 1, 0]);
    snapshot.turns = [1, 0];
    let renewed = bench.table.snapshot(&[snapshot]);
    assert_eq!(renewed.len(), 1);
    let first = bench.one();
    assert_eq!((first.state, first.segment, first.bytes), (State::Open, 0, [5, 0]));
    assert!(!bench.table.wants_segments());
    bench.at(62_000);
    bench.turn(1, Lane::Receive, 7, b"89");
    bench.close(1, [9, 0], [2, 2, 0]);
    let second = bench.one();
    assert_eq!((second.state, second.segment, second.bytes), (State::Closed, 1, [4, 0]));
    // The first turn went on over the border by two bytes.
    assert_eq!(data(&second), [(Direction::Receive, 2), (Direction::Receive, 2)]);
    assert_eq!(second.identity.trace_id, first.identity.trace_id);
    assert_ne!(second.identity.span_id, first.identity.span_id);
    assert_eq!(second.id, first.id);
    assert_eq!(second.start_ns, first.end_ns);
}

#[test]
fn a_lost_close_is_found_by_a_snapshot() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    bench.at(5000);
    let open = bench.close_record(2, [0, 0], [1, 0, 0]);
    bench.table.snapshot(&[open]);
    assert!(bench.one().quality.has(Quality::LOST_EVENTS));
    assert_eq!(bench.table.counts(), Counts { closes_found: 1, ..Counts::default() });
    assert_eq!(bench.table.len(), 1);
}

#[test]
fn what_is_open_at_the_end_goes_out_with_the_snapshot() {
    let mut bench = Bench::new();
    bench.open(1);
    let mut connecting = bench.close_record(9, [0, 0], [0, 0, 0]);
    connecting.connection.flags = flags::ACTIVE;
    let open = bench.close_record(1, [30, 40], [1, 0, 0]);
    bench.table.flush(&[open, connecting]);
    let all = bench.take();
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|connection| connection.state == State::Open));
    assert_eq!(all[0].bytes, [30, 40]);
    assert!(bench.table.is_empty());
}

#[test]
fn a_full_table_lets_the_oldest_go() {
    let mut bench = Bench::new();
    for cookie in 0..150 {
        bench.open(cookie);
    }
    assert_eq!(bench.table.len(), 100);
    assert_eq!(bench.table.counts().evicted, 50);
    let gone: Vec<_> = bench.take().iter().map(|connection| connection.bytes).collect();
    assert_eq!(gone.len(), 50);
}

#[test]
fn a_table_full_of_closed_connections_lets_the_first_go() {
    let mut bench = Bench::new();
    for cookie in 0..150 {
        bench.open(cookie);
        // A record is missing, so that the entry waits; a snapshot takes it out of the ages.
        bench.close(cookie, [5, 0], [2, 1, 0]);
        bench.at(100_000 + cookie);
        bench.table.snapshot(&[]);
    }
    assert_eq!((bench.table.len(), bench.table.counts().evicted), (100, 50));
}

#[test]
fn taps_own_connections_do_not_come_out() {
    let mut bench = Bench::new();
    bench.open(1);
    let header = bench.header(Kind::Owner, Lane::Life, 1, 1);
    let owner = record::Owner { header, tgid: 77, tid: 77, comm: [0; 16] };
    bench.table.record(&Record::Owner(owner), None);
    bench.turn(1, Lane::Receive, 0, b"GET /metrics");
    bench.at(2000);
    bench.table.tick(true);
    assert!(bench.take().is_empty());
    assert!(bench.table.is_empty());
    assert_eq!(bench.table.counts(), Counts { own: 1, ..Counts::default() });
}

/// A table that reads exchanges, with one open connection.
fn reading() -> Bench {
    let settings = Settings {
        capacity: 100,
        max_age_ns: 60_000 * MS,
        event_limit: 128,
        lives: false,
        parse: true,
        statements: false,
        collect: None,
        self_tgid: 77,
    };
    let mut bench = Bench::with(settings);
    bench.open(1);
    bench
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// What became of the exchanges, in the order of [`Exchanges`].
fn became(bench: &Bench) -> [u64; 6] {
    bench.table.counts().exchanges.all().map(|(_, count)| count)
}

#[test]
fn exchanges_under_way_are_told_as_open_when_nobody_hears_on() {
    let ends: [fn(&mut Bench); 3] = [
        |bench| {
            let open = bench.close_record(1, [0, 0], [1, 0, 0]);
            bench.table.flush(&[open]);
        },
        |bench| bench.table.flush(&[]),
        |bench| {
            let close = bench.close_record(1, [0, 0], [1, 0, 0]);
            bench.table.give_up(&close);
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let mut bench = reading();
        let at = REQUEST.len() as u64;
        bench.turn(1, Lane::Transmit, 0, REQUEST);
        bench.turn(1, Lane::Receive, 0, RESPONSE);
        bench.turn(1, Lane::Transmit, at, REQUEST);
        end(&mut bench);
        let told: Vec<_> = bench.table.take_transactions().into_items().collect();
        let troubles = told.iter().map(|one| match &one.exchange.message {
            Message::Http(http) => (http.status, http.error),
            other => panic!("{other:?}"),
        });
        let expected = [(Some(200), None), (None, Some(Trouble::Open))];
        assert_eq!(troubles.collect::<Vec<_>>(), expected, "{number}");
        assert_eq!(became(&bench), [2, 1, 0, 0, 0, 0], "{number}");
        assert_eq!(bench.one().state, State::Open);
    }
}

#[test]
fn a_request_that_the_close_leaves_unanswered_has_no_response() {
    let mut bench = reading();
    bench.turn(1, Lane::Transmit, 0, REQUEST);
    bench.close(1, [0, REQUEST.len() as u64], [2, 0, 1]);
    let told: Vec<_> = bench.table.take_transactions().into_items().collect();
    let Message::Http(http) = &told[0].exchange.message else { panic!("{told:?}") };
    assert_eq!((told.len(), http.error), (1, Some(Trouble::NoResponse)));
    assert_eq!(became(&bench), [1, 0, 0, 0, 0, 0]);
}

#[test]
fn requests_that_were_lost_are_counted_by_their_turns() {
    // Of three exchanges, records that come: requests and responses by number.
    for (came, told) in [
        (&[(0, true), (0, false), (1, true), (1, false), (2, true), (2, false)][..], 3),
        (&[(0, true), (0, false), (2, true), (2, false)], 2),
        (&[(0, true), (0, false), (1, false), (2, true), (2, false)], 2),
        (&[(0, true), (0, false), (1, true), (2, true), (2, false)], 3),
        (&[(0, true), (2, false)], 1),
        (&[(1, true), (1, false), (2, true), (2, false)], 2),
    ] {
        let mut bench = reading();
        for (step, (number, request)) in came.iter().enumerate() {
            bench.at(1000 + step as u64);
            let (lane, bytes) =
                if *request { (Lane::Transmit, REQUEST) } else { (Lane::Receive, RESPONSE) };
            bench.turn(1, lane, number * bytes.len() as u64, bytes);
        }
        let totals = [3 * RESPONSE.len() as u64, 3 * REQUEST.len() as u64];
        let mut close = bench.close_record(1, totals, [2, 3, 3]);
        close.turns = [3, 3];
        bench.table.record(&Record::Close(close), None);
        bench.at(2000);
        bench.table.tick(true);
        assert_eq!(bench.take().len(), 1);
        let [counted, open, .., untold] = became(&bench);
        assert_eq!(bench.table.take_transactions().len() as u64, counted);
        assert_eq!((counted, open, untold), (told, 0, 3 - told), "{came:?}");
    }
}

#[test]
fn exchanges_wait_for_the_open_that_tells_whose_they_are() {
    let tell: [fn(&mut Bench); 3] = [
        |bench| bench.open(2),
        // The open was lost.
        |bench| bench.close(2, [38, 19], [2, 1, 1]),
        |bench| drop(bench.table.snapshot(&[bench.close_record(2, [38, 19], [2, 1, 1])])),
    ];
    for (number, tell) in tell.into_iter().enumerate() {
        let mut bench = reading();
        bench.turn(2, Lane::Transmit, 0, REQUEST);
        bench.turn(2, Lane::Receive, 0, RESPONSE);
        assert_eq!(bench.table.take_transactions().len(), 0, "{number}");
        tell(&mut bench);
        bench.at(1200);
        bench.table.tick(true);
        let told: Vec<_> = bench.table.take_transactions().into_items().collect();
        assert_eq!(told.len(), 1, "{number}");
        let about = &told[0].about;
        assert_eq!((about.role, about.local.1, about.peer.1), (Role::Client, 40_000, 80));
        assert_eq!(became(&bench), [1, 0, 0, 0, 0, 0], "{number}");
    }
}

#[test]
fn exchanges_of_which_nobody_tells_whose_they_are_do_not_pile_up() {
    let mut bench = reading();
    let exchanges = 5000;
    for number in 0..exchanges {
        bench.turn(2, Lane::Transmit, number * REQUEST.len() as u64, REQUEST);
        bench.turn(2, Lane::Receive, number * RESPONSE.len() as u64, RESPONSE);
    }
    let nameless = bench.table.counts().exchanges.nameless;
    assert!((1..exchanges).contains(&nameless), "{nameless}");
    bench.table.flush(&[]);
    assert_eq!(became(&bench), [0, 0, 0, exchanges, 0, 0]);
    assert_eq!(bench.table.counts().nameless, 1);
}

#[test]
fn requests_and_fields_without_room_are_counted() {
    let mut bench = reading();
    let field = b"x-field: value\r\n".repeat(Headers::FIELDS_MAX + 7);
    let request = [b"GET /a HTTP/1.1\r\n", &field[..], b"\r\n"].concat();
    bench.turn(1, Lane::Transmit, 0, &request);
    bench.turn(1, Lane::Receive, 0, RESPONSE);
    assert_eq!(became(&bench), [1, 0, 0, 0, 7, 0]);
    // A client that pipelines without end and is never answered.
    let mut at = request.len() as u64;
    for _ in 0..OUTSTANDING_MAX + 5 {
        bench.turn(1, Lane::Transmit, at, REQUEST);
        at += REQUEST.len() as u64;
    }
    assert_eq!(became(&bench), [6, 0, 5, 0, 7, 0]);
}

#[test]
fn what_is_no_known_protocol_is_counted() {
    let mut bench = reading();
    bench.turn(1, Lane::Transmit, 0, &[0xaa; 100]);
    bench.close(1, [0, 100], [2, 0, 1]);
    bench.open(2);
    bench.turn(2, Lane::Transmit, 0, &[0xaa; 100]);
    bench.open(3);
    bench.open(4);
    bench.turn(4, Lane::Transmit, 0, REQUEST);
    bench.table.flush(&[]);
    // The third said nothing, the fourth speaks HTTP.
    assert_eq!(bench.table.counts().unknown, 2);
    assert_eq!(bench.take().len(), 4);
}

#[test]
fn dns_messages_that_tell_nothing_are_counted_by_reason() {
    let mut bench = Bench::new();
    let (client, server) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:53".parse().unwrap());
    let mdns = "10.0.0.1:5353".parse().unwrap();
    let mut query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03tap\x04test\0\0\x01\0\x01".to_vec();
    let table = &mut bench.table;
    table.dns_message(&query, client, server, 1);
    table.dns_message(b"short", client, server, 1);
    table.dns_message(&query, mdns, server, 1);
    query[2] = 0x81;
    query[3] = 3;
    table.dns_message(&query, client, server, 1);
    table.dns_message(&query, server, client, 2);
    table.dns_message(&query, server, client, 3);
    let refused = Refused::REASONS.into_iter().zip(table.counts().dns_refused);
    let expected = [("malformed", 1), ("kind", 1), ("unasked", 1), ("failed", 1), ("multicast", 1)];
    assert_eq!(refused.collect::<Vec<_>>(), expected);
}

#[test]
fn dns_answers_over_tcp_name_later_peers() {
    // dig's and dnsmasq's own bytes (fixtures/dns/capture.sh).
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/dns/captured.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let bytes = |from: &str| -> Vec<u8> {
        let line = text.lines().find(|line| line.starts_with(from)).unwrap();
        let hex = line.rsplit(' ').next().unwrap();
        let pairs = (0..hex.len()).step_by(2);
        pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let (query, answer) =
        (bytes("tcp 127.0.0.1:34229 "), bytes("tcp 127.0.0.1:5311 127.0.0.1:34229 "));
    let named = Some("api.example.test");
    // Port; whether the records of the later connection are read first, as those of the life ring
    // are; when it was opened.
    for (port, first, opened_ms, want) in [
        (53, false, 1100, named),
        (53, true, 1100, named),
        (53, false, 999, None),
        (53, true, 999, None),
        (5311, false, 1100, None),
    ] {
        let mut bench = Bench::new();
        let mut later = bench.connection();
        later.tuple.remote[12..].copy_from_slice(&[192, 0, 2, 210]);
        later.opened_ns = opened_ms * MS;
        let mut refused = bench.close_record(3, [0, 0], [1, 0, 0]);
        refused.connection = later;
        refused.connection.flags = flags::ACTIVE | flags::RST_RECEIVED;
        refused.error = libc::ECONNREFUSED as u16;
        let header = bench.header(Kind::Open, Lane::Life, 2, 0);
        let goes_there = |bench: &mut Bench| {
            bench.table.record(&Record::Open(Open { header, connection: later }), None);
            bench.table.record(&Record::Close(refused), None);
        };
        let mut resolver = bench.connection();
        resolver.tuple.remote_port = port;
        let header = bench.header(Kind::Open, Lane::Life, 1, 0);
        bench.table.record(&Record::Open(Open { header, connection: resolver }), None);
        if first {
            goes_there(&mut bench);
        }
        bench.turn(1, Lane::Transmit, 0, &query);
        // The length in a segment of its own.
        bench.turn(1, Lane::Receive, 0, &answer[..2]);
        bench.turn(1, Lane::Receive, 2, &answer[2..]);
        if !first {
            goes_there(&mut bench);
        }
        bench.table.tick(true);
        bench.table.flush(&[]);
        let all = bench.take();
        let of = |cookie| all.iter().find(|connection| connection.cookie == cookie).unwrap();
        assert_eq!(of(1).protocol, Some(Protocol::Dns));
        for cookie in [2, 3] {
            assert_eq!(of(cookie).peer_name.as_deref(), want, "{port} {first} {opened_ms}");
        }
    }
}

#[test]
fn roles_of_older_connections_come_from_listeners_then_from_speech() {
    for (listens, speech, role) in [
        (true, None, Role::Server),
        (false, Some(Lane::Transmit), Role::Client),
        (false, Some(Lane::Receive), Role::Server),
        (false, None, Role::Client),
    ] {
        let mut bench = Bench::new();
        if listens {
            bench.table.listens("0.0.0.0".parse().unwrap(), 40_000);
        }
        let header = bench.header(Kind::Open, Lane::Life, 1, 0);
        let mut connection = bench.connection();
        connection.flags = flags::PREEXISTING | flags::ESTABLISHED;
        bench.table.listed(&Open { header, connection }, None);
        if let Some(lane) = speech {
            bench.turn(1, lane, 0, b"GET / HTTP/1.1\r\n\r\n");
        }
        let mut close = bench.close_record(1, [18, 18], [1, 0, 0]);
        close.connection.flags = connection.flags;
        bench.table.record(&Record::Close(close), None);
        bench.at(2000);
        bench.table.tick(true);
        let connection = bench.one();
        assert_eq!(connection.role, role, "{listens} {speech:?}");
        assert!(connection.quality.has(Quality::PREEXISTING));
        assert!(connection.identity.peer_span_id.is_none());
    }
}
