//! Captures made by real tools of real programs' connections, against what tshark says of them
//! (`fixtures/capture/README.md` tells how they were made).

use std::{collections::BTreeMap, net::Ipv6Addr};

use tap_common::{
    record::{Close, RECEIVE, TRANSMIT, flags},
    settings::Prefix,
};

use super::{Seen, wire};
use crate::{
    protocol::noise::Noise,
    source::capture::{Settings, file::Reader, fuzz_capture},
};

/// Captures of tap's own making stand beside those of the tools.
const ALL: [&str; 6] =
    ["lo.pcap", "any.pcapng", "snap.pcapng", "sll2.pcap", "loss.pcapng", "two.pcapng"];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../tests/fixtures/capture/{name}", env!("CARGO_MANIFEST_DIR")))
        .unwrap()
}

/// Client's and server's end → bytes of the client and of the server.
type List = BTreeMap<(String, String), [u64; 2]>;

/// What tshark lists.
fn tshark(name: &str) -> List {
    let text = String::from_utf8(fixture(&format!("{name}.tshark"))).unwrap();
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let [a, a_port, b, b_port, sent, received] = words[..] else { panic!("{line}") };
        let bytes = [sent.parse().unwrap(), received.parse().unwrap()];
        ((format!("{a} {a_port}"), format!("{b} {b_port}")), bytes)
    };
    text.lines().map(line).collect()
}

fn listed(seen: &Seen) -> List {
    let line = |close: &Close| {
        let tuple = &close.connection.tuple;
        let end = |address: [u8; 16], port: u16| {
            format!("{} {port}", Ipv6Addr::from(address).to_canonical())
        };
        let ends = (end(tuple.local, tuple.local_port), end(tuple.remote, tuple.remote_port));
        (ends, [close.bytes[TRANSMIT], close.bytes[RECEIVE]])
    };
    let list: List = seen.closes.iter().chain(&seen.open).map(line).collect();
    list
}

#[test]
fn connections_and_their_bytes_are_those_of_tshark() {
    for name in ALL {
        let seen = Seen::of(&fixture(name), &Settings::default());
        assert_eq!(listed(&seen), tshark(name), "{name}");
        assert_eq!(seen.closes.len() + seen.open.len(), tshark(name).len(), "{name}");
        assert_eq!(seen.error, None);
        let counts = seen.counts;
        assert_eq!(
            (counts.malformed, counts.unknown_link, counts.missing_bytes),
            (0, 0, 0),
            "{name}"
        );
        assert_eq!((counts.stray, counts.out_of_window, counts.given_up), (0, 0, 0), "{name}");
        assert!(seen.given_up.is_empty());
    }
}

#[test]
fn one_traffic_is_told_alike_from_every_kind_of_capture() {
    // `sll2.pcap` lacks the last packets.
    let of = |name: &str| {
        let seen = Seen::of(&fixture(name), &Settings::default());
        let mut all = [seen.closes, seen.open].concat();
        all.sort_by_key(|close| close.header.cookie);
        let line = |close: Close| {
            let set = close.connection.flags;
            (close.bytes, close.turns, set, close.error, close.old_state, close.retransmits)
        };
        all.into_iter().map(line).collect::<Vec<_>>()
    };
    let lo = of("lo.pcap");
    assert_eq!(lo.len(), 10);
    for name in ["any.pcapng", "snap.pcapng", "two.pcapng"] {
        assert_eq!(of(name), lo, "{name}");
    }
    assert_eq!(of("sll2.pcap")[..8], lo[..8]);
}

#[test]
fn what_the_kernel_sent_again_is_what_is_counted() {
    // In that network namespace 10.9.0.1 was the address of both programs; the kernel's counter
    // TcpRetransSegs stood at 7.
    let address = "::ffff:10.9.0.1".parse::<Ipv6Addr>().unwrap().octets();
    let settings = Settings { local: vec![Prefix { len: 128, address }], ..Settings::default() };
    let seen = Seen::of(&fixture("loss.pcapng"), &settings);
    let sum: u32 = seen.closes.iter().chain(&seen.open).map(|close| close.retransmits).sum();
    assert_eq!(sum, 7);
    // Captured twice, by two tools.
    let twice = Seen::of(&fixture("two.pcapng"), &Settings::default());
    let sum: u32 = twice.closes.iter().chain(&twice.open).map(|close| close.retransmits).sum();
    assert_eq!((sum, twice.counts.copies > 20), (1, true)); // the SYN that nobody answers
}

#[test]
fn what_was_said_is_told() {
    let seen = Seen::of(&fixture("lo.pcap"), &Settings::default());
    let said = |cookie: u64, direction: usize| {
        let of_it = seen.data.iter().filter(|(data, _)| data.header.cookie == cookie);
        let one = Seen { data: of_it.cloned().collect(), ..Seen::default() };
        one.stream(direction)
    };
    assert!(said(1, TRANSMIT).starts_with("GET /100 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"));
    assert!(said(1, RECEIVE).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(said(6, TRANSMIT), "hello\nagain\nand more\n");
    assert_eq!(said(6, RECEIVE), "hello\nagain\nand more\n");
    // All of a turn, in order, where it is wanted.
    let wanted = Settings { payload_per_turn: 1 << 20, ..Settings::default() };
    let whole = Seen::of(&fixture("lo.pcap"), &wanted);
    let told: usize = whole.data.iter().map(|(_, payload)| payload.len()).sum();
    let bytes: u64 = whole.closes.iter().chain(&whole.open).flat_map(|close| close.bytes).sum();
    assert_eq!(told as u64, bytes);
}

#[test]
fn ends_are_told_as_the_programs_made_them() {
    let seen = Seen::of(&fixture("lo.pcap"), &Settings::default());
    let of = |cookie: u64| {
        let close = seen.closes.iter().find(|close| close.header.cookie == cookie).unwrap();
        (
            close.error,
            close.old_state,
            close.connection.flags & (flags::RST_RECEIVED | flags::RST_SENT),
        )
    };
    assert_eq!(of(5), (111, 2, flags::RST_RECEIVED)); // nobody listens
    assert_eq!(of(7), (104, 1, flags::RST_RECEIVED)); // SO_LINGER 0 of the server
    assert_eq!(of(8), (0, 1, flags::RST_SENT)); // SO_LINGER 0 of the client
    assert_eq!(of(6), (0, 5, 0));
    assert_eq!(seen.dns.len(), 1);
    assert_eq!(seen.dns[0][12..20], *b"\x07example");
}

/// `lo.pcap` with its packets in the order of `at`, as raw IP.
fn reordered(at: impl Fn(usize) -> usize) -> Vec<u8> {
    let whole = fixture("lo.pcap");
    let mut reader = Reader::new(&whole[..]).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet().unwrap() {
        packets.push((at(packets.len()), packet.time_ns / 1000, packet.data.to_vec()));
    }
    packets.sort_by_key(|(at, ..)| *at);
    let mut file = wire::pcap_head(false, 1);
    for (_, time, data) in packets {
        file.extend(wire::pcap_packet(false, time, &data, data.len()));
    }
    file
}

#[test]
fn a_shuffled_capture_gives_the_same_bytes() {
    let noise = std::cell::RefCell::new(Noise::new(5));
    let wanted = tshark("lo.pcap");
    for reach in [2, 3, 5] {
        for _ in 0..20 {
            let bytes = reordered(|at| at + noise.borrow_mut().below(reach) as usize);
            let seen = Seen::of(&bytes, &Settings::default());
            let mut list = listed(&seen);
            // A reset or SYN that comes before what it followed may hide one.
            list.retain(|ends, bytes| wanted[ends] != *bytes);
            assert!(list.len() <= 2, "{reach}: {list:?}");
        }
    }
}

#[test]
fn a_capture_cut_off_anywhere_gives_its_good_part() {
    for name in ["lo.pcap", "snap.pcapng"] {
        let whole = fixture(name);
        let mut reader = Reader::new(&whole[..]).unwrap();
        let mut all = Vec::new();
        while let Some(packet) = reader.next_packet().unwrap() {
            all.push((packet.time_ns, packet.data.to_vec()));
        }
        for len in (0..whole.len()).step_by(7) {
            let Ok(mut reader) = Reader::new(&whole[..len]) else {
                assert!(len < 24, "{name} {len}");
                continue;
            };
            let mut read = 0;
            let error = loop {
                match reader.next_packet() {
                    Ok(Some(packet)) => {
                        assert_eq!((packet.time_ns, packet.data), (all[read].0, &all[read].1[..]));
                        read += 1;
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error.to_string()),
                }
            };
            if let Some(error) = error {
                assert!(error.starts_with(&format!("packet {}, offset ", read + 1)), "{error}");
                assert!(error.contains("is cut off"), "{error}");
            }
        }
    }
}

#[test]
fn any_bytes_are_survived() {
    let mut noise = Noise::new(77);
    let captures: Vec<_> = ALL.iter().map(|name| fixture(name)).collect();
    for round in 0..30_000 {
        let mut bytes = captures[round % captures.len()].clone();
        let few = noise.below(12_000) as usize + 24;
        bytes.truncate(few);
        noise.stir(&mut bytes);
        fuzz_capture(&bytes);
    }
}

#[test]
fn any_packets_are_survived() {
    // Whole files whose packets are stirred, each by itself, so that the noise gets past the
    // framing; times, ports and sequence numbers collide often.
    let mut noise = Noise::new(99);
    let captures = ["lo.pcap", "loss.pcapng", "sll2.pcap"].map(fixture);
    for round in 0..4_000 {
        let whole = &captures[round % 3];
        let mut reader = Reader::new(&whole[..]).unwrap();
        let mut file = Vec::new();
        let mut time = 0;
        while let Some(packet) = reader.next_packet().unwrap() {
            if file.is_empty() {
                file = wire::pcap_head(false, packet.link);
            }
            let mut data = packet.data[..packet.data.len().min(120)].to_vec();
            for _ in 0..noise.below(3) {
                match noise.below(4) {
                    0 => noise.stir(&mut data),
                    1 => {
                        // A flag, a bit of a sequence number, or a port.
                        let at = data.len().saturating_sub(1 + noise.below(60) as usize);
                        if let Some(byte) = data.get_mut(at) {
                            *byte ^= 1 << noise.below(8);
                        }
                    }
                    _ => {}
                }
            }
            time += u64::from(noise.below(1_000)) * [1, 1, 1, 300_000][noise.below(4) as usize];
            for _ in 0..=noise.below(8) / 7 {
                file.extend(wire::pcap_packet(false, time, &data, packet.original as usize));
            }
        }
        fuzz_capture(&file);
    }
}
