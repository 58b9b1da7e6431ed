//! What is told of conversations with PostgreSQL.
#![forbid(unsafe_code)]

use super::*;
use crate::protocol::cuts::{self, Talk, c, conforms, fixture, missing, missing_until, s, table};

/// A message with a type byte.
fn m(kind: char, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let len = body.len() as u32 + 4;
    [&[kind as u8][..], &len.to_be_bytes(), body].concat()
}

/// Messages without body.
fn bare(kinds: &str) -> Vec<u8> {
    kinds.chars().flat_map(|kind| m(kind, "")).collect()
}

fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0secret\0database\0shop\0\0";
    [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

fn ready() -> Vec<u8> {
    m('Z', "I")
}

fn done(tag: &str) -> Vec<u8> {
    m('C', format!("{tag}\0"))
}

fn failed(code: &str) -> Vec<u8> {
    m('E', format!("SERROR\0VERROR\0C{code}\0Msecret\0\0"))
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    m('P', format!("{name}\0{sql}\0\0\0"))
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    m('B', format!("{portal}\0{name}\0\0\0\0\0\0\0"))
}

fn execute(portal: &str) -> Vec<u8> {
    m('E', format!("{portal}\0\0\0\0\0"))
}

fn make() -> Postgres {
    Postgres::new().with_text(true)
}

/// With a connection's begin before.
fn talk(rest: &[(Side, cuts::Part)]) -> Talk {
    let begin = [
        c(startup()),
        s([m('R', "\0\0\0\x05salt"), m('S', "a\0b\0")].concat()),
        c(m('p', "md5secret\0")),
        s([m('R', "\0\0\0\0"), m('K', "\0\0\0\x01\0\0\0\x02"), ready()].concat()),
    ];
    begin.into_iter().chain(rest.iter().cloned()).collect()
}

#[test]
fn queries_and_responses() {
    let select = parse("p1", "SELECT a FROM t WHERE b = $1");
    table(
        make,
        &[
            (
                "a simple query",
                talk(&[
                    c(m('Q', "SELECT 'x' FROM t\0")),
                    s([m('T', "\0\0"), m('D', "\0\0"), done("SELECT 1"), ready()].concat()),
                ]),
                &["SELECT on=t in=shop text=SELECT ? FROM t"],
            ),
            (
                "an error",
                talk(&[c(m('Q', "SELECT 1 FROM gone\0")), s([failed("42P01"), ready()].concat())]),
                &["SELECT on=gone in=shop error=42P01 text=SELECT ? FROM gone"],
            ),
            (
                "several statements in a query are a batch",
                talk(&[
                    c(m('Q', "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)\0")),
                    s([done("INSERT 0 1"), done("INSERT 0 1"), ready()].concat()),
                    c(m('Q', ";\0")),
                    s([m('I', ""), ready()].concat()),
                ]),
                &[
                    "BATCH INSERT on=t in=shop batch=2 text=INSERT INTO t VALUES (?); INSERT INTO t VALUES (?)",
                    " in=shop text=;",
                ],
            ),
            (
                "a prepared statement is remembered by its name",
                talk(&[
                    c([&select[..], &m('D', "Sp1\0"), &bare("S")].concat()),
                    s([bare("1"), m('t', "\0\0"), m('T', "\0\0"), ready()].concat()),
                    c([bind("", "p1"), execute(""), bare("S")].concat()),
                    s([bare("2"), m('D', "\0\0"), done("SELECT 1"), ready()].concat()),
                    c([m('C', "Sp1\0"), bare("S")].concat()),
                    s([bare("3"), ready()].concat()),
                    c([bind("x", "p1"), execute("x"), bare("S")].concat()),
                    s([failed("26000"), ready()].concat()),
                ]),
                &[
                    "PREPARE on=t in=shop text=SELECT a FROM t WHERE b = $1",
                    "SELECT on=t in=shop text=SELECT a FROM t WHERE b = $1",
                    "EXECUTE in=shop error=26000",
                ],
            ),
            (
                "a pipeline, and what is skipped after an error",
                talk(&[
                    c([
                        parse("", "BEGIN"),
                        bind("", ""),
                        execute(""),
                        parse("", "UPDATE t SET a = 1"),
                        bind("", ""),
                        execute(""),
                        parse("", "DELETE FROM u"),
                        bind("", ""),
                        execute(""),
                        bare("S"),
                        parse("", "COMMIT"),
                        bind("", ""),
                        execute(""),
                        bare("S"),
                    ]
                    .concat()),
                    s([bare("12"), done("BEGIN"), bare("12")].concat()),
                    s([failed("23505"), ready(), bare("12"), done("COMMIT")].concat()),
                    s(ready()),
                ]),
                &[
                    "BEGIN in=shop text=BEGIN",
                    "UPDATE on=t in=shop error=23505 text=UPDATE t SET a = ?",
                    "DELETE on=u in=shop trouble=NoResponse text=DELETE FROM u",
                    "COMMIT in=shop text=COMMIT",
                ],
            ),
            (
                "an error in Parse",
                talk(&[
                    c([parse("", "SELEC"), m('D', "S\0"), bare("S")].concat()),
                    s([failed("42601"), ready()].concat()),
                ]),
                &["PREPARE in=shop error=42601 text=SELEC"],
            ),
            (
                "Flush instead of Sync",
                talk(&[
                    c([parse("q", "SELECT 1"), bare("H")].concat()),
                    s(bare("1")),
                    c([bind("", "q"), execute(""), bare("H")].concat()),
                    s([bare("2"), done("SELECT 1")].concat()),
                    c(bare("S")),
                    s(ready()),
                ]),
                &["PREPARE in=shop text=SELECT ?", "SELECT in=shop text=SELECT ?"],
            ),
            (
                "COPY from the client, plain and extended",
                talk(&[
                    c(m('Q', "COPY t FROM STDIN\0")),
                    s(m('G', "\0\0\0")),
                    c([m('d', "secret"), m('c', "")].concat()),
                    s([done("COPY 1"), ready()].concat()),
                    c([parse("", "COPY t FROM STDIN"), bind("", ""), execute(""), bare("S")]
                        .concat()),
                    s([bare("12"), m('G', "\0\0\0")].concat()),
                    c([m('d', "secret"), m('c', ""), bare("S")].concat()),
                    s([done("COPY 1"), ready()].concat()),
                    c(m('Q', "SELECT 1\0")),
                    s([done("SELECT 1"), ready()].concat()),
                ]),
                &[
                    "COPY on=t in=shop text=COPY t FROM STDIN",
                    "COPY on=t in=shop text=COPY t FROM STDIN",
                    "SELECT in=shop text=SELECT ?",
                ],
            ),
            (
                "notifications answer nothing",
                talk(&[
                    s(m('A', "\0\0\0\x01chan\0secret\0")),
                    c(m('Q', "SELECT 1\0")),
                    s([m('N', "SNOTICE\0\0"), done("SELECT 1"), ready()].concat()),
                ]),
                &["SELECT in=shop text=SELECT ?"],
            ),
            (
                "encryption refused",
                [
                    vec![
                        c(b"\0\0\0\x08\x04\xd2\x16\x30"),
                        s("N"),
                        c(b"\0\0\0\x08\x04\xd2\x16\x2f"),
                        s("N"),
                    ],
                    talk(&[c(m('Q', "SELECT 1\0")), s([done("SELECT 1"), ready()].concat())]),
                ]
                .concat(),
                &["SELECT in=shop text=SELECT ?"],
            ),
            (
                "TLS",
                vec![c(b"\0\0\0\x08\x04\xd2\x16\x2f"), s("S"), c(b"\x16\x03\x01")],
                &["Tls at 1 1"],
            ),
            ("a cancel request", vec![c(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02")], &[]),
            ("no PostgreSQL", vec![c("GET / HTTP/1.1\r\n\r\n")], &["Lost"]),
            (
                "what is unanswered",
                talk(&[c(m('Q', "SELECT pg_sleep(9)\0"))]),
                &["SELECT in=shop trouble=NoResponse text=SELECT pg_sleep(?)"],
            ),
            (
                "backslashes escape where the server says so",
                talk(&[
                    s(m('S', "standard_conforming_strings\0off\0")),
                    c(m('Q', "SELECT 'a\\'secret'\0")),
                    s([done("SELECT 1"), ready()].concat()),
                ]),
                &["SELECT in=shop text=SELECT ?"],
            ),
        ],
    );
}

#[test]
fn missing_bytes() {
    let query = |sql: &str| c(m('Q', format!("{sql}\0")));
    let answer = || s([done("SELECT 1"), ready()].concat());
    table(
        make,
        &[
            (
                "inside a body they are progress",
                talk(&[
                    query("SELECT 1"),
                    s([m('T', "\0\0"), vec![b'D', 0, 0, 4, 0, 0, 1]].concat()),
                    missing(Side::Server, 1000),
                    s([vec![0; 18], done("SELECT 1"), ready()].concat()),
                ]),
                &["SELECT in=shop text=SELECT ?"],
            ),
            (
                "tap comes late",
                vec![
                    missing(Side::Client, 9),
                    missing(Side::Server, 9),
                    query("SELECT 1"),
                    answer(),
                    query("SELECT 2"),
                    answer(),
                ],
                &["SELECT gap=true text=SELECT ?", "SELECT text=SELECT ?"],
            ),
            (
                "rows are missing, and the end is found",
                talk(&[
                    query("SELECT 1"),
                    s(m('T', "\0\0")),
                    missing(Side::Server, 1000),
                    answer(),
                    query("SELECT 2"),
                    answer(),
                ]),
                &["SELECT in=shop gap=true text=SELECT ?", "SELECT in=shop text=SELECT ?"],
            ),
            (
                "the end is missing: the next query tells",
                talk(&[
                    query("SELECT 1 FROM a"),
                    s(m('T', "\0\0")),
                    missing(Side::Server, 1000),
                    query("SELECT 2"),
                    answer(),
                ]),
                &[
                    "SELECT on=a in=shop gap=true text=SELECT ? FROM a",
                    "SELECT in=shop gap=true text=SELECT ?",
                ],
            ),
            (
                "the end is missing, and is known to be once the next answer comes",
                talk(&[
                    query("SELECT 1 FROM a"),
                    s(m('T', "\0\0")),
                    query("SELECT 2"),
                    missing_until(Side::Server, 1000, 5),
                    s([failed("42P01"), ready()].concat()),
                    query("SELECT 3"),
                    answer(),
                ]),
                &[
                    "SELECT on=a in=shop gap=true text=SELECT ? FROM a",
                    "SELECT in=shop error=42P01 text=SELECT ?",
                    "SELECT in=shop text=SELECT ?",
                ],
            ),
            (
                "a query is missing",
                talk(&[missing(Side::Client, 100), answer(), query("SELECT 2"), answer()]),
                &["SELECT in=shop gap=true text=SELECT ?"],
            ),
        ],
    );
}

#[test]
fn bytes_and_times_are_those_of_the_pieces() {
    let mut talk = talk(&[
        c(parse("", "SELECT 1")),
        c(bind("", "")),
        c([execute(""), bare("S")].concat()),
        s(bare("12")),
        s(done("SELECT 1")),
        s(ready()),
    ]);
    let (exchanges, _) = cuts::everywhere(make, &talk);
    let client: usize = talk
        .drain(4..7)
        .map(|(_, part)| if let cuts::Part::Bytes(bytes) = part { bytes.len() } else { 0 })
        .sum();
    let exchange = &exchanges[0];
    assert_eq!((exchange.began_ns, exchange.ended_ns), (4, 9));
    assert_eq!(exchange.bytes, [client as u64, 10 + 14 + 6]);
}

#[test]
fn a_long_pipeline_is_bounded() {
    let count = PENDING_MAX + 1000;
    let mut say = parse("p", "INSERT INTO t VALUES ($1)");
    let mut hear = bare("1");
    for _ in 0..count {
        say.extend([bind("", "p"), execute("")].concat());
        hear.extend([bare("2"), done("INSERT 0 1")].concat());
    }
    say.extend(bare("S"));
    hear.extend(ready());
    let after = [c(m('Q', "SELECT 1\0")), s([done("SELECT 1"), ready()].concat())];
    let talk = talk(&[[c(say), s(hear)], after].concat());
    let (exchanges, _) = cuts::everywhere(Postgres::new, &talk);
    let told = cuts::lines(&exchanges);
    assert_eq!(told.len(), PENDING_MAX + 1);
    assert_eq!(told[PENDING_MAX - 2], "INSERT on=t in=shop");
    assert_eq!(told[PENDING_MAX - 1], "BATCH INSERT on=t in=shop batch=1001");
    assert_eq!(told[PENDING_MAX], "SELECT in=shop");
}

#[test]
fn memory_is_bounded_whatever_is_asked() {
    let mut postgres = make();
    let mut out = Vec::new();
    postgres.take(Side::Client, Piece::Bytes(&startup()), 0, &mut out);
    for round in 0..4 * ENTRIES_MAX {
        let table = format!("{round:0>300}").replace('0', "\u{1F600}");
        let sql = format!("SELECT {} FROM \"{table}\"", "\u{1F600}, ".repeat(300));
        let name = format!("{round:0>100}");
        let portal = format!("p{round}");
        let messages = match round % 3 {
            0 => m('Q', format!("{sql}\0")),
            _ => [parse(&name, &sql), bind(&portal, &name), execute(&portal), bare("S")].concat(),
        };
        postgres.take(Side::Client, Piece::Bytes(&messages), 0, &mut out);
        assert!(postgres.memory() <= MEMORY_MAX, "{} of {MEMORY_MAX}", postgres.memory());
    }
    assert!(postgres.memory() > MEMORY_MAX / 4);
    postgres.finish(1, &mut out);
    assert_eq!(postgres.state.pending_heap, 0);
}

const TALKS: &[&str] = &["psql", "psycopg", "pgbench", "postgres-cancel"];

#[test]
fn real_conversations() {
    conforms(make, TALKS);
}

#[test]
fn noise_is_harmless() {
    let talks: Vec<Talk> = TALKS.iter().map(|name| fixture(&format!("{name}.talk"))).collect();
    cuts::stirred(fuzz_postgres, &talks, 20_000);
}
