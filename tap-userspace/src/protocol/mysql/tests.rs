//! What is told of conversations with MySQL and MariaDB.
#![forbid(unsafe_code)]

use super::*;
use crate::protocol::cuts::{
    self, Part, Talk, c, conforms, fixture, missing, missing_until, s, table,
};
use packets::{COMPRESS, DEPRECATE_EOF, SSL};

/// A packet with its number.
fn p(number: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let [a, b, c, _] = (body.len() as u32).to_le_bytes();
    [&[a, b, c, number][..], body].concat()
}

fn greeting(offered: u32) -> (Side, Part) {
    let [a, b, c, d] = offered.to_le_bytes();
    let body = [&b"\x0a8.0\0"[..], &[1, 0, 0, 0], b"12345678\0", &[a, b, 33, 2, 0, c, d], &[0; 30]];
    s(p(0, body.concat()))
}

fn handshake(asked: u32) -> (Side, Part) {
    let capabilities = asked | 1 << 9 | 1 << 15 | 1 << 3;
    let body = [&capabilities.to_le_bytes()[..], &[0; 28], b"secret\0\x03pwdshop\0"];
    c(p(1, body.concat()))
}

const ALL: u32 = !(COMPRESS | packets::ZSTD);

/// With a login before that agrees on `asked`.
fn talk(asked: u32, rest: &[(Side, Part)]) -> Talk {
    let begin =
        [greeting(ALL), handshake(asked), s(p(2, "\x01more")), c(p(3, "secret")), s(ok(4, 2))];
    begin.into_iter().chain(rest.iter().cloned()).collect()
}

fn ok(number: u8, status: u8) -> Vec<u8> {
    p(number, [0, 0, 0, status, 0, 0, 0])
}

fn eof(number: u8, status: u8) -> Vec<u8> {
    p(number, [0xfe, 0, 0, status, 0])
}

/// The newer form of a result set's end.
fn end(number: u8, status: u8) -> Vec<u8> {
    p(number, [0xfe, 0, 0, status, 0, 0, 0])
}

fn query(sql: &str) -> (Side, Part) {
    c(p(0, format!("\x03{sql}")))
}

fn make() -> Mysql {
    Mysql::new().with_text(true)
}

#[test]
fn commands_and_responses() {
    let classic =
        [p(1, "\x01"), p(2, "def"), eof(3, 2), p(4, "\x011"), p(5, b"\xfb"), eof(6, 2)].concat();
    let newer = [p(1, "\x01"), p(2, "def"), p(3, "\x011"), end(4, 2)].concat();
    let error = |number| p(number, b"\xff\x7a\x04#42S02secret");
    let prepared =
        |columns: u8, parameters: u8| p(1, [0, 9, 0, 0, 0, columns, 0, parameters, 0, 0, 0, 0]);
    let execute = || c(p(0, b"\x17\x09\0\0\0\0\x01\0\0\0"));
    table(
        make,
        &[
            (
                "a result set in both forms",
                talk(
                    0,
                    &[query("SELECT 'x' FROM t"), s(&classic), query("SELECT 2 FROM u"), s(&newer)],
                ),
                &[
                    "SELECT on=t in=shop text=SELECT ? FROM t",
                    "SELECT on=u in=shop text=SELECT ? FROM u",
                ],
            ),
            (
                "an empty result set in both forms",
                talk(
                    0,
                    &[
                        query("SELECT 1"),
                        s([p(1, "\x01"), p(2, "def"), eof(3, 2), eof(4, 2)].concat()),
                        query("SELECT 1"),
                        s([p(1, "\x01"), p(2, "def"), end(3, 2)].concat()),
                        c(p(0, "\x0e")),
                        s(ok(1, 2)),
                    ],
                ),
                &["SELECT in=shop text=SELECT ?", "SELECT in=shop text=SELECT ?", "PING in=shop"],
            ),
            (
                "OK and ERR",
                talk(
                    0,
                    &[
                        query("INSERT INTO t VALUES (1)"),
                        s(ok(1, 2)),
                        query("SELECT 1 FROM gone"),
                        s(error(1)),
                    ],
                ),
                &[
                    "INSERT on=t in=shop text=INSERT INTO t VALUES (?)",
                    "SELECT on=gone in=shop error=1146 text=SELECT ? FROM gone",
                ],
            ),
            (
                "an error among rows",
                talk(
                    0,
                    &[
                        query("SELECT 1"),
                        s([p(1, "\x01"), p(2, "def"), p(3, "\x011"), error(4)].concat()),
                    ],
                ),
                &["SELECT in=shop error=1146 text=SELECT ?"],
            ),
            (
                "several results of one command",
                talk(
                    0,
                    &[
                        query("SELECT 1; UPDATE t SET a = 1"),
                        s([
                            p(1, "\x01"),
                            p(2, "def"),
                            eof(3, 8),
                            p(4, "\x011"),
                            eof(5, 8),
                            ok(6, 2),
                        ]
                        .concat()),
                        c(p(0, "\x0e")),
                        s(ok(1, 2)),
                    ],
                ),
                &["BATCH on=t in=shop batch=2 text=SELECT ?; UPDATE t SET a = ?", "PING in=shop"],
            ),
            (
                "a prepared statement, older form",
                talk(
                    0,
                    &[
                        c(p(0, b"\x16SELECT a FROM t WHERE b = ?")),
                        s([prepared(1, 1), p(2, "def"), eof(3, 2), p(4, "def"), eof(5, 2)]
                            .concat()),
                        execute(),
                        s([p(1, "\x01"), p(2, "def"), eof(3, 2), p(4, "\0\0x"), eof(5, 2)]
                            .concat()),
                        c(p(0, b"\x19\x09\0\0\0")),
                        execute(),
                        s(error(1)),
                    ],
                ),
                &[
                    "PREPARE on=t in=shop text=SELECT a FROM t WHERE b = ?",
                    "SELECT on=t in=shop text=SELECT a FROM t WHERE b = ?",
                    "EXECUTE in=shop error=1146",
                ],
            ),
            (
                "a prepared statement, newer form, and a cursor",
                talk(
                    DEPRECATE_EOF,
                    &[
                        c(p(0, b"\x16DELETE FROM t WHERE b = ?")),
                        s([prepared(0, 1), p(2, "def")].concat()),
                        execute(),
                        s([p(1, "\x01"), p(2, "def"), end(3, 0x42)].concat()),
                        c(p(0, b"\x1c\x09\0\0\0\x01\0\0\0")),
                        s([p(1, "\0\0x"), end(2, 0x82)].concat()),
                    ],
                ),
                &[
                    "PREPARE on=t in=shop text=DELETE FROM t WHERE b = ?",
                    "DELETE on=t in=shop text=DELETE FROM t WHERE b = ?",
                    "FETCH in=shop",
                ],
            ),
            (
                "a cursor, older form",
                talk(
                    0,
                    &[
                        execute(),
                        s([p(1, "\x01"), p(2, "def"), eof(3, 0x42)].concat()),
                        c(p(0, "\x0e")),
                        s(ok(1, 2)),
                    ],
                ),
                &["EXECUTE in=shop", "PING in=shop"],
            ),
            (
                "MariaDB: columns left out, and the statement prepared last",
                talk(
                    DEPRECATE_EOF,
                    &[
                        c([
                            p(0, b"\x16SELECT a FROM t"),
                            p(0, b"\x17\xff\xff\xff\xff\0\x01\0\0\0"),
                        ]
                        .concat()),
                        s([prepared(0, 0), p(1, "\x01\0"), p(2, "\0\0x"), end(3, 2)].concat()),
                    ],
                ),
                &[
                    "PREPARE on=t in=shop text=SELECT a FROM t",
                    "SELECT on=t in=shop text=SELECT a FROM t",
                ],
            ),
            (
                "the database changes when the server says OK",
                talk(
                    0,
                    &[
                        c(p(0, "\x02other")),
                        s(ok(1, 2)),
                        c(p(0, "\x02gone")),
                        s(error(1)),
                        query("USE `third`"),
                        s(ok(1, 2)),
                        c(p(0, "\x0e")),
                        s(ok(1, 2)),
                    ],
                ),
                &[
                    "USE in=other",
                    "USE in=other error=1146",
                    "USE in=third text=USE `third`",
                    "PING in=third",
                ],
            ),
            (
                "LOAD DATA LOCAL",
                talk(
                    0,
                    &[
                        query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t"),
                        s(p(1, b"\xfbx")),
                        c([p(2, "secret"), p(3, "")].concat()),
                        s(ok(4, 2)),
                        c(p(0, "\x0e")),
                        s(ok(1, 2)),
                    ],
                ),
                &["LOAD on=t in=shop text=LOAD DATA LOCAL INFILE ? INTO TABLE t", "PING in=shop"],
            ),
            (
                "another user",
                talk(
                    0,
                    &[
                        c(p(0, b"\x11secret\0\x03pwdnext\0\0\0")),
                        s(p(1, b"\xfeplugin\0salt")),
                        c(p(2, "secret")),
                        s(ok(3, 2)),
                        c(p(0, "\x09")),
                        s(p(1, "Uptime: 1")),
                        c(p(0, "\x01")),
                    ],
                ),
                &["CHANGE_USER in=next", "STATISTICS in=next"],
            ),
            (
                "TLS",
                vec![
                    greeting(ALL),
                    c([
                        p(1, [&(SSL | 1 << 9).to_le_bytes()[..], &[0; 28]].concat()),
                        b"\x16\x03\x01".to_vec(),
                    ]
                    .concat()),
                ],
                &["Tls at 1 36"],
            ),
            ("compression", vec![greeting(u32::MAX), handshake(COMPRESS)], &["Lost"]),
            (
                "compression that the server does not offer",
                vec![greeting(ALL), handshake(COMPRESS), s(ok(2, 2)), c(p(0, "\x0e")), s(ok(1, 2))],
                &["PING in=shop"],
            ),
            (
                "behind TLS there is no greeting",
                vec![handshake(0), s(ok(2, 2)), query("SELECT 1"), s(ok(1, 2))],
                &["SELECT in=shop text=SELECT ?"],
            ),
            ("too many connections", vec![s(p(0, b"\xff\x10\x04Too many"))], &[]),
            (
                "no MySQL",
                vec![s("HTTP/1.1 200 OK\r\n\r\n"), c("GET / HTTP/1.1\r\n\r\n")],
                &["Lost"],
            ),
            ("replication", talk(0, &[c(p(0, "\x12\0\0\0\0"))]), &["Lost"]),
            (
                "progress is no error",
                talk(
                    0,
                    &[query("ALTER TABLE t FORCE"), s([p(1, b"\xff\xff\xffx"), ok(2, 2)].concat())],
                ),
                &["ALTER on=t in=shop text=ALTER TABLE t FORCE"],
            ),
            (
                "what is unanswered",
                talk(0, &[query("SELECT SLEEP(9)"), s(p(1, "\x01"))]),
                &["SELECT in=shop trouble=Truncated text=SELECT SLEEP(?)"],
            ),
        ],
    );
}

#[test]
fn no_backslash_escapes() {
    let status = 0x02; // NO_BACKSLASH_ESCAPES is 0x0200.
    table(
        make,
        &[(
            "the status tells how strings are read",
            talk(
                0,
                &[
                    query("SET sql_mode = 'NO_BACKSLASH_ESCAPES'"),
                    s(p(1, [0, 0, 0, 2, status, 0, 0])),
                    query("SELECT 'a\\' FROM t"),
                    s(p(1, [0, 0, 0, 2, status, 0, 0])),
                    query("SET sql_mode = ''"),
                    s(ok(1, 2)),
                    query("SELECT 'a\\'secret' FROM t"),
                    s(ok(1, 2)),
                ],
            ),
            &[
                "SET in=shop text=SET sql_mode = ?",
                "SELECT on=t in=shop text=SELECT ? FROM t",
                "SET in=shop text=SET sql_mode = ?",
                "SELECT on=t in=shop text=SELECT ? FROM t",
            ],
        )],
    );
}

#[test]
fn packets_that_go_on() {
    const LONG: usize = LONGEST as usize;
    let mut sql = b"\x03INSERT INTO t VALUES ('".to_vec();
    sql.resize(LONG, b'x');
    let mut row = vec![0xfe, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0];
    row.resize(LONG, b'x');
    let talk = talk(
        0,
        &[
            c(p(0, &sql)),
            c(p(1, "y')")),
            s(ok(2, 2)),
            query("SELECT a FROM t"),
            s([p(1, "\x01"), p(2, "def"), p(3, &row), p(4, "x"), p(5, &row), p(6, ""), end(7, 2)]
                .concat()),
            c(p(0, "\x0e")),
            s(ok(1, 2)),
        ],
    );
    let mut told = Vec::new();
    for chunk in [usize::MAX, 1 << 16, 9_973] {
        let mut mysql = make();
        let mut out = Vec::new();
        for (side, part) in &talk {
            let Part::Bytes(bytes) = part else { continue };
            for piece in bytes.chunks(chunk) {
                mysql.take(*side, Piece::Bytes(piece), 0, &mut out);
                assert!(mysql.memory() < MEMORY_MAX);
            }
        }
        assert_eq!(out[0].bytes[0], LONG as u64 + 4 + 7);
        told.push(cuts::lines(&out));
    }
    assert_eq!(
        told[0],
        [
            "INSERT on=t in=shop text=INSERT INTO t VALUES (?",
            "SELECT on=t in=shop text=SELECT a FROM t",
            "PING in=shop"
        ]
    );
    assert!(told.iter().all(|lines| *lines == told[0]));
}

#[test]
fn missing_bytes() {
    let rows = || [p(1, "\x01"), p(2, "def"), eof(3, 2), vec![100, 0, 0, 4, 1]].concat();
    table(
        make,
        &[
            (
                "inside a row they are progress",
                talk(
                    0,
                    &[
                        query("SELECT 1"),
                        s(rows()),
                        missing(Side::Server, 90),
                        s([vec![0; 9], eof(5, 2)].concat()),
                    ],
                ),
                &["SELECT in=shop text=SELECT ?"],
            ),
            (
                "tap comes late",
                vec![
                    missing(Side::Client, 9),
                    missing(Side::Server, 9),
                    query("SELECT 1"),
                    s(ok(1, 2)),
                    query("SELECT 2"),
                    s(ok(1, 2)),
                ],
                &["SELECT gap=true text=SELECT ?", "SELECT text=SELECT ?"],
            ),
            (
                "the end is missing: the next command tells",
                talk(
                    0,
                    &[
                        query("SELECT 1 FROM a"),
                        s(rows()),
                        missing(Side::Server, 900),
                        s("junk"),
                        query("SELECT 2"),
                        s(ok(1, 2)),
                        query("SELECT 3"),
                        s(ok(1, 2)),
                    ],
                ),
                &[
                    "SELECT on=a in=shop gap=true text=SELECT ? FROM a",
                    "SELECT in=shop gap=true text=SELECT ?",
                    "SELECT in=shop text=SELECT ?",
                ],
            ),
            (
                "the end is missing, and is known to be once the next answer comes",
                talk(
                    0,
                    &[
                        query("SELECT 1 FROM a"),
                        s(rows()),
                        query("SELECT 2"),
                        missing_until(Side::Server, 900, 6),
                        s(p(1, b"\xff\x7a\x04#42S02secret")),
                        query("SELECT 3"),
                        s(ok(1, 2)),
                    ],
                ),
                &[
                    "SELECT on=a in=shop gap=true text=SELECT ? FROM a",
                    "SELECT in=shop error=1146 text=SELECT ?",
                    "SELECT in=shop text=SELECT ?",
                ],
            ),
            (
                "a command is missing",
                talk(0, &[missing(Side::Client, 9), s(ok(1, 2)), query("SELECT 2"), s(ok(1, 2))]),
                &["SELECT gap=true text=SELECT ?"],
            ),
        ],
    );
}

#[test]
fn memory_is_bounded_whatever_is_asked() {
    let mut mysql = make();
    let mut out = Vec::new();
    for (side, part) in talk(0, &[]) {
        let Part::Bytes(bytes) = part else { continue };
        mysql.take(side, Piece::Bytes(&bytes), 0, &mut out);
    }
    let sql = |round: u32| {
        let table = "\u{1F600}".repeat(100);
        p(0, format!("\x16SELECT {} FROM `{table}{round}`", "\u{1F600}, ".repeat(300)))
    };
    for round in 0..300u32 {
        let prepared = [&[0][..], &round.to_le_bytes(), &[0; 7]].concat();
        mysql.take(Side::Client, Piece::Bytes(&sql(round)), 0, &mut out);
        mysql.take(Side::Server, Piece::Bytes(&p(1, prepared)), 0, &mut out);
        assert!(mysql.memory() <= MEMORY_MAX, "{} of {MEMORY_MAX}", mysql.memory());
    }
    for round in 0..1000 {
        mysql.take(Side::Client, Piece::Bytes(&sql(round)), 0, &mut out);
        assert!(mysql.memory() <= MEMORY_MAX, "{} of {MEMORY_MAX}", mysql.memory());
    }
    assert!(mysql.memory() > MEMORY_MAX / 4);
}

const TALKS: &[&str] =
    &["mariadb-cli", "pymysql", "mariadb-slap", "mysql-connector", "mysql-compressed"];

#[test]
fn real_conversations() {
    conforms(make, TALKS);
}

#[test]
fn noise_is_harmless() {
    let talks: Vec<Talk> = TALKS.iter().map(|name| fixture(&format!("{name}.talk"))).collect();
    cuts::stirred(fuzz_mysql, &talks, 20_000);
}
