//! Heads of real programs (`fixtures/detect/heads.jsonl`, each with how it was made), and what each
//! rule makes of their parts.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::Value;

use super::*;
use crate::protocol::noise::Noise;

pub(super) struct Case {
    pub name: String,
    pub protocol: String,
    version: Option<String>,
    pub client: Vec<u8>,
    pub server: Vec<u8>,
    /// The server's, for those that need it.
    port: u16,
}

pub(super) fn cases() -> Vec<Case> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(HEADS);
    let text = std::fs::read_to_string(path).expect("fixture");
    let case = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("json");
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let bytes = |key: &str| {
            let hex = text(key).expect("hex");
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            (0..hex.len()).step_by(2).map(byte).collect()
        };
        Case {
            name: text("name").expect("name"),
            protocol: text("protocol").expect("protocol"),
            version: text("version"),
            client: bytes("client_hex"),
            server: bytes("server_hex"),
            port: value["port"].as_u64().unwrap_or(0) as u16,
        }
    };
    text.lines().map(case).collect()
}

const HEADS: &str = "../tests/fixtures/detect/heads.jsonl";

/// Whether the role may be a guess, where both ends have spoken.
fn is_alike(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Ssh | Protocol::Amqp | Protocol::Bittorrent)
}

#[test]
fn heads_of_real_programs_are_known() {
    let mut seen = BTreeMap::<_, usize>::new();
    for case in cases() {
        for (receive, transmit, client, ports) in [
            (&case.client, &case.server, Direction::Receive, [case.port, 0]),
            (&case.server, &case.client, Direction::Transmit, [0, case.port]),
        ] {
            let Detection::Known(detected) = detect_with(receive, transmit, ports) else {
                panic!("{} is not known", case.name);
            };
            assert_eq!(detected.protocol.event_name(), case.protocol, "{}", case.name);
            assert_eq!(detected.version, case.version.as_deref(), "{}", case.name);
            let alone = case.client.is_empty() || case.server.is_empty();
            if alone || !is_alike(detected.protocol) {
                assert_eq!(detected.client, client, "{}", case.name);
            }
        }
        *seen.entry(case.protocol).or_default() += 1;
    }
    assert_eq!(seen.len(), 23, "every protocol but WebSocket: {seen:?}");
    assert!(seen.values().all(|count| *count >= 2), "{seen:?}");
}

#[test]
fn every_prefix_is_undecided_or_already_right() {
    let mut noise = Noise::new(0x7461_7003);
    for case in cases() {
        let (client, server) = (&case.client[..], &case.server[..]);
        let mut ends: Vec<_> = (0..=client.len())
            .flat_map(|end| [(end, server.len()), (end, 0)])
            .chain((0..=server.len()).flat_map(|end| [(client.len(), end), (0, end)]))
            .collect();
        ends.extend((0..500).map(|_| {
            (
                noise.below(client.len() as u32 + 1) as usize,
                noise.below(server.len() as u32 + 1) as usize,
            )
        }));
        for (asked, answered) in ends {
            let shown = format!("{} with {asked} and {answered} bytes", case.name);
            match detect_with(&server[..answered], &client[..asked], [0, case.port]) {
                Detection::NeedMore => {}
                Detection::Unknown => panic!("{shown} is unknown"),
                Detection::Known(detected) => {
                    assert_eq!(detected.protocol.event_name(), case.protocol, "{shown}");
                    if !is_alike(detected.protocol) {
                        assert_eq!(detected.client, Direction::Transmit, "{shown}");
                    }
                    // A server may speak another version of HTTP.
                    let version = detected.version.filter(|_| answered == 0);
                    assert!(version.is_none() || version == case.version.as_deref(), "{shown}");
                }
            }
        }
    }
}

#[test]
fn no_rule_claims_the_head_of_another() {
    for case in cases() {
        for head in [&case.client, &case.server] {
            for rule in RULES.iter().filter(|rule| {
                head.first().is_some_and(|first| rule.first.iter().any(|it| it.contains(first)))
            }) {
                match (rule.look)(&head[..head.len().min(LOOK)]) {
                    Ok(said) if said.certainty == Certainty::Sure => {
                        assert_eq!(said.protocol.event_name(), case.protocol, "{}", case.name);
                    }
                    // `+OK` of Redis and the like are open until the other end has spoken.
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn nothing_yet() {
    assert_eq!(detect(b"", b""), Detection::NeedMore);
    assert_eq!(detect(b"\xff\xff\xff\xff", b""), Detection::NeedMore);
    assert_eq!(detect(b"\xff\xff\xff\xff", b"\xff\xff\xff\xff"), Detection::Unknown);
}

#[test]
fn the_client_speaks_for_the_connection() {
    let hello = b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03";
    let answer = b"HTTP/1.0 400 Bad Request\r\n";
    for (receive, transmit, client) in [
        (&answer[..], &hello[..], Direction::Transmit),
        (&hello[..], &answer[..], Direction::Receive),
    ] {
        let tls = Detected { protocol: Protocol::Tls, version: None, client };
        assert_eq!(detect(receive, transmit), Detection::Known(tls));
    }
}

#[test]
fn a_long_target_is_known_without_its_version() {
    let sure = |head: &[u8]| look(head).sure.map(|said| (said.protocol, said.speaker));
    let http1 = Some((Protocol::Http1, Speaker::Client));
    let mut long = b"GET /".to_vec();
    long.resize(LOOK - 5, b'a');
    assert!(look(&long).more && look(&long).sure.is_none());
    long.resize(LOOK, b'a');
    assert_eq!(sure(&long), http1);
    let mut long = b"CONNECT ".to_vec();
    long.resize(LOOK, b'/');
    assert_eq!(sure(&long), None);
    for cut in LOOK - 20..LOOK {
        let mut line = b"GET /".to_vec();
        line.resize(cut, b'a');
        line.extend_from_slice(b" HTTP/1.1\r\n");
        line.resize(LOOK + 40, b'x');
        assert_eq!(sure(&line[..LOOK]), http1, "target to {cut}");
    }
}

#[test]
fn ports_decide_only_what_the_bytes_leave_open() {
    let found = |receive: &[u8], transmit: &[u8], ports| match detect_with(receive, transmit, ports)
    {
        Detection::Known(detected) => Some((detected.protocol.event_name(), detected.client)),
        _ => None,
    };
    let (receive, transmit) = (Direction::Receive, Direction::Transmit);
    type Row<'a> = (&'a [u8], &'a [u8], [u16; 2], Option<(&'a str, Direction)>);
    let rows: &[Row<'_>] = &[
        // A command that SMTP and FTP share.
        (b"220 hello\r\n", b"QUIT\r\n", [40_000, 25], Some(("smtp", transmit))),
        (b"220 hello\r\n", b"QUIT\r\n", [40_000, 21], Some(("ftp", transmit))),
        (b"QUIT\r\n", b"220 hello\r\n", [21, 40_000], Some(("ftp", receive))),
        (b"220 hello\r\n", b"QUIT\r\n", [40_000, 8000], None),
        // The bytes say FTP, whatever the port.
        (b"220 hello\r\n", b"USER a\r\n", [40_000, 25], Some(("ftp", transmit))),
        (b"220 hello\r\n", b"XYZZY\r\n", [40_000, 25], None),
        (b"+OK\r\n", b"QUIT\r\n", [40_000, 110], Some(("pop3", transmit))),
        (b"+OK\r\n", b"AUTH secret\r\n", [40_000, 6379], None),
        (b"DELETED\r\n", b"delete 5\r\n", [40_000, 11211], Some(("memcached", transmit))),
        (
            b"\x03\0\0\x0b\x06\xd0\0\0\x12\x34\0",
            b"\x03\0\0\x0b\x06\xe0\0\0\0\0\0",
            [40_000, 3389],
            Some(("rdp", transmit)),
        ),
        // Which end of two that begin alike is the client.
        (b"SSH-2.0-a\r\n", b"SSH-2.0-b\r\n", [40_000, 22], Some(("ssh", transmit))),
        (b"SSH-2.0-a\r\n", b"SSH-2.0-b\r\n", [22, 40_000], Some(("ssh", receive))),
        (b"SSH-2.0-a\r\n", b"", [40_000, 22], Some(("ssh", transmit))),
        (b"garbage", b"garbage", [80, 443], None),
    ];
    for (receive, transmit, ports, expected) in rows {
        let shown = String::from_utf8_lossy(transmit);
        assert_eq!(found(receive, transmit, *ports), *expected, "{shown} {ports:?}");
    }
}

// === Exactness ===

/// Follows `step` from nothing by random bytes that are not refused, to a whole head. Fails where
/// it wanted more, but no byte would do.
fn walk(noise: &mut Noise, what: &str, firsts: &[u8], step: impl Fn(&[u8]) -> Result<(), Stop>) {
    let mut head = vec![firsts[noise.below(firsts.len() as u32) as usize]];
    let step = |head: &[u8]| match step(head) {
        Err(Stop::More) if head.len() >= LOOK => Err(Stop::No),
        other => other,
    };
    let mut next = Vec::new();
    loop {
        match step(&head) {
            Ok(()) => return,
            Err(Stop::No) if head.len() == 1 => return,
            Err(Stop::No) => panic!("{what}: refused {head:x?}"),
            Err(Stop::More) => {}
        }
        next.clear();
        for byte in 0..=255 {
            head.push(byte);
            if step(&head) != Err(Stop::No) {
                next.push(byte);
            }
            head.pop();
        }
        assert!(!next.is_empty(), "{what}: wants more after {head:x?}, but nothing fits");
        // Bytes that few others accept lead further.
        let end = next.iter().copied().filter(|byte| matches!(byte, 0 | b' ' | b'\r' | b'\n'));
        let ends: Vec<_> = end.collect();
        let from = if !ends.is_empty() && noise.below(8) == 0 { &ends } else { &next };
        head.push(from[noise.below(from.len() as u32) as usize]);
    }
}

#[test]
fn more_is_wanted_only_where_more_can_tell() {
    let mut noise = Noise::new(0x7461_7004);
    for (at, rule) in RULES.iter().enumerate() {
        let firsts: Vec<u8> = rule.first.iter().cloned().flatten().collect();
        for _ in 0..60 {
            walk(&mut noise, &format!("rule {at}"), &firsts, |head| (rule.look)(head).map(|_| ()));
        }
    }
    let all: Vec<u8> = (0..=255).collect();
    for case in cases() {
        for head in [&case.client, &case.server] {
            for at in bits(look(head).perhaps) {
                let confirm =
                    |other: &[u8]| (RULES[at].confirm)(&head[..head.len().min(LOOK)], other);
                for _ in 0..20 {
                    walk(&mut noise, &case.name, &all, |other| confirm(other).map(|_| ()));
                }
            }
        }
    }
}
