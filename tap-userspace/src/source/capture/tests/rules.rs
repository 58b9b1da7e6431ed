//! What TCP does, and what a capture does to it.

use tap_common::{
    record::{RECEIVE, TRANSMIT, flags},
    settings::Prefix,
};

use super::{Seen, wire::Film};
use crate::{protocol::noise::Noise, source::capture::Settings};

const SEEN: u16 = flags::ACTIVE | flags::SYN_SENT;
const BOTH: u16 = SEEN | flags::ESTABLISHED | flags::FIN_SENT | flags::FIN_RECEIVED;
pub const MS: u64 = 1_000_000;

/// A segment as `Film::seg` takes it.
pub type Line = (u64, usize, &'static str, [u32; 2], &'static str);

pub fn film(lines: &[Line]) -> Film {
    let mut film = Film::new();
    for (time, side, flags, at, payload) in lines {
        film.seg(*time, *side, flags, *at, payload);
    }
    film
}

/// The lines after a handshake at 0 to 2 ms.
pub fn after_handshake(lines: &[Line]) -> Film {
    let mut film = Film::new();
    film.handshake(0);
    for (time, side, flags, at, payload) in lines {
        film.seg(*time, *side, flags, *at, payload);
    }
    film
}

pub fn seen(film: &Film) -> Seen {
    Seen::of(&film.pcap(), &Settings::default())
}

/// Settings by which the server is this host.
fn server() -> Settings {
    let address = "::ffff:10.0.0.2".parse::<std::net::Ipv6Addr>().unwrap().octets();
    Settings { local: vec![Prefix { len: 128, address }], ..Settings::default() }
}

/// Request, answer, and an orderly end that the client begins.
pub const PLAIN: [Line; 7] = [
    (10, 0, "A", [1, 1], "GET"),
    (11, 1, "A", [1, 4], "answer"),
    (12, 0, "A", [4, 7], ""),
    (20, 0, "FA", [4, 7], ""),
    (21, 1, "FA", [7, 5], ""),
    (22, 0, "A", [5, 8], ""),
    (23, 1, "A", [8, 5], ""),
];

#[test]
fn a_connection_is_told_from_its_clients_side() {
    let seen = seen(&after_handshake(&PLAIN));
    let [open] = &seen.opens[..] else { panic!("{:?}", seen.opens) };
    assert_eq!((open.header.time_ns, open.connection.opened_ns), (MS, 0));
    assert_eq!((open.connection.local_isn, open.connection.remote_isn), (1000, 5000));
    let tuple = open.connection.tuple;
    assert_eq!((tuple.local_port, tuple.remote_port), (40_000, 80));
    assert_eq!(tuple.local[10..], [0xff, 0xff, 10, 0, 0, 1]);
    assert_eq!((seen.stream(TRANSMIT), seen.stream(RECEIVE)), ("GET".into(), "answer".into()));
    let close = seen.close();
    assert_eq!((close.bytes, close.turns, close.sent), ([6, 3], [1, 1], [2, 1, 1]));
    assert_eq!((close.connection.flags, close.error, close.old_state), (BOTH, 0, 5));
    assert_eq!((close.srtt_us, close.retransmits, close.unacknowledged), (2000, 0, 0));
    assert_eq!((close.header.time_ns, close.last_ns), (21 * MS, [11 * MS, 10 * MS]));
    assert_eq!((close.header.cookie, close.header.number, close.error_known), (1, 1, 1));
}

#[test]
fn a_connection_is_told_from_its_servers_side_if_that_is_local() {
    let seen = Seen::of(&after_handshake(&PLAIN).pcap(), &server());
    let open = &seen.opens[0];
    assert_eq!((open.header.time_ns, open.connection.opened_ns), (2 * MS, 2 * MS));
    assert_eq!((open.connection.local_isn, open.connection.remote_isn), (5000, 1000));
    assert_eq!(open.connection.tuple.local_port, 80);
    let close = seen.close();
    let fins = flags::FIN_SENT | flags::FIN_RECEIVED;
    assert_eq!((close.bytes, close.connection.flags), ([3, 6], flags::ESTABLISHED | fins));
    // LAST_ACK, until the client's last acknowledgment.
    assert_eq!((close.old_state, close.header.time_ns), (9, 22 * MS));
}

#[test]
fn every_end_is_told_as_the_kernel_tells_it() {
    let est = SEEN | flags::ESTABLISHED;
    let (sent, received) = (flags::FIN_SENT, flags::FIN_RECEIVED);
    let (reset, resets) = (flags::RST_RECEIVED, flags::RST_SENT);
    // After the handshake → flags, sk_err, state before CLOSE, unacknowledged
    type Row = (&'static str, &'static [Line], u16, u16, u8, u32);
    let rows: &[Row] = &[
        (
            "the server closes first",
            &[
                (10, 1, "FA", [1, 1], ""),
                (11, 0, "A", [1, 2], ""),
                (12, 0, "FA", [1, 2], ""),
                (13, 1, "A", [2, 2], ""),
            ],
            BOTH,
            0,
            9,
            0,
        ),
        (
            "both close at once",
            &[
                (10, 0, "FA", [1, 1], ""),
                (10, 1, "FA", [1, 1], ""),
                (11, 0, "A", [2, 2], ""),
                (11, 1, "A", [2, 2], ""),
            ],
            BOTH,
            0,
            11,
            0,
        ),
        ("the server resets", &[(10, 1, "RA", [1, 1], "")], est | reset, 104, 1, 0),
        ("the client resets", &[(10, 0, "R", [1, 0], "")], est | resets, 0, 1, 0),
        (
            "the server resets what was sent",
            &[(10, 0, "A", [1, 1], "data"), (11, 1, "RA", [1, 1], "")],
            est | reset,
            104,
            1,
            4,
        ),
        (
            "the server resets after its FIN",
            &[(10, 1, "FA", [1, 1], ""), (11, 0, "A", [1, 2], ""), (12, 1, "RA", [2, 1], "")],
            est | reset | received,
            32,
            8,
            0,
        ),
        (
            "the client resets what comes after its FIN",
            &[(10, 0, "FA", [1, 1], ""), (11, 1, "A", [1, 2], "late"), (12, 0, "R", [2, 0], "")],
            est | resets | sent,
            0,
            5,
            0,
        ),
        (
            "the last acknowledgment is missing",
            &[(10, 1, "FA", [1, 1], ""), (12, 0, "FA", [1, 2], "")],
            BOTH,
            0,
            9,
            1,
        ),
    ];
    for (name, lines, set, error, old, unacknowledged) in rows {
        let seen = seen(&after_handshake(lines));
        let close = seen.close();
        assert_eq!(close.connection.flags, *set, "{name}: {:#x}", close.connection.flags);
        assert_eq!((close.error, close.old_state), (*error, *old), "{name}");
        assert_eq!(close.unacknowledged, *unacknowledged, "{name}");
    }
}

#[test]
fn every_failed_connect_is_told_as_the_kernel_tells_it() {
    let (reset, resets) = (flags::RST_RECEIVED, flags::RST_SENT);
    let rows: &[(&str, &[Line], u16, u16, u64)] = &[
        ("refused", &[(0, 0, "S", [0, 0], ""), (1, 1, "RA", [0, 1], "")], SEEN | reset, 111, 1),
        (
            "taken back",
            &[(0, 0, "S", [0, 0], ""), (1, 1, "SA", [0, 1], ""), (2, 0, "R", [1, 0], "")],
            SEEN | resets,
            0,
            2,
        ),
        (
            "no answer for as long as Linux tries",
            &[(0, 0, "S", [0, 0], ""), (1000, 0, "S", [0, 0], ""), (127_001, 1, "A", [9, 9], "")],
            SEEN,
            110,
            127_000,
        ),
    ];
    for (name, lines, set, error, at) in rows {
        let seen = seen(&film(lines));
        let close = seen.close();
        assert!(seen.opens.is_empty(), "{name}");
        assert_eq!(
            (close.connection.flags, close.error, close.old_state),
            (*set, *error, 2),
            "{name}"
        );
        assert_eq!(close.header.time_ns, at * MS, "{name}");
        // The server's kernel has no socket for it.
        let seen = Seen::of(&film(lines).pcap(), &server());
        assert!(seen.closes.is_empty() && seen.open.is_empty(), "{name}");
    }
}

#[test]
fn what_is_open_at_the_end_is_a_snapshot() {
    let mut film = after_handshake(&PLAIN[..3]);
    film.ends[0].1 += 1;
    film.seg(50, 0, "S", [0, 0], "");
    film.ends[0].1 += 1;
    film.seg(60, 0, "S", [0, 0], "");
    film.seg(61, 1, "RA", [9, 9], ""); // of no connection: it acknowledges nothing that was sent
    let seen = seen(&film);
    let [open, connecting, other] = &seen.open[..] else { panic!("{:?}", seen.open) };
    assert_eq!(open.header.flags, flags::SNAPSHOT);
    assert_eq!(open.connection.flags, SEEN | flags::ESTABLISHED | flags::SNAPSHOT);
    assert_eq!((open.bytes, open.sent, open.header.time_ns), ([6, 3], [1, 1, 1], 61 * MS));
    assert_eq!(connecting.connection.flags, SEEN | flags::SNAPSHOT);
    assert_eq!((connecting.sent, connecting.connection.opened_ns), ([0; 3], 50 * MS));
    assert_eq!((other.header.cookie, seen.counts.out_of_window), (3, 1));
    assert!(seen.closes.is_empty());
}

#[test]
fn sequence_numbers_go_round() {
    for isn in [u32::MAX, u32::MAX - 1, u32::MAX - 5, 0x7fff_fffe] {
        let mut film = Film::new();
        film.isn = [isn, isn.wrapping_add(1)];
        film.handshake(0);
        PLAIN.iter().for_each(|(time, side, flags, at, text)| {
            film.seg(*time, *side, flags, *at, text);
        });
        let seen = seen(&film);
        assert_eq!((seen.close().bytes, seen.close().connection.flags), ([6, 3], BOTH), "{isn}");
        assert_eq!(seen.stream(RECEIVE), "answer");
    }
}

/// Six segments of the server, of which two overlap, and the client's acknowledgment.
const SPLIT: [Line; 6] = [
    (10, 1, "A", [1, 1], "abcd"),
    (10, 1, "A", [5, 1], "ef"),
    (10, 1, "A", [7, 1], "ghij"),
    (10, 1, "A", [9, 1], "ijklm"),
    (10, 1, "A", [14, 1], "n"),
    (10, 1, "FA", [15, 1], "op"),
];

#[test]
fn order_does_not_matter() {
    let mut noise = Noise::new(11);
    for _ in 0..300 {
        let mut lines = SPLIT;
        for at in (1..lines.len()).rev() {
            lines.swap(at, noise.below(at as u32 + 1) as usize);
        }
        let mut film = after_handshake(&lines);
        film.seg(11, 0, "FA", [1, 18], "");
        film.seg(12, 1, "A", [18, 2], "");
        let seen = seen(&film);
        assert_eq!(seen.stream(RECEIVE), "abcdefghijklmnop", "{lines:?}");
        assert_eq!((seen.close().bytes, seen.close().turns), ([16, 0], [1, 0]));
        assert_eq!(seen.close().connection.flags, BOTH);
    }
}

#[test]
fn packets_captured_twice_count_once() {
    for marked in [true, false] {
        let mut film = Film::new();
        film.marked = marked;
        film.handshake(0);
        for (time, side, flags, at, text) in PLAIN {
            film.seg(time, side, flags, at, text);
        }
        let once = seen(&film);
        // At once, in bursts, and (where the packets tell) on another host with a clock of its own.
        let delays: &[(u64, usize)] = &[(0, 1), (40, 1), (900, 4), (300_000, 1)];
        for (delay, burst) in &delays[..if marked { 4 } else { 3 }] {
            let mut twice = film.clone();
            twice.packets = film
                .packets
                .chunks(*burst)
                .flat_map(|packets| {
                    let late = |(time, packet): &(u64, Vec<u8>)| (time + delay, packet.clone());
                    [packets.to_vec(), packets.iter().map(late).collect()].concat()
                })
                .collect();
            let twice = seen(&twice);
            assert_eq!(twice.opens.len(), 1);
            let (a, b) = (once.close(), twice.close());
            assert_eq!((b.bytes, b.retransmits, b.sent), (a.bytes, 0, a.sent), "{delay} {marked}");
            assert_eq!((b.connection.flags, b.old_state), (a.connection.flags, a.old_state));
            // What comes after the end is not looked at.
            assert_eq!(twice.counts.copies, if *burst == 1 { 2 } else { 1 });
        }
    }
}

#[test]
fn what_is_sent_again_counts_as_retransmitted_by_its_end() {
    for marked in [true, false] {
        let mut film = Film::new();
        film.marked = marked;
        film.seg(0, 0, "S", [0, 0], "");
        film.seg(1000, 0, "S", [0, 0], "");
        film.seg(1001, 1, "SA", [0, 1], "");
        film.seg(1002, 0, "A", [1, 1], "");
        film.seg(1010, 0, "A", [1, 1], "one");
        film.seg(1020, 0, "A", [4, 1], "two");
        film.seg(1300, 0, "A", [1, 1], "one"); // again
        film.seg(1400, 0, "A", [1, 1], "onetwo3"); // again, with more
        film.seg(1410, 1, "A", [1, 8], "");
        film.seg(1420, 1, "A", [4, 8], "END"); // before the segment that was lost
        film.seg(1900, 1, "A", [1, 8], "THE"); // which the server sends again
        film.seg(2000, 0, "FA", [8, 7], "");
        film.seg(2300, 0, "FA", [8, 7], ""); // again
        let client = seen(&film);
        assert_eq!(client.open[0].retransmits, 3, "marked {marked}");
        assert_eq!((client.open[0].bytes, client.open[0].srtt_us), ([6, 7], 0));
        assert_eq!(
            (client.stream(TRANSMIT), client.stream(RECEIVE)),
            ("onetwo3".into(), "THEEND".into())
        );
        let server = Seen::of(&film.pcap(), &server());
        assert_eq!(server.open[0].retransmits, 1, "marked {marked}");
    }
}

#[test]
fn keep_alive_probes_are_no_data() {
    let mut film = after_handshake(&PLAIN[..3]);
    film.seg(5000, 0, "A", [3, 7], "");
    film.seg(5001, 1, "A", [7, 4], "");
    film.seg(9000, 0, "A", [3, 7], "?"); // with the byte that some systems send
    film.seg(9001, 1, "A", [7, 4], "");
    let seen = seen(&film);
    assert_eq!(
        (seen.open[0].bytes, seen.open[0].retransmits, seen.open[0].turns),
        ([6, 3], 0, [1, 1])
    );
}

#[test]
fn bytes_that_nobody_captured_are_missing_once_they_are_acknowledged() {
    let mut film = after_handshake(&[
        (10, 1, "A", [1, 1], "abc"),
        (11, 1, "A", [7, 1], "ghi"), // "def" was not captured
        (12, 0, "A", [1, 10], ""),
    ]);
    let early = seen(&film);
    // For now it may still come.
    assert_eq!((early.stream(RECEIVE), early.open[0].bytes[RECEIVE]), ("abc".into(), 3));
    // Within a second it does.
    let mut in_time = film.clone();
    in_time.seg(900, 0, "A", [1, 10], "");
    in_time.seg(1000, 1, "A", [4, 1], "def");
    assert_eq!(seen(&in_time).stream(RECEIVE), "abcdefghi");
    film.seg(1500, 1, "A", [10, 1], "jkl");
    let late = seen(&film);
    assert_eq!((late.stream(RECEIVE), late.open[0].bytes[RECEIVE]), ("abc...ghijkl".into(), 12));
    assert_eq!(late.counts.missing_bytes, 3);
    // The end of the connection is the end of waiting.
    film.packets.pop();
    film.seg(13, 1, "FA", [10, 1], "");
    film.seg(14, 0, "FA", [1, 11], "");
    film.seg(15, 1, "A", [11, 2], "");
    let ended = seen(&film);
    assert_eq!((ended.stream(RECEIVE), ended.close().bytes), ("abc...ghi".into(), [9, 0]));
    assert_eq!((ended.close().old_state, ended.close().connection.flags), (9, BOTH));
}

#[test]
fn bytes_that_did_not_arrive_are_not_received_but_are_sent() {
    // The first segment was lost for good; the connection is reset.
    let lines: &[Line] =
        &[(10, 1, "A", [4, 1], "def"), (11, 0, "A", [1, 1], ""), (12, 1, "RA", [7, 1], "")];
    let film = after_handshake(lines);
    assert_eq!(seen(&film).close().bytes, [0, 0]);
    assert_eq!(Seen::of(&film.pcap(), &server()).close().bytes, [0, 6]);
}

#[test]
fn a_cut_off_packet_counts_in_full() {
    let mut film = after_handshake(&PLAIN);
    film.snaplen = 20 + 32 + 2;
    let seen = seen(&film);
    assert_eq!((seen.close().bytes, seen.close().connection.flags), ([6, 3], BOTH));
    assert_eq!((seen.stream(TRANSMIT), seen.stream(RECEIVE)), ("GE.".into(), "an....".into()));
    // Not even all of the TCP header.
    film.snaplen = 20 + 20;
    assert_eq!(Seen::of(&film.pcap(), &Settings::default()).close().bytes, [6, 3]);
}

#[test]
fn segments_from_far_away_change_nothing() {
    let mut film = after_handshake(&PLAIN[..3]);
    film.seg(13, 1, "R", [2_000_000_000, 0], "");
    film.seg(14, 1, "R", [3, 0], ""); // of bytes that are long in order
    film.seg(15, 1, "A", [2_000_000_000, 4], "forged");
    film.seg(16, 1, "A", [7, 4], "!");
    let seen = seen(&film);
    assert_eq!((seen.open[0].bytes, seen.stream(RECEIVE)), ([7, 3], "answer!".into()));
    assert_eq!(seen.counts.out_of_window, 3);
}

#[test]
fn a_syn_that_comes_after_its_data_is_of_the_same_connection() {
    let mut film = after_handshake(&PLAIN);
    film.packets.swap(0, 3);
    let seen = seen(&film);
    assert_eq!((seen.opens.len(), seen.given_up.len(), seen.close().bytes), (1, 0, [6, 3]));
}

#[test]
fn time_that_goes_back_turns_no_connection_round() {
    let mut film = after_handshake(&PLAIN);
    for (at, packet) in film.packets.iter_mut().enumerate() {
        packet.0 = [9_000, 2_000, 5_000, 1_000][at % 4];
    }
    let seen = seen(&film);
    let close = seen.close();
    assert!(close.connection.opened_ns <= close.header.time_ns);
    assert_eq!((close.bytes, close.turns), ([6, 3], [1, 1]));
}

#[test]
fn the_number_of_connections_is_bounded_and_the_idle_go_first() {
    let mut film = Film::new();
    for port in 0..40 {
        film.ends[0].1 = 20_000 + port;
        film.handshake(u64::from(port) * 10);
        // The first connection stays in use.
        film.ends[0].1 = 20_000;
        film.seg(u64::from(port) * 10 + 5, 0, "A", [1 + u32::from(port), 1], "x");
    }
    let settings = Settings { connections: 16, ..Settings::default() };
    let seen = Seen::of(&film.pcap(), &settings);
    assert_eq!((seen.opens.len(), seen.open.len() + seen.given_up.len()), (40, 40));
    assert!(seen.open.len() <= 16 && seen.open.len() >= 13, "{}", seen.open.len());
    assert_eq!((seen.open[0].header.cookie, seen.open[0].bytes), (1, [0, 40]));
    let gone: Vec<_> = seen.given_up.iter().map(|close| close.header.cookie).collect();
    assert_eq!(gone, (2..2 + gone.len() as u64).collect::<Vec<_>>());
    assert_eq!(seen.counts.given_up, gone.len() as u64);
}

#[test]
fn ipv6_is_told_in_the_same_way() {
    let mut film = Film::new();
    film.ends = [("fd00::1".parse().unwrap(), 50_000), ("fd00::2".parse().unwrap(), 443)];
    film.handshake(0);
    PLAIN.iter().for_each(|(time, side, flags, at, text)| {
        film.seg(*time, *side, flags, *at, text);
    });
    let seen = seen(&film);
    assert_eq!((seen.close().bytes, seen.close().connection.flags), ([6, 3], BOTH));
    assert_eq!(seen.close().connection.tuple.local[..2], [0xfd, 0]);
}
