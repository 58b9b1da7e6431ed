//! For tests of parsers: recorded conversations, and the rule that cutting their bytes elsewhere
//! changes nothing.
#![forbid(unsafe_code)]

use std::fmt::Write;

use super::exchange::{Exchange, Message, Outcome, Parser, Piece, Side};

/// Both directions of a conversation, in the order in which they spoke.
pub type Talk = Vec<(Side, Part)>;

/// A piece that owns its bytes.
#[derive(Clone, Debug)]
pub enum Part {
    Bytes(Vec<u8>),
    Missing(u64),
    /// So many bytes are missing, the last of which crossed at this time: known only once more came.
    MissingUntil(u64, u64),
    End,
}

/// What the client says.
pub fn c(bytes: impl AsRef<[u8]>) -> (Side, Part) {
    (Side::Client, Part::Bytes(bytes.as_ref().to_vec()))
}

/// What the server says.
pub fn s(bytes: impl AsRef<[u8]>) -> (Side, Part) {
    (Side::Server, Part::Bytes(bytes.as_ref().to_vec()))
}

/// Bytes that nobody kept.
pub fn missing(side: Side, count: u64) -> (Side, Part) {
    (side, Part::Missing(count))
}

/// Bytes that nobody kept, told after other things that happened later than they crossed.
pub fn missing_until(side: Side, count: u64, at_ns: u64) -> (Side, Part) {
    (side, Part::MissingUntil(count, at_ns))
}

/// A seed for the fuzzer: the pieces of `talk` in the form that [`super::frames::fuzz`] takes.
pub fn seed(talk: &Talk) -> Vec<u8> {
    let mut seed = Vec::new();
    for (side, part) in talk {
        let Part::Bytes(bytes) = part else { continue };
        for chunk in bytes.chunks(200) {
            seed.extend([*side as u8, chunk.len() as u8]);
            seed.extend(chunk);
        }
    }
    seed
}

/// Runs `fuzz` on some 10,000s of mutations of what is said in `talks`.
pub fn stirred(fuzz: impl Fn(&[u8]), talks: &[Talk], rounds: usize) {
    let mut noise = super::noise::Noise::new(11);
    let seeds: Vec<Vec<u8>> = talks.iter().map(seed).collect();
    for round in 0..rounds {
        let seed = &seeds[round % seeds.len()];
        let begin = noise.below(seed.len() as u32) as usize;
        // Long talks in parts, from their begin or from anywhere.
        let begin = if round % 2 == 0 { 0 } else { begin };
        let mut bytes = seed[begin..seed.len().min(begin + 3000)].to_vec();
        noise.stir(&mut bytes);
        fuzz(&bytes);
    }
}

/// Asserts that each of `fixtures/<name>.talk` gives the lines in `fixtures/<name>.lines`, wherever
/// it is cut; `QUERIES_BLESS=1` writes them instead.
pub fn conforms<P: Parser>(make: impl Fn() -> P, names: &[&str]) {
    for name in names {
        let (exchanges, end) = everywhere(&make, &fixture(&format!("{name}.talk")));
        let mut told = lines(&exchanges);
        told.push(end);
        let told = told.join("\n") + "\n";
        let path = format!("{}/../tests/fixtures/queries/{name}.lines", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("QUERIES_BLESS").is_some() {
            std::fs::write(&path, &told).expect("a file to write");
        }
        // What the recorded programs said in literals, keys and passwords.
        assert!(!told.contains("secret"), "{name}");
        let wanted = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(told, wanted, "{name}");
    }
}

/// Asserts what each talk gives, wherever it is cut: a line for each exchange, and how it ends.
pub fn table<P: Parser>(make: impl Fn() -> P, cases: &[(&str, Talk, &[&str])]) {
    for (name, talk, wanted) in cases {
        let (exchanges, end) = everywhere(&make, talk);
        let mut told = lines(&exchanges);
        if end != "Continue" {
            told.push(end);
        }
        assert_eq!(told, *wanted, "{name}");
    }
}

/// Reads `fixtures/<name>`: a line of comment, then records of a side (`C`, `S`), a length (32
/// bits, little end first) and bytes.
pub fn fixture(name: &str) -> Talk {
    let path = format!("{}/../tests/fixtures/queries/{name}", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let comment = file.iter().position(|byte| *byte == b'\n').expect("a line of comment");
    let mut rest = &file[comment + 1..];
    let mut talk = Vec::new();
    while let Some(([side, len @ ..], after)) = rest.split_first_chunk::<5>() {
        let (bytes, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        talk.push(if *side == b'C' { c(bytes) } else { s(bytes) });
        rest = after;
    }
    talk
}

/// What `parser` tells; the time of piece `n` is `n`, however it is cut.
fn run<P: Parser>(
    mut parser: P,
    talk: &Talk,
    cut: impl Fn(usize, usize) -> Vec<usize>,
) -> (Vec<Exchange>, String) {
    let mut out = Vec::new();
    let mut end = String::from("Continue");
    'talk: for (at, (side, part)) in talk.iter().enumerate() {
        let bytes = match part {
            Part::Bytes(bytes) => bytes,
            Part::Missing(count) => {
                parser.take(*side, Piece::Missing(*count), at as u64, &mut out);
                continue;
            }
            Part::MissingUntil(count, at_ns) => {
                parser.take(*side, Piece::Missing(*count), *at_ns, &mut out);
                continue;
            }
            Part::End => {
                parser.take(*side, Piece::End, at as u64, &mut out);
                continue;
            }
        };
        let mut begin = 0;
        for stop in cut(at, bytes.len()).into_iter().chain([bytes.len()]) {
            let outcome =
                parser.take(*side, Piece::Bytes(&bytes[begin..stop]), at as u64, &mut out);
            begin = stop;
            match outcome {
                Outcome::Continue => {}
                Outcome::Lost => {
                    end = "Lost".to_owned();
                    break 'talk;
                }
                Outcome::Switch { to, rest } => {
                    end = format!("{to:?} at {at} {}", begin - rest);
                    break 'talk;
                }
            }
        }
    }
    parser.finish(talk.len() as u64, &mut out);
    (out, end)
}

/// Runs `talk` whole, byte by byte and split at each place (at most some 2,000 of them), and
/// asserts that the same is told each time.
pub fn everywhere<P: Parser>(make: impl Fn() -> P, talk: &Talk) -> (Vec<Exchange>, String) {
    let whole = run(make(), talk, |_, _| Vec::new());
    let single = run(make(), talk, |_, len| (1..len).collect());
    assert_eq!(single, whole, "byte by byte");
    let len = |part: &Part| if let Part::Bytes(bytes) = part { bytes.len() } else { 0 };
    let total: usize = talk.iter().map(|(_, part)| len(part)).sum();
    let step = (total / 1000).max(1);
    let effort = (20_000_000 / total.max(1)).max(20);
    let mut tried = 0;
    for (piece, (_, part)) in talk.iter().enumerate() {
        for place in (1..len(part)).step_by(step) {
            tried += 1;
            if tried > effort {
                return whole;
            }
            let split =
                run(make(), talk, |at, _| if at == piece { vec![place] } else { Vec::new() });
            assert_eq!(split, whole, "piece {piece} split at {place}");
        }
    }
    whole
}

/// One line for each exchange.
pub fn lines(exchanges: &[Exchange]) -> Vec<String> {
    exchanges.iter().map(line).collect()
}

fn line(exchange: &Exchange) -> String {
    let Message::Query(query) = &exchange.message else { panic!("no query: {exchange:?}") };
    let mut line = query.operation.clone();
    let mut add = |name: &str, value: Option<&dyn std::fmt::Display>| {
        if let Some(value) = value {
            write!(line, " {name}={value}").expect("room");
        }
    };
    add("on", query.target.as_ref().map(|value| value as _));
    add("in", query.namespace.as_ref().map(|value| value as _));
    add("batch", (query.batch > 0).then_some(&query.batch as _));
    add("error", query.error.as_ref().map(|value| value as _));
    let trouble = query.trouble.map(|trouble| format!("{trouble:?}"));
    add("trouble", trouble.as_ref().map(|value| value as _));
    add("gap", exchange.gap.then_some(&true as _));
    add("text", query.text.as_ref().map(|value| value as _));
    line
}
