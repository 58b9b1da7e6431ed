//! Tests of the handshake against what real programs said (tests/fixtures/tls).

mod fingerprints;
mod hellos;
mod pieces;
mod real;

use super::{Alert, ClientHello, Handshake, HelloError, ServerHello, TlsEvent};
use crate::protocol::exchange::{Piece, Side};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tls");

/// One connection: who said what, in its order.
struct Course {
    name: String,
    pieces: Vec<(Side, Vec<u8>)>,
}

impl Course {
    /// What a side said, in one.
    fn said(&self, side: Side) -> Vec<u8> {
        self.pieces.iter().filter(|(who, _)| *who == side).flat_map(|(_, b)| b.clone()).collect()
    }

    fn play(&self) -> Told {
        play(self.pieces.iter().enumerate().map(|(n, (side, bytes))| (n as u64, *side, &bytes[..])))
    }
}

/// Everything that a handshake tells.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    events: Vec<TlsEvent>,
    client_hello: Option<ClientHello>,
    server_hello: Option<ServerHello>,
    established: bool,
    resumed: Option<bool>,
    retried: bool,
    times: [Option<u64>; 2],
    alert: Option<Alert>,
    error: Option<HelloError>,
    gap: bool,
}

fn told(handshake: &Handshake, events: Vec<TlsEvent>) -> Told {
    Told {
        events,
        client_hello: handshake.client_hello().cloned(),
        server_hello: handshake.server_hello().cloned(),
        established: handshake.established(),
        resumed: handshake.resumed(),
        retried: handshake.retried(),
        times: [handshake.client_hello_ns(), handshake.ended_ns()],
        alert: handshake.alert(),
        error: handshake.error(),
        gap: handshake.gap(),
    }
}

fn play<'a>(pieces: impl Iterator<Item = (u64, Side, &'a [u8])>) -> Told {
    play_with_gaps(pieces.map(|(at, side, bytes)| (at, side, Piece::Bytes(bytes))))
}

fn play_with_gaps<'a>(pieces: impl Iterator<Item = (u64, Side, Piece<'a>)>) -> Told {
    let mut handshake = Handshake::new();
    let mut events = Vec::new();
    for (at, side, piece) in pieces {
        events.extend(handshake.take(side, piece, at));
    }
    told(&handshake, events)
}

/// All connections: those with their order, and those of which only the directions are known, with
/// the order that they must have had.
fn courses() -> Vec<Course> {
    let mut names: Vec<_> = std::fs::read_dir(FIXTURES)
        .expect("fixtures")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.ends_with(".pieces") || name.ends_with(".client.bin"))
        .map(|name| name.split('.').next().unwrap_or_default().to_owned())
        .collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 60, "{names:?}");
    names.iter().map(|name| course(name)).collect()
}

fn course(name: &str) -> Course {
    let read = |end: &str| std::fs::read(format!("{FIXTURES}/{name}.{end}"));
    let pieces = match read("pieces") {
        Ok(text) => String::from_utf8(text)
            .expect("text")
            .lines()
            .map(|line| {
                let (side, hex) = line.split_at(2);
                (if side == "c " { Side::Client } else { Side::Server }, unhex(hex))
            })
            .collect(),
        Err(_) => {
            let client = read("client.bin").expect("a fixture");
            let (hello, rest) = client.split_at(hello_end(&client));
            vec![
                (Side::Client, hello.to_vec()),
                (Side::Server, read("server.bin").expect("a fixture")),
                (Side::Client, rest.to_vec()),
            ]
        }
    };
    Course { name: name.to_owned(), pieces }
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).expect("hexadecimal"))
        .collect()
}

/// Where the ClientHello's last byte is.
fn hello_end(client: &[u8]) -> usize {
    let mut handshake = Handshake::new();
    for (n, byte) in client.iter().enumerate() {
        if !handshake.take(Side::Client, Piece::Bytes(&[*byte]), 0).is_empty() {
            assert!(handshake.client_hello().is_some());
            return n + 1;
        }
    }
    panic!("no whole hello");
}

/// What a client's first bytes tell.
fn client_says(bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let mut handshake = Handshake::new();
    handshake.take(Side::Client, Piece::Bytes(bytes), 0);
    match handshake.error() {
        Some(error) => Err(error),
        None => Ok(handshake.client_hello().cloned()),
    }
}

/// A record.
fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
    let length = u16::try_from(fragment.len()).expect("small").to_be_bytes();
    [&[kind, 3, 3], &length[..], fragment].concat()
}

/// A handshake message.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("small").to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// A hello with these extensions.
fn with_extensions(version: [u8; 2], ciphers: &[u8], extensions: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("small").to_be_bytes();
    let body = [
        &version,
        &[7; 32][..],
        &[0],
        &length(ciphers),
        ciphers,
        &[1, 0],
        &length(extensions),
        extensions,
    ]
    .concat();
    record(22, &message(1, &body))
}

fn parsed(version: [u8; 2], ciphers: &[u8], extensions: &[u8]) -> ClientHello {
    client_says(&with_extensions(version, ciphers, extensions)).expect("a hello").expect("whole")
}
