//! Turns, heads and captured payload: as `tap-ebpf/src/turn.rs` has them.

use tap_common::{
    limits::PAYLOAD_MAX,
    record::{RECEIVE, TRANSMIT, flags},
};

use super::{Seen, way, wire::Film};
use crate::source::capture::Settings;

/// A connection whose client asks and whose server answers, at these times in ms: the side and
/// what it says.
fn talk(lines: &[(u64, usize, &str)]) -> Film {
    let mut film = Film::new();
    film.handshake(0);
    let mut next = [1, 1];
    for (time, side, text) in lines {
        film.seg(*time, *side, "A", [next[*side], next[1 - side]], text);
        next[*side] += text.len() as u32;
    }
    film
}

fn told(film: &Film, settings: &Settings) -> Vec<(usize, u64, u32, usize, bool)> {
    let seen = Seen::of(&film.pcap(), settings);
    let line = |(data, payload): &(tap_common::record::Data, Vec<u8>)| {
        let begins = data.header.flags & flags::TURN != 0;
        (way(data), data.offset, data.segment_len, payload.len(), begins)
    };
    seen.data.iter().map(line).collect()
}

const TALK: [(u64, usize, &str); 7] = [
    (10, 0, "ask"),
    (11, 0, "more"),
    (12, 1, "reply"),
    (13, 1, "and"),
    (62, 1, "within"),
    (113, 1, "after"),
    (114, 0, "next"),
];

#[test]
fn a_turn_begins_where_the_direction_changes_or_was_silent() {
    let seen = Seen::of(&talk(&TALK).pcap(), &Settings::default());
    let turns: Vec<_> = seen
        .data
        .iter()
        .filter(|(data, _)| data.header.flags & flags::TURN != 0)
        .map(|(data, _)| (way(data), data.position, data.turn, data.previous_ns / 1_000_000))
        .collect();
    let wanted = [
        (TRANSMIT, 0, 1, 0),
        (RECEIVE, 0, 1, 0),
        // 51 ms after the last byte, but not 49.
        (RECEIVE, 14, 2, 62),
        (TRANSMIT, 7, 2, 11),
    ];
    assert_eq!(turns, wanted);
    assert_eq!((seen.open[0].turns, seen.open[0].sent), ([2, 2], [1, 4, 3]));
}

#[test]
fn heads_are_told_up_to_their_size_and_turns_beyond_it() {
    let settings = Settings { head: 6, ..Settings::default() };
    let wanted = [
        (TRANSMIT, 0, 3, 3, true),
        (TRANSMIT, 3, 4, 3, false),
        (RECEIVE, 0, 5, 5, true),
        (RECEIVE, 5, 3, 1, false),
        // "within" is neither head nor the begin of a turn.
        (RECEIVE, 14, 5, 0, true),
        (TRANSMIT, 7, 4, 0, true),
    ];
    assert_eq!(told(&talk(&TALK), &settings), wanted);
    let settings = Settings { head: 0, ..settings };
    let turns = [(TRANSMIT, 0, 3), (RECEIVE, 0, 5), (RECEIVE, 14, 5), (TRANSMIT, 7, 4)];
    assert_eq!(told(&talk(&TALK), &settings), turns.map(|(way, at, len)| (way, at, len, 0, true)));
}

#[test]
fn the_first_bytes_of_each_turn_are_told_if_wanted() {
    let settings = Settings { head: 0, payload_per_turn: 9, ..Settings::default() };
    let wanted = [
        (TRANSMIT, 0, 3, 3, true),
        (TRANSMIT, 3, 4, 4, false),
        (RECEIVE, 0, 5, 5, true),
        (RECEIVE, 5, 3, 3, false),
        (RECEIVE, 8, 6, 1, false),
        (RECEIVE, 14, 5, 5, true),
        (TRANSMIT, 7, 4, 4, true),
    ];
    assert_eq!(told(&talk(&TALK), &settings), wanted);
    // The head counts besides.
    let settings = Settings { head: 11, ..settings };
    assert_eq!(told(&talk(&TALK), &settings)[4], (RECEIVE, 8, 6, 3, false));
}

#[test]
fn payload_that_was_held_is_told_as_well() {
    let mut film = talk(&[(10, 0, "ask")]);
    film.seg(20, 1, "A", [4, 4], "def");
    film.seg(21, 1, "A", [7, 4], "ghi");
    film.seg(22, 1, "A", [1, 4], "abc");
    for settings in [
        Settings { head: 0, payload_per_turn: 8, ..Settings::default() },
        Settings { head: 8, ..Settings::default() },
    ] {
        let seen = Seen::of(&film.pcap(), &settings);
        assert_eq!(seen.stream(RECEIVE), "abcdefgh.", "{settings:?}");
        assert_eq!(seen.open[0].turns, [1, 1]);
    }
}

#[test]
fn a_long_segment_becomes_several_records() {
    let long = "x".repeat(PAYLOAD_MAX * 2 + 100);
    let film = talk(&[(10, 0, &long)]);
    let whole = u32::try_from(long.len()).unwrap();
    let max = u32::try_from(PAYLOAD_MAX).unwrap();
    // Heads only: what is not told shows in the last record, as live.
    assert_eq!(told(&film, &Settings::default()), [(TRANSMIT, 0, whole, PAYLOAD_MAX, true)]);
    let settings = Settings { payload_per_turn: PAYLOAD_MAX * 2 + 50, ..Settings::default() };
    let (one, two) = (u64::from(max), u64::from(max) * 2);
    let wanted = [
        (TRANSMIT, 0, max, PAYLOAD_MAX, true),
        (TRANSMIT, one, max, PAYLOAD_MAX, false),
        (TRANSMIT, two, 100, 50, false),
    ];
    assert_eq!(told(&film, &settings), wanted);
    let seen = Seen::of(&film.pcap(), &settings);
    assert!(seen.data.iter().all(|(data, _)| (data.position, data.turn) == (0, 1)));
}

#[test]
fn nobody_reads_what_is_encrypted() {
    let film = talk(&[(10, 0, "\u{16}\u{3}hello"), (20, 1, "hello"), (30, 0, "secret")]);
    let settings = Settings { head: 4, payload_per_turn: 1000, ..Settings::default() };
    let wanted = [(TRANSMIT, 0, 7, 4, true), (RECEIVE, 0, 5, 4, true), (TRANSMIT, 7, 6, 0, true)];
    assert_eq!(told(&film, &settings), wanted);
}

#[test]
fn turns_beyond_the_limit_are_counted() {
    let lines: Vec<_> = (0..10).map(|n| (10 + n, n as usize % 2, "word")).collect();
    let settings = Settings { head: 0, turns: 5, ..Settings::default() };
    let seen = Seen::of(&talk(&lines).pcap(), &settings);
    let open = &seen.open[0];
    assert_eq!((seen.data.len(), open.turns, open.sent), (5, [5, 5], [1, 2, 3]));
    assert_eq!(open.cut_at, [8, 12]);
    // The turns of a connection that is parsed are all told.
    let settings = Settings { payload_per_turn: 4, ..settings };
    assert_eq!(Seen::of(&talk(&lines).pcap(), &settings).data.len(), 10);
}

#[test]
fn missing_bytes_may_begin_a_turn() {
    let mut film = talk(&[(10, 0, "ask")]);
    // The answer's first segment was not captured.
    film.seg(20, 1, "A", [101, 4], "rest");
    film.seg(21, 0, "A", [4, 105], "");
    film.seg(1100, 0, "A", [4, 105], "");
    film.seg(1200, 0, "A", [4, 105], "ask");
    let wanted = [
        (TRANSMIT, 0, 3, 3, true),
        (RECEIVE, 0, 100, 0, true),
        (RECEIVE, 100, 4, 4, false),
        (TRANSMIT, 3, 3, 3, true),
    ];
    assert_eq!(told(&film, &Settings::default()), wanted);
}
