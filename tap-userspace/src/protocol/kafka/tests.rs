//! What is told of conversations with Kafka.
#![forbid(unsafe_code)]

use super::*;
use crate::protocol::cuts::{self, Part, Talk, c, conforms, fixture, missing, s, table};

/// A message with its length.
fn sized(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

fn ask(api: i16, version: i16, id: i32, body: &[u8]) -> (Side, Part) {
    let head = [&api.to_be_bytes()[..], &version.to_be_bytes(), &id.to_be_bytes(), b"\0\x03tap"];
    c(sized(&[&head.concat(), body].concat()))
}

fn answer(id: i32, body: &[u8]) -> (Side, Part) {
    s(sized(&[&id.to_be_bytes(), body].concat()))
}

/// Produce of version 3: no transaction, time-out, two topics of which one is there.
fn produce(acks: u8) -> Vec<u8> {
    let topics = b"\0\0\0\x02\0\x06orders\0\0\0\x01\0\0\0\0\0\0\0\x05datas";
    [&[0xff, 0xff, acks, acks][..], &[0, 0, 1, 0], topics].concat()
}

fn produced(error: u8) -> Vec<u8> {
    let partition = [&[0, 0, 0, 0, 0, error][..], &[0; 16]].concat();
    [&b"\0\0\0\x01\0\x06orders\0\0\0\x02"[..], &[0, 0, 0, 1, 0, 0], &[0; 16], &partition, &[0; 4]]
        .concat()
}

#[test]
fn requests_and_responses() {
    let flexible = [&[0, 0][..], &[255, 255, 0, 0, 1, 0], b"\x02\x07orders\x02data\0\0"].concat();
    let fetch = [&[0; 25][..], b"\0\0\0\x01\0\x05bills"].concat();
    table(
        Kafka::new,
        &[
            (
                "names of operations",
                vec![
                    ask(18, 0, 1, b""),
                    answer(1, b"\0\0"),
                    ask(3, 9, 2, b"x"),
                    answer(2, b""),
                    ask(99, 0, 3, b""),
                    answer(3, b""),
                ],
                &["ApiVersions", "Metadata", "API 99"],
            ),
            (
                "topics and errors of Produce",
                vec![
                    ask(0, 3, 1, &produce(255)),
                    answer(1, &produced(0)),
                    ask(0, 3, 2, &produce(255)),
                    answer(2, &produced(3)),
                ],
                &["Produce on=orders batch=2", "Produce on=orders batch=2 error=3"],
            ),
            (
                "Produce without an answer",
                vec![ask(0, 3, 1, &produce(0)), ask(3, 0, 2, b""), answer(2, b"")],
                &["Produce on=orders batch=2", "Metadata"],
            ),
            (
                "flexible Produce",
                vec![ask(0, 9, 1, &flexible), answer(1, b"\0\x02\x07orders\x02\0\0\0\0\0\x06")],
                &["Produce on=orders batch=1 error=6"],
            ),
            (
                "Fetch with a session's error",
                vec![
                    ask(1, 7, 1, &[&[0; 25][..], b"\0\0\0\x01\0\x05bills"].concat()),
                    answer(1, b"\0\0\0\0\0\x46\0\0\0\0\0\0\0\0"),
                ],
                &["Fetch on=bills batch=1 error=70"],
            ),
            (
                "Fetch with a partition's error",
                vec![
                    ask(1, 7, 1, &fetch),
                    answer(1, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x05bills\0\0\0\x01\0\0\0\0\0\x01"),
                ],
                &["Fetch on=bills batch=1 error=1"],
            ),
            (
                "errors of whole requests",
                vec![
                    ask(18, 3, 1, b""),
                    answer(1, b"\0\x23\0\0\0\0"),
                    ask(17, 1, 2, b""),
                    answer(2, b"\0\x21\0\0\0\0"),
                    ask(36, 2, 3, b""),
                    answer(3, b"\0\0\x3a"),
                    ask(12, 0, 4, b""),
                    answer(4, b"\0\x1b"),
                    ask(12, 3, 5, b""),
                    answer(5, b"\0\0\0\0\0\x19"),
                    ask(11, 6, 6, b""),
                    answer(6, b"\x01\0\0\0\0\0\0\0\x0f"),
                    ask(10, 4, 7, b""),
                    answer(7, b"\0\0\0\0\0\x02\x02x"),
                    ask(22, 0, 8, b""),
                    answer(8, b"\0\0\0\0\0"),
                ],
                &[
                    "ApiVersions error=35",
                    "SaslHandshake error=33",
                    "SaslAuthenticate error=58",
                    "Heartbeat error=27",
                    "Heartbeat error=25",
                    "JoinGroup error=15",
                    "FindCoordinator",
                    "InitProducerId",
                ],
            ),
            (
                "responses in order; one that never came",
                vec![
                    ask(3, 0, 1, b""),
                    ask(12, 0, 2, b""),
                    ask(18, 0, 3, b""),
                    answer(2, b""),
                    answer(7, b""),
                    answer(3, b""),
                ],
                &["Metadata trouble=NoResponse gap=true", "Heartbeat", "ApiVersions"],
            ),
            (
                "bare tokens of SASL",
                vec![
                    ask(17, 0, 1, b"\0\x06GSSAPI"),
                    answer(1, b"\0\0"),
                    c(sized(b"\x60\x82secret token")),
                    s(sized(b"\x60\x82")),
                    ask(3, 0, 2, b""),
                    answer(2, b""),
                ],
                &["SaslHandshake", "Metadata"],
            ),
            (
                "what is unanswered",
                vec![ask(3, 0, 1, b""), ask(3, 0, 2, b""), s(b"\0\0\0\x09")],
                &["Metadata trouble=Truncated", "Metadata trouble=NoResponse"],
            ),
            ("no Kafka", vec![c("GET / HTTP/1.1\r\n\r\n")], &["Lost"]),
            (
                "a client id beyond its request",
                vec![c(b"\0\0\0\x0a\0\x03\0\0\0\0\0\x01\0\x09")],
                &["Lost"],
            ),
        ],
    );
}

#[test]
fn missing_bytes() {
    let Part::Bytes(mut long) = long() else { panic!("no bytes") };
    let rest = long.split_off(60);
    table(
        Kafka::new,
        &[
            (
                "inside a body they are progress",
                vec![
                    c(&long),
                    missing(Side::Client, rest.len() as u64 - 3),
                    c(&rest[rest.len() - 3..]),
                    s(b"\0\0\x10\0\0\0\0\x01"),
                    s([0; 600]),
                    missing(Side::Server, 3492),
                    ask(3, 0, 2, b""),
                    answer(2, b""),
                ],
                &["Produce on=orders batch=2", "Metadata"],
            ),
            (
                "tap comes late",
                vec![
                    missing(Side::Client, 1),
                    missing(Side::Server, 1),
                    ask(3, 0, 1, b""),
                    answer(1, b""),
                    ask(3, 0, 2, b""),
                    answer(2, b""),
                ],
                &["Metadata gap=true", "Metadata"],
            ),
            (
                "a response is missing: the next one's id tells",
                vec![
                    ask(3, 0, 1, b""),
                    missing(Side::Server, 50),
                    ask(12, 0, 2, b""),
                    answer(2, b""),
                    ask(12, 0, 3, b""),
                    answer(3, b""),
                ],
                &["Metadata trouble=NoResponse gap=true", "Heartbeat gap=true", "Heartbeat"],
            ),
        ],
    );
}

fn long() -> Part {
    ask(0, 3, 1, &[produce(255), vec![0; 2000]].concat()).1
}

#[test]
fn memory_is_bounded_whatever_is_asked() {
    let mut kafka = Kafka::new();
    let mut out = Vec::new();
    let name = "t".repeat(TOPIC_MAX);
    let mut body = vec![0xff; 4];
    body.extend([0, 0, 0, 1, 0, 0, 0, 1, 0, TOPIC_MAX as u8]);
    body.extend(name.bytes());
    for id in 0..4 * PENDING_MAX as i32 {
        let Part::Bytes(bytes) = ask(0, 3, id, &body).1 else { continue };
        kafka.take(Side::Client, Piece::Bytes(&bytes), 0, &mut out);
        assert!(kafka.memory() <= MEMORY_MAX, "{} of {MEMORY_MAX}", kafka.memory());
    }
    assert_eq!(out.len(), 3 * PENDING_MAX);
    kafka.finish(1, &mut out);
    assert_eq!(out.len(), 4 * PENDING_MAX);
}

const TALKS: &[&str] = &[
    "kafka-1",
    "kafka-2",
    "kafka-3",
    "kafka-4",
    "kafka-acks0-1",
    "kafka-old-1",
    "kafka-old-3",
    "kafka-old-4",
];

#[test]
fn real_conversations() {
    conforms(Kafka::new, TALKS);
}

#[test]
fn noise_is_harmless() {
    let talks: Vec<Talk> = TALKS.iter().map(|name| fixture(&format!("{name}.talk"))).collect();
    cuts::stirred(fuzz_kafka, &talks, 20_000);
}
