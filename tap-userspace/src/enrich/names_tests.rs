use super::*;
use crate::protocol::{exchange::Piece, noise::Noise};

const CLIENT: &str = "10.0.0.1:40000";
const SERVER: &str = "10.0.0.53:53";

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// A message with one question; `records` are owner, type, TTL and data.
fn message(flags: u16, name: &str, kind: u16, records: &[(&str, u16, u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [0x1234, flags, 1, records.len() as u16, 0, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend([wire(name), kind.to_be_bytes().into(), vec![0, 1]].concat());
    for (owner, kind, ttl, data) in records {
        bytes.extend(if *owner == name { vec![0xc0, 12] } else { wire(owner) });
        bytes.extend([kind.to_be_bytes(), [0, 1]].concat());
        bytes.extend(ttl.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

fn a(octets: [u8; 4]) -> Vec<u8> {
    octets.into()
}

/// A table that was asked and answered at `now_ns`.
fn learn(names: &mut Names, now_ns: u64, response: &[u8]) -> Result<usize, Refused> {
    let mut query = response.to_vec();
    query[2] &= 0x7f;
    names.query(&query, socket(CLIENT), socket(SERVER), now_ns).unwrap();
    names.answer(response, socket(SERVER), socket(CLIENT), now_ns)
}

/// What crossed loopback between dig, kdig or dnspython and dnsmasq (fixtures/dns/capture.sh).
fn captured() -> Vec<(bool, SocketAddr, SocketAddr, Vec<u8>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/dns/captured.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [protocol, from, to, hex] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let bytes = (0..hex.len()).step_by(2);
            let bytes = bytes.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            (protocol == "tcp", socket(from), socket(to), bytes.collect())
        })
        .collect()
}

#[test]
fn real_lookups_name_their_addresses() {
    let server = socket("127.0.0.1:5311");
    let mut names = Names::default();
    let mut learned = Vec::new();
    for (tcp, from, to, bytes) in captured() {
        let mut take = |packet: &[u8]| {
            if to == server {
                names.query(packet, from, to, 1).unwrap();
            } else {
                let found = names.answer(packet, from, to, 2);
                let name = names.name(address("192.0.2.210"), 3).map(str::to_owned);
                learned.push((found, name));
            }
        };
        if tcp {
            // Each segment of the capture holds whole messages.
            let mut stream = dns::DnsTcp::default();
            bytes.chunks(7).for_each(|piece| stream.take(Piece::Bytes(piece), &mut take));
        } else {
            take(&bytes);
        }
    }
    let api = Some("api.example.test".to_owned());
    let shop = Some("shop.example.test".to_owned());
    let expected = [
        (Ok(2), api.clone()),
        // Asked for in mixed case, AAAA.
        (Ok(1), api.clone()),
        // Two aliases away.
        (Ok(2), shop.clone()),
        // Truncated without EDNS, twice, then whole over TCP.
        (Ok(30), shop.clone()),
        (Ok(30), shop.clone()),
        (Ok(100), shop.clone()),
        (Ok(2), api.clone()),
        // HTTPS with two hints of IPv4 and one of IPv6.
        (Ok(3), api.clone()),
        (Err(Refused::Failed(3)), api.clone()),
        // Blocked by 0.0.0.0.
        (Ok(0), api.clone()),
        (Ok(1), api),
        // Two lookups on one TCP connection.
        (Ok(2), shop.clone()),
        (Ok(1), shop.clone()),
        (Ok(1), shop),
    ];
    assert_eq!(learned, expected);
    let known = [
        ("192.0.2.1", Some("many.test")),
        ("192.0.2.100", Some("many.test")),
        ("192.0.2.211", Some("shop.example.test")),
        ("::ffff:192.0.2.211", Some("shop.example.test")),
        ("2001:db8::210", Some("www.example.test")),
        ("198.51.100.1", Some("svc.test")),
        ("198.51.100.2", Some("svc.test")),
        ("2001:db8::101", Some("svc.test")),
        ("2001:db8::7", Some("any.wild.test")),
        ("198.51.100.7", Some("a\\.b\\007c.wild.test")),
        ("192.0.2.101", None),
        ("0.0.0.0", None),
        ("127.0.0.1", None),
    ];
    for (ip, name) in known {
        assert_eq!(names.name(address(ip), 3), name, "{ip}");
    }
}

#[test]
fn a_cut_response_is_read_as_far_as_it_goes() {
    for (tcp, _, to, bytes) in captured() {
        if tcp || to.port() == 5311 {
            continue;
        }
        let question = Message::read(&bytes).unwrap().answers_end();
        let mut last = 0;
        for len in 0..=bytes.len() {
            let mut names = Names::default();
            let mut query = bytes.clone();
            query[2] &= 0x7f;
            names.query(&query, socket(CLIENT), socket(SERVER), 0).unwrap();
            match names.answer(&bytes[..len], socket(SERVER), socket(CLIENT), 0) {
                Err(Refused::Malformed) => assert!(len < question),
                Ok(learned) => {
                    assert!((last..=last + 3).contains(&learned));
                    last = learned;
                }
                Err(error) => assert_eq!(error, Refused::Failed(3)),
            }
        }
    }
}

impl Message<'_> {
    /// Where the question ends.
    fn answers_end(&self) -> usize {
        Message::NAME_AT + self.name.wire().len() + 4
    }
}

#[test]
fn only_what_was_asked_is_believed() {
    let query = message(0x0100, "a.test", dns::A, &[]);
    let answer =
        |flags, name, kind| message(flags, name, kind, &[(name, dns::A, 60, a([1, 2, 3, 4]))]);
    let good = answer(0x8180, "a.test", dns::A);
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let mut other_class = good.clone();
    other_class[Message::NAME_AT + 8 + 3] = 3;
    let s = SERVER;
    let c = CLIENT;
    let unasked = Err(Refused::Unasked);
    let cases = [
        ("asked", &good, s, c, 0, Ok(1)),
        ("other case", &answer(0x8180, "A.Test", dns::A), s, c, 0, Ok(1)),
        ("mapped address", &good, "[::ffff:10.0.0.53]:53", c, 0, Ok(1)),
        ("in time", &good, s, c, ANSWER_NS, Ok(1)),
        ("before the query", &good, s, c, u64::MAX, Ok(1)),
        ("late", &good, s, c, ANSWER_NS + 1, unasked),
        ("other id", &other_id, s, c, 0, unasked),
        ("other name", &answer(0x8180, "b.test", dns::A), s, c, 0, unasked),
        ("other type", &answer(0x8180, "a.test", dns::AAAA), s, c, 0, unasked),
        ("other class", &other_class, s, c, 0, unasked),
        ("other server", &good, "10.0.0.54:53", c, 0, unasked),
        ("other server port", &good, "10.0.0.53:54", c, 0, unasked),
        ("other client", &good, s, "10.0.0.2:40000", 0, unasked),
        ("other client port", &good, s, "10.0.0.1:40001", 0, unasked),
        ("not swapped", &good, c, s, 0, unasked),
        ("a query", &query, s, c, 0, Err(Refused::Kind)),
        ("a notification", &answer(0xa180, "a.test", dns::A), s, c, 0, Err(Refused::Kind)),
        ("no such name", &answer(0x8183, "a.test", dns::A), s, c, 0, Err(Refused::Failed(3))),
        ("multicast", &good, "10.0.0.53:5353", c, 0, Err(Refused::Multicast)),
        ("short", &good[..11].to_vec(), s, c, 0, Err(Refused::Malformed)),
        ("empty", &Vec::new(), s, c, 0, Err(Refused::Malformed)),
    ];
    for (name, packet, from, to, after, expected) in cases {
        let mut names = Names::default();
        let asked = 100 * SECOND;
        names.query(&query, socket(c), socket(s), asked).unwrap();
        let now = asked.wrapping_add(after);
        assert_eq!(names.answer(packet, socket(from), socket(to), now), expected, "{name}");
        let known = names.name(address("1.2.3.4"), now);
        assert_eq!(known.is_some(), expected.is_ok(), "{name}");
        if expected.is_ok() {
            assert_eq!(
                names.answer(packet, socket(from), socket(to), now),
                unasked,
                "{name} twice"
            );
        }
    }
    let mut names = Names::default();
    assert_eq!(names.query(&good, socket(c), socket(s), 0), Err(Refused::Kind));
    assert_eq!(
        names.query(&query, socket(c), socket("10.0.0.53:5353"), 0),
        Err(Refused::Multicast)
    );
    assert_eq!(names.query(&query[..20], socket(c), socket(s), 0), Err(Refused::Malformed));
    let mut two = query;
    two[5] = 2;
    assert_eq!(names.query(&two, socket(c), socket(s), 0), Err(Refused::Malformed));
}

#[test]
fn a_flood_of_queries_leaves_the_latest() {
    let mut names = Names::default();
    let mut query = message(0x0100, "a.test", dns::A, &[]);
    for id in 0..u16::MAX {
        query[..2].copy_from_slice(&id.to_be_bytes());
        names.query(&query, socket(CLIENT), socket(SERVER), 0).unwrap();
    }
    assert!(names.queries.values().count() <= QUERIES_MAX);
    let mut response =
        message(0x8180, "a.test", dns::A, &[("a.test", dns::A, 60, a([1, 2, 3, 4]))]);
    response[..2].copy_from_slice(&(u16::MAX - QUERIES_MAX as u16 / 2).to_be_bytes());
    assert_eq!(names.answer(&response, socket(SERVER), socket(CLIENT), 0), Ok(1));
    response[..2].copy_from_slice(&[0, 0]);
    let refused = names.answer(&response, socket(SERVER), socket(CLIENT), 0);
    assert_eq!(refused, Err(Refused::Unasked));
}

#[test]
fn addresses_belong_to_the_question_along_its_aliases() {
    let hints = |priority: u8, target: &str| {
        let keys = [0, 1, 0, 3, 2, b'h', b'2', 0, 4, 0, 4, 1, 2, 3, 4, 0, 6, 0, 17];
        [&[0, priority], wire(target).as_slice(), &keys, &[9; 17]].concat()
    };
    let (cname, https) = (dns::CNAME, dns::HTTPS);
    type Case<'a> = (&'a str, &'a str, u16, Vec<(&'a str, u16, u32, Vec<u8>)>, Option<&'a str>);
    let cases: &[Case<'_>] = &[
        ("plain", "a.t", dns::A, vec![("a.t", dns::A, 9, a([1, 2, 3, 4]))], Some("a.t")),
        (
            "aliases",
            "a.t",
            dns::A,
            vec![
                ("a.t", cname, 9, wire("b.t")),
                ("b.t", cname, 9, wire("c.u")),
                ("C.u", dns::A, 9, a([1, 2, 3, 4])),
            ],
            Some("a.t"),
        ),
        (
            "an alias of something else",
            "a.t",
            dns::A,
            vec![("x.t", cname, 9, wire("b.t")), ("b.t", dns::A, 9, a([1, 2, 3, 4]))],
            None,
        ),
        (
            "an address of something else",
            "a.t",
            dns::A,
            vec![("b.t", dns::A, 9, a([1, 2, 3, 4]))],
            None,
        ),
        ("a loop", "a.t", dns::A, vec![("a.t", cname, 9, wire("a.t")); 9], None),
        ("an alias that is broken", "a.t", dns::A, vec![("a.t", cname, 9, vec![0xc0])], None),
        ("too short", "a.t", dns::A, vec![("a.t", dns::A, 9, vec![1, 2, 3])], None),
        ("too long", "a.t", dns::A, vec![("a.t", dns::A, 9, vec![1, 2, 3, 4, 5])], None),
        ("hints", "a.t", https, vec![("a.t", https, 9, hints(1, "x.y"))], Some("a.t")),
        (
            "hints, own port",
            "_1._https.a.t",
            https,
            vec![("_1._https.a.t", https, 9, hints(1, "a.t"))],
            Some("a.t"),
        ),
        ("a service's alias", "a.t", https, vec![("a.t", https, 9, hints(0, "x.y"))], None),
        (
            "discovery",
            "_dns.resolver.arpa",
            dns::SVCB,
            vec![("_dns.resolver.arpa", dns::SVCB, 9, hints(1, "x.y"))],
            None,
        ),
        (
            "mapped",
            "a.t",
            dns::AAAA,
            vec![(
                "a.t",
                dns::AAAA,
                9,
                "1.2.3.4".parse::<Ipv4Addr>().unwrap().to_ipv6_mapped().octets().into(),
            )],
            Some("a.t"),
        ),
    ];
    for (name, question, kind, records, expected) in cases {
        let mut names = Names::default();
        let response = message(0x8180, question, *kind, records);
        let learned = learn(&mut names, 0, &response);
        assert_eq!(learned, Ok(usize::from(expected.is_some())), "{name}");
        let named = names.name(address("1.2.3.4"), 0);
        assert_eq!(named, *expected, "{name}");
    }
}

#[test]
fn addresses_that_are_nobodys_get_no_name() {
    for ip in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 251], [255, 255, 255, 255]] {
        let mut names = Names::default();
        let response = message(0x8180, "a.t", dns::A, &[("a.t", dns::A, 9, a(ip))]);
        assert_eq!(learn(&mut names, 0, &response), Ok(0));
    }
}

#[test]
fn names_live_for_their_ttl_within_bounds_and_a_grace() {
    let cases = [(0, 10), (9, 10), (60, 60), (86_400, 3_600), (0x8000_0000, 10)];
    for (ttl, lives) in cases {
        let mut names = Names::default();
        let response = message(0x8180, "a.t", dns::A, &[("a.t", dns::A, ttl, a([1, 2, 3, 4]))]);
        learn(&mut names, SECOND, &response).unwrap();
        let until = SECOND + lives * SECOND + GRACE_NS;
        assert_eq!(names.name(address("1.2.3.4"), until), Some("a.t"), "{ttl}");
        assert_eq!(names.name(address("1.2.3.4"), until + 1), None, "{ttl}");
    }
    // The least of the chain's.
    let mut names = Names::default();
    let chain = [("a.t", dns::CNAME, 20, wire("b.t")), ("b.t", dns::A, 900, a([1, 2, 3, 4]))];
    learn(&mut names, 0, &message(0x8180, "a.t", dns::A, &chain)).unwrap();
    assert_eq!(names.name(address("1.2.3.4"), 20 * SECOND + GRACE_NS + 1), None);
    // The clock's end is no overflow.
    learn(&mut names, u64::MAX, &message(0x8180, "a.t", dns::A, &chain)).unwrap();
    assert_eq!(names.name(address("1.2.3.4"), u64::MAX), Some("a.t"));
}

#[test]
fn the_latest_answer_wins() {
    let mut names = Names::default();
    for name in ["a.t", "b.t", "a.t", "c.t"] {
        let response = message(0x8180, name, dns::A, &[(name, dns::A, 9, a([1, 2, 3, 4]))]);
        learn(&mut names, 0, &response).unwrap();
        assert_eq!(names.name(address("1.2.3.4"), 0), Some(name));
    }
}

#[test]
fn the_table_is_bounded_and_keeps_what_is_used() {
    let mut names = Names::default();
    let used = address("1.2.3.4");
    let name = [&"\0".repeat(60), "t"].join(".");
    learn(&mut names, 0, &message(0x8180, &name, dns::A, &[(&name, dns::A, 9, a([1, 2, 3, 4]))]))
        .unwrap();
    let mut most = 0;
    for n in 0..4 * ADDRESSES_MAX as u32 {
        let ip = (10 << 24 | n).to_be_bytes();
        learn(&mut names, 0, &message(0x8180, &name, dns::A, &[(&name, dns::A, 9, a(ip))]))
            .unwrap();
        if n.is_multiple_of(1000) {
            assert!(names.name(used, 0).is_some(), "used again and again");
        }
        most = most.max(names.addresses.values().count());
    }
    assert!((ADDRESSES_MAX / 2..=ADDRESSES_MAX).contains(&most), "{most}");
    assert!(names.name(address("10.0.0.0"), 0).is_none());
    let last = 4 * ADDRESSES_MAX as u32 - 1;
    for n in last - ADDRESSES_MAX as u32 / 4..=last {
        assert!(names.name(Ipv4Addr::from(10 << 24 | n).into(), 0).is_some());
    }
    assert!(names.memory() < 8 << 20, "{}", names.memory());
}

#[test]
fn noise_keeps_the_bounds() {
    let mut noise = Noise::new(17);
    let captured = captured();
    for round in 0..30_000 {
        let (tcp, _, _, bytes) = &captured[round % captured.len()];
        let mut bytes = bytes[if *tcp { 2 } else { 0 }..].to_vec();
        noise.stir(&mut bytes);
        if noise.below(4) == 0 {
            // Framed, in pieces of each byte's length.
            let len = bytes.len() as u16;
            bytes.splice(..0, len.to_be_bytes());
            bytes = bytes
                .chunks(200)
                .flat_map(|piece| [&[piece.len() as u8], piece].concat())
                .collect();
        }
        fuzz_names(&bytes);
    }
}
