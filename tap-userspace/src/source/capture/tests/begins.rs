//! How connections begin, as far as it was captured, and begin again.

use tap_common::record::{TRANSMIT, flags};

use super::{
    Seen,
    rules::{Line, MS, PLAIN, after_handshake, film, seen},
    wire::Film,
};
use crate::source::capture::Settings;

#[test]
fn data_on_a_syn_counts_if_it_is_accepted() {
    let end: [Line; 3] =
        [(20, 0, "FA", [6, 1], ""), (21, 1, "FA", [1, 7], ""), (22, 0, "A", [7, 2], "")];
    let accepted =
        [(0, 0, "S", [0, 0], "hello"), (1, 1, "SA", [0, 6], ""), (2, 0, "A", [6, 1], "")];
    let refused =
        [(0, 0, "S", [0, 0], "hello"), (1, 1, "SA", [0, 1], ""), (2, 0, "A", [1, 1], "hello")];
    for (lines, time) in [(accepted, 0), (refused, 2)] {
        let seen = seen(&film(&[&lines[..], &end[..]].concat()));
        assert_eq!((seen.close().bytes, seen.stream(TRANSMIT)), ([0, 5], "hello".into()));
        assert_eq!(seen.data[0].0.header.time_ns, time * MS);
        assert_eq!((seen.close().turns, seen.close().retransmits), ([0, 1], 0));
    }
    // Of a connect that fails the kernel counts what it sent.
    let lines = [accepted[0], (1, 1, "RA", [0, 1], "")];
    assert_eq!(seen(&film(&lines)).close().bytes, [0, 5]);
}

#[test]
fn a_connection_joined_in_its_middle_is_older_than_the_capture() {
    let joined = flags::PREEXISTING | flags::ESTABLISHED;
    for first in [0, 1] {
        let seen = seen(&after_handshake(&PLAIN).from(3 + first));
        let open = &seen.opens[0].connection;
        // The lower port is the server's, so the other end is this host.
        assert_eq!((open.flags, open.tuple.local_port), (joined, 40_000));
        assert_eq!((open.local_isn, open.remote_isn), ([1000, 1003][first], 5000));
        let fins = flags::FIN_SENT | flags::FIN_RECEIVED;
        assert_eq!(seen.close().connection.flags, joined | fins);
        assert_eq!(seen.close().bytes, [6, [3, 0][first]]);
    }
    // Acknowledgments and resets alone tell of nothing that goes on.
    let stray = film(&[(0, 0, "A", [4, 7], ""), (1, 1, "R", [7, 0], ""), (2, 1, "RA", [7, 4], "")]);
    let stray = seen(&stray);
    assert_eq!((stray.opens.len(), stray.open.len(), stray.counts.stray), (0, 0, 3));
}

#[test]
fn data_in_flight_when_the_capture_began_is_not_missing() {
    // The first packet acknowledges up to 7; the server's next bytes begin at 100.
    let film = film(&[
        (0, 0, "A", [1, 7], "more"),
        (1, 1, "A", [100, 5], "answer"),
        (2, 0, "A", [5, 106], ""),
        (3000, 0, "A", [5, 106], "again"),
    ]);
    let seen = seen(&film);
    assert_eq!((seen.open[0].bytes, seen.counts.missing_bytes), ([6, 9], 0));
}

#[test]
fn a_direction_that_was_not_captured_is_counted_by_its_acknowledgments() {
    let film = film(&[
        (0, 0, "S", [0, 0], ""),
        (2, 0, "A", [1, 1], ""),
        (10, 0, "A", [1, 1], "GET"),
        (20, 0, "A", [4, 1001], ""),
        (2000, 0, "A", [4, 1001], "GET"),
        (2010, 0, "FA", [7, 2001], ""),
    ]);
    let seen = seen(&film);
    assert_eq!(seen.opens.len(), 1);
    assert_eq!((seen.open[0].bytes, seen.counts.missing_bytes), ([1000, 6], 1000));
}

#[test]
fn a_handshake_that_was_captured_in_part_still_tells_who_connects() {
    // Each packet of the handshake may be missing.
    for missing in 0..3 {
        let mut film = after_handshake(&PLAIN);
        film.packets.remove(missing);
        let seen = seen(&film);
        let close = seen.close();
        assert_eq!(close.connection.tuple.remote_port, 80);
        assert_eq!((close.bytes, close.turns), ([6, 3], [1, 1]), "without {missing}");
        let older = close.connection.flags & flags::PREEXISTING != 0;
        assert_eq!((older, close.connection.flags & flags::ACTIVE), (missing == 0, flags::ACTIVE));
    }
}

#[test]
fn ports_that_are_used_again_are_another_connection() {
    let mut film = after_handshake(&PLAIN);
    film.isn = [9_000_000, 400];
    film.handshake(100);
    film.seg(110, 0, "A", [1, 1], "second");
    let seen = seen(&film);
    assert_eq!((seen.opens.len(), seen.closes.len(), seen.open.len()), (2, 1, 1));
    assert_eq!((seen.open[0].header.cookie, seen.open[0].bytes), (2, [0, 6]));
    assert_eq!(seen.open[0].connection.local_isn, 9_000_000);
}

#[test]
fn a_connection_whose_end_was_not_captured_is_given_up_when_its_ports_are_used_again() {
    let mut film = after_handshake(&PLAIN[..3]);
    film.isn = [9_000_000, 400];
    film.handshake(100);
    let seen = seen(&film);
    assert_eq!((seen.opens.len(), seen.given_up.len(), seen.closes.len()), (2, 1, 0));
    let gone = &seen.given_up[0];
    assert_eq!((gone.bytes, gone.header.time_ns, gone.header.cookie), ([6, 3], 12 * MS, 1));
    assert_eq!(gone.header.flags, flags::SNAPSHOT);
    // A connect that was tried anew was aborted before.
    let mut film = Film::new();
    film.seg(0, 0, "S", [0, 0], "");
    film.seg(3000, 0, "S", [77, 0], "");
    let seen = Seen::of(&film.pcap(), &Settings::default());
    assert_eq!((seen.closes.len(), seen.closes[0].error, seen.open.len()), (1, 0, 1));
}

#[test]
fn what_comes_after_the_end_is_not_another_connection() {
    let mut film = after_handshake(&PLAIN);
    film.seg(300, 1, "FA", [7, 5], "");
    film.seg(301, 0, "A", [5, 8], "");
    film.seg(302, 1, "A", [8, 5], "late");
    film.seg(303, 0, "R", [5, 0], "");
    film.seg(50_000, 0, "S", [0, 0], "");
    let seen = seen(&film);
    assert_eq!((seen.opens.len(), seen.close().bytes, seen.close().retransmits), (1, [6, 3], 0));
}

#[test]
fn both_ends_may_connect_at_once() {
    let mut film = film(&[
        (0, 0, "S", [0, 0], ""),
        (0, 1, "S", [0, 0], ""),
        (1, 0, "SA", [0, 1], ""),
        (1, 1, "SA", [0, 1], ""),
        (2, 0, "A", [1, 1], ""),
    ]);
    for (time, side, flags, at, text) in PLAIN {
        film.seg(time, side, flags, at, text);
    }
    let seen = seen(&film);
    assert_eq!((seen.opens.len(), seen.close().bytes), (1, [6, 3]));
}
