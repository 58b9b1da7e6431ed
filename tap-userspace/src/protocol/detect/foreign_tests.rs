//! Heads of other protocols, and noise: what must not be known.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, time::Instant};

use super::{fields::is_text, tests::cases, *};
use crate::protocol::noise::Noise;

/// Client and server of protocols that are not known here.
const OTHERS: &[(&[u8], &[u8])] = &[
    (b"OPTIONS rtsp://example.org/x RTSP/1.0\r\n", b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n"),
    (b"DESCRIBE rtsp://example.org/x RTSP/1.0\r\n", b"RTSP/1.0 200 OK\r\n"),
    (b"REGISTER sip:example.org SIP/2.0\r\n", b"SIP/2.0 401 Unauthorized\r\n"),
    (b"OPTIONS sip:a@example.org SIP/2.0\r\n", b"SIP/2.0 200 OK\r\n"),
    (b"OPTIONS icap://a.example/s ICAP/1.0\r\n", b"ICAP/1.0 200 OK\r\n"),
    (b"REQMOD icap://a.example/s ICAP/1.0\r\n", b"ICAP/1.0 204 x\r\n"),
    (b"NICK a\r\nUSER a 0 * :A\r\n", b":irc.example.org NOTICE * :*** Looking up\r\n"),
    (b"CAP LS 302\r\nNICK a\r\n", b"PING :123\r\n"),
    (b"PASS x\r\n", b"NOTICE AUTH :***\r\n"),
    (b"<?xml version='1.0'?><stream:stream to='x'>", b"<?xml version='1.0'?><stream:stream>"),
    (b"/about\r\n", b"iWelcome\t\t\t70\r\n"),
    (b"ZBXD\x01\x0d\0\0\0\0\0\0\0agent.version", b"ZBXD\x01\x05\0\0\0\0\0\0\x006.0.1"),
    (b"\xff\xfd\x03\xff\xfb\x18", b"\xff\xfd\x18\xff\xfd\x20login: "),
    (b"CONNECT\naccept-version:1.2\nhost:x\n\n\0", b"CONNECTED\nversion:1.2\n\n\0"),
    (b"put 0 0 60 5\r\nhello\r\n", b"INSERTED 1\r\n"),
    (b"delete 5\r\n", b"DELETED\r\n"),
    (b"stats\r\n", b"OK 120\r\n---\n"),
    (b"ruok", b"imok"),
    (b"MODE READER\r\n", b"200 news.example.org ready\r\n"),
    (b"LHLO me\r\n", b"220 lmtp.example.org ready\r\n"),
    (b"#hello\r\n", b"220 x\r\n"),
    (b"AUTHENTICATE \"PLAIN\"\r\n", b"\"IMPLEMENTATION\" \"Dovecot Pigeonhole\"\r\n"),
    (b"@RSYNCD: 31.0\n", b"@RSYNCD: 31.0\n"),
    (b"RFB 003.008\n", b"RFB 003.008\n"),
    (b"0032git-upload-pack /p.git\0host=x\0", b"00a0e0 HEAD\0"),
    (b"example.org\r\n", b"% IANA WHOIS server\r\n"),
    (b"<34>1 2003-10-11T22:14:15Z mymachine su - - - x\n", b"\0"),
    (b"GET key\r\n", b"key value\r\n"),
    (b"get key\r\n", b"404\r\n"),
    (b"version\r\n", b"beanstalk 1\r\n"),
    // ZooKeeper's connect request, whose zeros could be Kafka's.
    (
        b"\0\0\0\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x75\x30\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0\0",
        b"\0\0\0\x25\0\0\0\0\0\0\x75\x30\x01\0\0\x10",
    ),
    // Thrift (framed), Pulsar, Oracle TNS, TDS prelogin, Modbus, S7's COTP, RTMP, SOCKS.
    (b"\0\0\0\x1c\x80\x01\0\x01\0\0\0\x04ping\0\0\0\0\0\0\0\0\0\0", b"\0\0\0\x11\x80\x01\0\x02"),
    (
        b"\0\0\0\x1f\0\0\0\x1b\x08\x02\x12\x17\x0a\x06client\x18\x00",
        b"\0\0\0\x0e\0\0\0\x0a\x08\x03",
    ),
    (b"\0\xf2\0\0\x01\0\0\0\x01\x36\x01\x2c\0\0\x08\0\x7f\xff", b"\0\x08\0\0\x0b\0\0\0"),
    (b"\x12\x01\0\x2f\0\0\x01\0\0\0\x1a\0\x06\x01\0\x20\0\x01\x02", b"\x04\x01\0\x2b\0\0\x01\0"),
    (b"\0\x01\0\0\0\x06\x01\x03\0\0\0\x0a", b"\0\x01\0\0\0\x17\x01\x03\x14"),
    (
        b"\x03\0\0\x16\x11\xe0\0\0\0\x01\0\xc0\x01\x0a\xc1\x02\x01\0\xc2\x02\x01\x02",
        b"\x03\0\0\x16\x11\xd0\0\x01\0\x02\0\xc0\x01\x0a\xc1\x02\x01\0",
    ),
    (b"\x03\0\0\0\0\0\0\0\0\x12\x34\x56", b"\x03\0\0\0\0\0\0\0\0\xab\xcd"),
    (b"\x05\x01\0", b"\x05\0"),
    (b"\x04\x01\0\x50\x0a\0\0\x01\0", b"\0\x5a\0\0\0\0\0\0"),
    // SNMP over TCP, Kerberos, BGP, DICOM, Diameter, LPD, OpenVPN, Neo4j's Bolt, Java RMI.
    (b"\x30\x26\x02\x01\x01\x04\x06public\xa0\x19\x02\x04", b"\x30\x26\x02\x01\x01\x04\x06public"),
    (b"\0\0\0\xb0\x6a\x81\xad\x30\x81\xaa\xa1\x03\x02\x01\x05", b"\0\0\0\x60\x7e\x5e"),
    (
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\x1d\x01\x04",
        b"\xff\xff",
    ),
    (b"\x01\0\0\0\0\xcd\0\x01\0\0ANY-SCP         ", b"\x02\0\0\0\0\xb8\0\x01\0\0"),
    (b"\x01\0\0\xc8\x80\0\x01\x01\0\0\0\0", b"\x01\0\0\xc8\0\0\x01\x01\0\0\0\0"),
    (b"\x02lp\n", b"\0"),
    (b"\0\x0e\x38\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0", b"\0\x1a\x40\x01\x02\x03\x04\x05"),
    (b"\x60\x60\xb0\x17\0\0\x04\x04\0\0\0\x04", b"\0\0\x04\x04"),
    (b"JRMI\0\x02\x4b", b"\x4e\0\x09127.0.0.1"),
    // Framed numbers, as many home-made protocols have them.
    (b"\0\0\0\x04\0\0\0\0\0\0\0\x04\0\0\0\x01", b"\0\0\0\x04\0\0\0\0\0\0\0\x04\0\0\0\x01"),
    (b"\x04\0\0\0\x05\0\0\0\0\0\0\0", b"\x04\0\0\0\x01\0\0\0\0"),
    (b"\x10\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0", b"\x10\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\0\0"),
    (b"\0\0\0\x10\0\x01\0\x01\0\0\0\x01\0\0\0\0\0\0\0\0", b"\0\0\0\x08\0\0\0\x01\0\0\0\0"),
    (&[0; 64], &[0; 64]),
    (&[0xff; 64], &[0xff; 64]),
    (&[0x41; 64], &[0x41; 64]),
];

/// What is nearly a head of one that is known.
const NEARLY: &[(&[u8], &[u8])] = &[
    (b"PING\r\n", b"PONG\r\n"),
    (b"INFO all\r\n", b"ok\r\n"),
    (b"*abc\r\n", b"+OK x\r\n"),
    (b"*1\r\n:5\r\n", b"x"),
    (b"*0\r\n$4\r\nPING\r\n", b"x"),
    (b"*1\r\n$4\r\nPI\r\n\r\n", b"x"),
    (b"$4\r\nPING\r\n", b"x"),
    (b"hello\r\n", b"+OK\r\n"),
    (b"GET foo HTTP/1.1\r\n", b"x"),
    (b"GET  / HTTP/1.1\r\n", b"x"),
    (b"GET / HTTP/2.0\r\n", b"x"),
    (b"GET /\r\n", b"<html>"),
    (b"GET /\x00\x01 HTTP/1.1\r\n", b"x"),
    (b"get / HTTP/1.1\r\n", b"x"),
    (b"OPTIONS *x HTTP/1.1\r\n", b"x"),
    (b"CONNECT /x HTTP/1.1\r\n", b"x"),
    (b"\r\n\r\n\r\n\r\n\r\n", b"x"),
    (b"x", b"HTTP/2.0 200\r\n"),
    (b"x", b"HTTP/1.1 2x0 OK\r\n"),
    (b"x", b"HTTP/1.1 2000 OK\r\n"),
    (b"PRI * HTTP/2.0\r\n\r\nXX", b"x"),
    (b"SSH-3.0-x\r\n", b"x"),
    (b"AMQP\x05\x01\0\0", b"x"),
    // An SSLv2-compatible hello, and things that are nearly a TLS one.
    (b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10", b"x"),
    (b"\x16\x02\x01\x00\x40\x01\x00\x00\x3c\x03\x03", b"x"),
    (b"\x16\x03\x05\x00\x40\x01\x00\x00\x3c\x03\x03", b"x"),
    (b"\x16\x03\x01\x00\x00\x01\x00\x00\x3c\x03\x03", b"x"),
    (b"\x16\x03\x01\x50\x00\x01\x00\x00\x3c\x03\x03", b"x"),
    (b"\x16\x03\x01\x00\x40\x03\x00\x00\x3c\x03\x03", b"x"),
    (b"\x16\x03\x01\x00\x40\x01\x01\x00\x3c\x03\x03", b"x"),
    (b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x02\x00", b"x"),
    (b"\x15\x03\x03\x00\x02\x02\x28", b"\x17\x03\x03\x00\x20\x01\x00\x00\x3c\x03\x03"),
];

#[test]
fn other_protocols_are_unknown() {
    for (client, server) in OTHERS.iter().chain(NEARLY) {
        let shown = String::from_utf8_lossy(client);
        // Short ones could still become something.
        let [long, answer] = [client, server].map(|head| [head, &[0xee; 40][..]].concat());
        assert_eq!(detect(&long, &answer), Detection::Unknown, "{shown}");
        assert_eq!(detect(&answer, &long), Detection::Unknown, "{shown}");
        for end in 0..client.len() {
            let found = detect(&client[..end], server);
            assert!(!matches!(found, Detection::Known(_)), "{found:?} in {end} bytes of {shown}");
        }
    }
}

// === Noise ===

#[test]
fn noise_is_never_trouble() {
    let mut noise = Noise::new(0x7461_7002);
    let cases = cases();
    let mut bytes = Vec::new();
    for n in 0..100_000 {
        bytes.clear();
        let case = &cases[n % cases.len()];
        let (client, server) = match n % 3 {
            0 => (&case.client[..], &case.server[..]),
            1 => OTHERS[n / 3 % OTHERS.len()],
            _ => (&[][..], &case.server[..]),
        };
        let cut = client.len() / 4;
        bytes.push(cut as u8);
        bytes.extend_from_slice(&client[..4 * cut]);
        bytes.extend_from_slice(server);
        noise.stir(&mut bytes);
        fuzz_detect(&bytes);
    }
}

#[derive(Clone, Copy, Debug)]
enum Garbage {
    /// Any bytes.
    Random,
    /// Half of the bytes zero, many of the others small.
    Numbers,
    /// Other protocols' lines, changed.
    Lines,
}

fn garbage(kind: Garbage, noise: &mut Noise, head: &mut Vec<u8>) {
    head.clear();
    match kind {
        Garbage::Random => head.extend((0..LOOK).map(|_| noise.byte())),
        Garbage::Numbers => head.extend((0..LOOK).map(|_| match noise.below(8) {
            0..4 => 0,
            4..7 => noise.byte() & 0x1f,
            _ => noise.byte(),
        })),
        Garbage::Lines => {
            let is_line = |line: &[u8]| {
                line.iter().all(|byte| is_text(*byte) || matches!(byte, b'\r' | b'\n'))
            };
            let lines = || {
                OTHERS
                    .iter()
                    .flat_map(|(client, server)| [*client, *server])
                    .filter(|it| is_line(it))
            };
            let at = noise.below(lines().count() as u32) as usize;
            head.extend(lines().nth(at).into_iter().flatten());
            for _ in 0..=noise.below(6) {
                let printable = b' ' + noise.below(95) as u8;
                let place = noise.below(head.len() as u32) as usize;
                match noise.below(4) {
                    0 => head.insert(place, printable),
                    1 if head.len() > 1 => drop(head.remove(place)),
                    _ => head[place] = printable,
                }
            }
            head.extend_from_slice(b"\r\n");
        }
    }
}

/// How often garbage in both directions is taken for each protocol.
fn mistaken(kind: Garbage, heads: usize) -> BTreeMap<&'static str, usize> {
    let mut noise = Noise::new(0x7461_7005);
    let mut found = BTreeMap::new();
    let [mut receive, mut transmit] = [Vec::new(), Vec::new()];
    for _ in 0..heads {
        garbage(kind, &mut noise, &mut receive);
        garbage(kind, &mut noise, &mut transmit);
        if let Detection::Known(detected) = detect(&receive, &transmit) {
            if std::env::var_os("SHOW").is_some() {
                println!(
                    "{detected:?} {:?} {:?}",
                    receive.escape_ascii().to_string(),
                    transmit.escape_ascii().to_string()
                );
            }
            *found.entry(detected.protocol.event_name()).or_default() += 1;
        }
    }
    found
}

#[test]
fn garbage_is_not_mistaken() {
    assert_eq!(mistaken(Garbage::Random, 50_000), BTreeMap::new());
    // One letter makes LMTP's hello that of SMTP.
    for (kind, most) in [(Garbage::Numbers, 2), (Garbage::Lines, 10)] {
        let found = mistaken(kind, 50_000);
        assert!(found.values().all(|count| *count <= most), "{kind:?} {found:?}");
    }
}

#[test]
#[ignore = "a measurement; --release --nocapture"]
fn rates_of_mistakes() {
    for kind in [Garbage::Random, Garbage::Numbers, Garbage::Lines] {
        println!("{kind:?}: of 1,000,000 {:?}", mistaken(kind, 1_000_000));
    }
}

#[test]
#[ignore = "a measurement; --release --nocapture"]
fn time_of_a_look() {
    const TIMES: u32 = 200_000;
    let time = |name: &str, receive: &[u8], transmit: &[u8]| {
        let begun = Instant::now();
        for _ in 0..TIMES {
            std::hint::black_box(detect(
                std::hint::black_box(receive),
                std::hint::black_box(transmit),
            ));
        }
        let spent = begun.elapsed().as_nanos() / u128::from(TIMES);
        println!("{name:28} {spent:5} ns  {:?}", detect(receive, transmit));
    };
    let mut seen = BTreeMap::new();
    for case in cases() {
        let nth: &mut usize = seen.entry(case.protocol.clone()).or_default();
        *nth += 1;
        if *nth == 1 {
            time(&format!("{} {}", case.protocol, case.name), &case.client, &case.server);
            time(&format!("{} {} alone", case.protocol, case.name), &case.client, b"");
        }
    }
    let mut noise = Noise::new(1);
    let mut head = Vec::new();
    for kind in [Garbage::Random, Garbage::Numbers, Garbage::Lines] {
        garbage(kind, &mut noise, &mut head);
        time(&format!("{kind:?}"), &head, &head);
    }
}
