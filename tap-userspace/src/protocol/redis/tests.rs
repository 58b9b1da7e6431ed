//! What is told of conversations with Redis.
#![forbid(unsafe_code)]

use super::*;
use crate::protocol::cuts::{
    self, Part, Talk, c, conforms, fixture, missing, missing_until, s, table,
};

const CLIENT: Side = Side::Client;
const SERVER: Side = Side::Server;

/// A command as an array.
fn array(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

fn ask(command: &str) -> (Side, Part) {
    c(array(&command.split(' ').collect::<Vec<_>>()))
}

fn make() -> Redis {
    Redis::new().with_text(true)
}

#[test]
fn commands_and_replies() {
    let deep = format!("{}:1\r\n", "*1\r\n".repeat(5_000));
    table(
        make,
        &[
            ("a command", vec![ask("GET secret"), s("$1\r\nx\r\n")], &["GET in=0 text=GET ?"]),
            (
                "lower case and a subcommand",
                vec![ask("config get *"), s("*0\r\n"), ask("client setname secret"), s("+OK\r\n")],
                &["CONFIG GET in=0 text=CONFIG GET ?", "CLIENT SETNAME in=0 text=CLIENT SETNAME ?"],
            ),
            (
                "a pipeline",
                vec![
                    c([array(&["SET", "k", "v"]), array(&["INCR", "k"]), array(&["GET", "k"])]
                        .concat()),
                    s("+OK\r\n-WRONGTYPE Operation against\r\n$-1\r\n"),
                ],
                &[
                    "SET in=0 text=SET ? ?",
                    "INCR in=0 error=WRONGTYPE text=INCR ?",
                    "GET in=0 text=GET ?",
                ],
            ),
            (
                "inline, empty lines and empty arrays",
                vec![c("\r\nPING\r\n*0\r\n  set  a 'b \\' c' \n*-1\r\n"), s("+PONG\r\n+OK\r\n")],
                &["PING in=0 text=PING", "SET in=0 text=SET ? ?"],
            ),
            (
                "SELECT counts from its reply on",
                vec![
                    ask("SELECT 7"),
                    s("+OK\r\n"),
                    ask("SELECT 99"),
                    s("-ERR DB index\r\n"),
                    ask("PING"),
                    s("+PONG\r\n"),
                ],
                &[
                    "SELECT in=7 text=SELECT ?",
                    "SELECT in=7 error=ERR text=SELECT ?",
                    "PING in=7 text=PING",
                ],
            ),
            (
                "SELECT in a transaction counts from EXEC on",
                vec![
                    ask("MULTI"),
                    s("+OK\r\n"),
                    ask("SELECT 2"),
                    s("+QUEUED\r\n"),
                    ask("EXEC"),
                    s("*1\r\n+OK\r\n"),
                    ask("MULTI"),
                    s("+OK\r\n"),
                    ask("SELECT 3"),
                    s("+QUEUED\r\n"),
                    ask("EXEC"),
                    s("*-1\r\n"),
                    ask("PING"),
                    s("+PONG\r\n"),
                ],
                &[
                    "MULTI in=0 text=MULTI",
                    "SELECT in=0 text=SELECT ?",
                    "EXEC in=2 text=EXEC",
                    "MULTI in=2 text=MULTI",
                    "SELECT in=2 text=SELECT ?",
                    "EXEC in=2 text=EXEC",
                    "PING in=2 text=PING",
                ],
            ),
            (
                "RESP3's types, with pushes between",
                vec![
                    ask("HELLO 3"),
                    s(
                        "%2\r\n$6\r\nserver\r\n+redis\r\n+x\r\n*2\r\n%1\r\n+a\r\n~1\r\n:1\r\n=6\r\ntxt:ab\r\n",
                    ),
                    ask("GET k"),
                    s(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"),
                    s("|1\r\n+ttl\r\n:3\r\n"),
                    s("!12\r\nSYNTAX wrong\r\n"),
                    ask("X"),
                    s(
                        "*7\r\n,1.5\r\n#t\r\n_\r\n(12345678901234567890123\r\n|1\r\n+a\r\n+b\r\n:1\r\n*-1\r\n$-1\r\n",
                    ),
                ],
                &["HELLO in=0 text=HELLO ?", "GET in=0 error=SYNTAX text=GET ?", "X in=0 text=X"],
            ),
            (
                "nesting costs nothing",
                vec![ask("EVAL x"), s(deep), ask("PING"), s("+PONG\r\n")],
                &["EVAL in=0 text=EVAL ?", "PING in=0 text=PING"],
            ),
            (
                "RESP2 subscriptions",
                vec![
                    ask("SUBSCRIBE a b"),
                    s(
                        "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n",
                    ),
                    s("*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"),
                    s("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n"),
                    ask("PING"),
                    s("*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
                    ask("UNSUBSCRIBE"),
                    s(
                        "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n",
                    ),
                    ask("LRANGE l 0 -1"),
                    s("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n"),
                ],
                &[
                    "SUBSCRIBE in=0 text=SUBSCRIBE ? ?",
                    "PING in=0 text=PING",
                    "UNSUBSCRIBE in=0 text=UNSUBSCRIBE",
                    "LRANGE in=0 text=LRANGE ? ? ?",
                ],
            ),
            (
                "RESP3 subscriptions",
                vec![
                    ask("SUBSCRIBE a"),
                    s(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"),
                    ask("GET k"),
                    s(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n_\r\n"),
                ],
                &["SUBSCRIBE in=0 text=SUBSCRIBE ?", "GET in=0 text=GET ?"],
            ),
            (
                "a refused subscription",
                vec![ask("SUBSCRIBE a b"), s("-NOPERM no\r\n"), ask("PING"), s("+PONG\r\n")],
                &["SUBSCRIBE in=0 error=NOPERM text=SUBSCRIBE ? ?", "PING in=0 text=PING"],
            ),
            (
                "MONITOR's lines are no replies",
                vec![
                    ask("MONITOR"),
                    s("+OK\r\n+1.2 [0 x] \"GET\"\r\n"),
                    ask("RESET"),
                    s("+2.2 [0 x] \"GET\"\r\n+RESET\r\n"),
                ],
                &["MONITOR in=0 text=MONITOR", "RESET in=0 text=RESET"],
            ),
            (
                "CLIENT REPLY",
                vec![
                    ask("CLIENT REPLY SKIP"),
                    ask("SET a 1"),
                    ask("CLIENT REPLY OFF"),
                    ask("PING"),
                    ask("client reply on"),
                    s("+OK\r\n"),
                ],
                &[
                    "CLIENT REPLY in=0 text=CLIENT REPLY ?",
                    "SET in=0 text=SET ? ?",
                    "CLIENT REPLY in=0 text=CLIENT REPLY ?",
                    "PING in=0 text=PING",
                    "CLIENT REPLY in=0 text=CLIENT REPLY ?",
                ],
            ),
            (
                "replication is another protocol",
                vec![ask("PSYNC ? -1"), s("+FULLRESYNC x 0\r\n$5\r\nREDIS")],
                &["PSYNC in=0 text=PSYNC ? ?", "Lost"],
            ),
            (
                "what is unanswered",
                vec![ask("GET a"), ask("BLPOP a 0"), s("$5\r\nab"), c("*2\r\n$3\r\nDEL\r\n$1\r\n")],
                &[
                    "GET in=0 trouble=Truncated text=GET ?",
                    "BLPOP in=0 trouble=NoResponse text=BLPOP ? ?",
                    "DEL in=0 trouble=Truncated text=DEL ?",
                ],
            ),
            (
                "the server ends",
                vec![ask("GET a"), (SERVER, Part::End)],
                &["GET in=0 trouble=NoResponse text=GET ?"],
            ),
            (
                "a name that is none",
                vec![c("*1\r\n$2\r\n\x01a\r\n"), s("-ERR\r\n")],
                &["_OTHER in=0 error=ERR text=_OTHER"],
            ),
            ("a greeting of refusal", vec![s("-ERR max number of clients reached\r\n")], &[]),
            ("no Redis", vec![c("\x16\x03\x01\n")], &["Lost"]),
            ("a length that is none", vec![c("*1\r\n$x\r\n")], &["Lost"]),
            ("a count too large", vec![c("*99999999999999999999\r\n")], &["Lost"]),
            (
                "no reply",
                vec![ask("PING"), s("+PONG\r\n"), ask("GET a"), s("?\r\n")],
                &["PING in=0 text=PING", "GET in=0 trouble=NoResponse gap=true text=GET ?"],
            ),
        ],
    );
}

#[test]
fn missing_bytes() {
    table(
        make,
        &[
            (
                "inside a value they are progress",
                vec![
                    c("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nab"),
                    missing(CLIENT, 1000),
                    s("+OK\r\n"),
                    ask("GET k"),
                    s("$1000\r\n"),
                    missing(SERVER, 900),
                    s([b'x'; 102]),
                    ask("PING"),
                    s("+PONG\r\n"),
                ],
                &["SET in=0 text=SET ? ?", "GET in=0 text=GET ?", "PING in=0 text=PING"],
            ),
            (
                "tap comes late",
                vec![
                    missing(CLIENT, 5),
                    missing(SERVER, 5),
                    ask("GET k"),
                    s("$-1\r\n"),
                    ask("PING"),
                    s("+PONG\r\n"),
                ],
                &["GET gap=true text=GET ?", "PING text=PING"],
            ),
            (
                "tap comes in the middle of a value",
                vec![
                    missing(SERVER, 1),
                    missing(CLIENT, 1),
                    c("middle*3\r\n"),
                    s("+OK\r\n"),
                    ask("PING"),
                    s("+PONG\r\n"),
                ],
                &["PING gap=true text=PING"],
            ),
            (
                "a reply's end is missing: the next command finds the way",
                vec![
                    ask("GET k"),
                    s("*2\r\n$3\r\nab"),
                    missing(SERVER, 100),
                    s("junk"),
                    ask("PING"),
                    s("+PONG\r\n"),
                    ask("ECHO x"),
                    s("$1\r\nx\r\n"),
                ],
                &[
                    "GET in=0 gap=true text=GET ?",
                    "PING in=0 gap=true text=PING",
                    "ECHO in=0 text=ECHO ?",
                ],
            ),
            (
                "a reply's end is missing, and is known to be once the next reply comes",
                vec![
                    ask("LRANGE l 0 9"),
                    s("*10\r\n$3\r\nab"),
                    ask("LPUSH k x"),
                    missing_until(SERVER, 100, 1),
                    s("-WRONGTYPE k\r\n"),
                    ask("PING"),
                    s("+PONG\r\n"),
                ],
                &[
                    "LRANGE in=0 gap=true text=LRANGE ? ? ?",
                    "LPUSH in=0 error=WRONGTYPE text=LPUSH ? ?",
                    "PING in=0 text=PING",
                ],
            ),
            (
                "commands are missing: those until the next turn are not told",
                vec![
                    ask("GET k"),
                    missing(CLIENT, 50),
                    ask("GET l"),
                    s("$-1\r\n$-1\r\n$-1\r\n"),
                    ask("PING"),
                    s("+PONG\r\n"),
                    ask("ECHO x"),
                    s("$1\r\nx\r\n"),
                ],
                &["GET gap=true text=GET ?", "PING text=PING", "ECHO text=ECHO ?"],
            ),
        ],
    );
}

#[test]
fn a_long_pipeline_is_bounded() {
    let count = PIPELINE_MAX + 1000;
    let talk: Talk = vec![
        c(array(&["INCR", "k"]).repeat(count)),
        s(":1\r\n".repeat(count)),
        ask("PING"),
        s("+PONG\r\n"),
    ];
    let (exchanges, _) = cuts::everywhere(Redis::new, &talk);
    let told = cuts::lines(&exchanges);
    assert_eq!(told.len(), PIPELINE_MAX + 1);
    assert_eq!(told[PIPELINE_MAX - 1], "PIPELINE in=0 batch=1001");
    assert_eq!(told[PIPELINE_MAX], "PING in=0");
}

#[test]
fn bytes_and_times_are_those_of_the_pieces() {
    let mut out = Vec::new();
    let mut redis = Redis::new();
    for (at, (side, bytes)) in [
        (CLIENT, &b"*2\r\n$3\r\nG"[..]),
        (CLIENT, b"ET\r\n$1\r\nk\r\n"),
        (SERVER, b"$3\r\na"),
        (SERVER, b"bc\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        redis.take(side, Piece::Bytes(bytes), 10 + at as u64, &mut out);
    }
    let exchange = &out[0];
    assert_eq!((exchange.began_ns, exchange.ended_ns, exchange.bytes), (10, 13, [20, 9]));
    let crate::protocol::exchange::Message::Query(query) = &exchange.message else {
        panic!("no query")
    };
    assert_eq!((query.system, &query.text), ("redis", &None));
}

#[test]
fn memory_is_bounded_whatever_is_asked() {
    let mut redis = make();
    let mut out = Vec::new();
    let name = "X".repeat(WORD_MAX);
    let wide: Vec<&str> = std::iter::once("CONFIG").chain([name.as_str(); 2000]).collect();
    let wide = array(&wide);
    for _ in 0..4 * PIPELINE_MAX {
        redis.take(CLIENT, Piece::Bytes(&wide), 0, &mut out);
        assert!(redis.memory() <= MEMORY_MAX);
    }
    assert!(redis.memory() > TEXTS_MAX - 2 * TEXT_MAX);
    redis.finish(1, &mut out);
    assert_eq!((out.len(), redis.state.texts), (PIPELINE_MAX, 0));
}

const TALKS: &[&str] = &[
    "redis-py-resp2",
    "redis-py-resp3",
    "redis-pubsub-resp2",
    "redis-pubsub-resp3",
    "redis-cli",
    "redis-pipeline-resp2",
    "redis-pipeline-resp3",
    "redis-modes",
];

#[test]
fn real_conversations() {
    conforms(make, TALKS);
}

#[test]
fn noise_is_harmless() {
    let talks: Vec<Talk> = TALKS.iter().map(|name| fixture(&format!("{name}.talk"))).collect();
    cuts::stirred(fuzz_redis, &talks, 20_000);
}
