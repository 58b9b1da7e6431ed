//! Conversations with what must be told of them, however the bytes are cut.

use super::*;
use crate::protocol::{
    exchange::{Http, Message, Next},
    noise::Noise,
};

mod contents;
mod conversations;
mod fixtures;

/// What happens on a connection. The n-th happens at time n, from 1.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    C(&'a [u8]),
    S(&'a [u8]),
    /// Bytes of the client or the server are missing.
    MissC(u64),
    MissS(u64),
    EndC,
    EndS,
}

use Event::{C, EndC, EndS, MissC, MissS, S};

impl<'a> Event<'a> {
    fn piece(self) -> (Side, Piece<'a>) {
        match self {
            C(bytes) => (Side::Client, Piece::Bytes(bytes)),
            S(bytes) => (Side::Server, Piece::Bytes(bytes)),
            MissC(count) => (Side::Client, Piece::Missing(count)),
            MissS(count) => (Side::Server, Piece::Missing(count)),
            EndC => (Side::Client, Piece::End),
            EndS => (Side::Server, Piece::End),
        }
    }
}

/// How bytes are cut: into pieces of so many bytes, or once, at a place in all of them.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Every(usize),
    At(usize),
}

/// Feeds the events and gives what was told.
fn feed(events: &[Event<'_>], cut: Cut) -> Vec<Exchange> {
    let (out, _) = feed_until(events, cut);
    out
}

/// The same, and what follows the protocol.
fn feed_until(events: &[Event<'_>], cut: Cut) -> (Vec<Exchange>, Option<String>) {
    let mut parser = Http1::new();
    let mut out = Vec::new();
    let mut fed = 0;
    for (event, at_ns) in events.iter().zip(1..) {
        let (side, piece) = event.piece();
        let Piece::Bytes(bytes) = piece else {
            assert!(matches!(parser.take(side, piece, at_ns, &mut out), Outcome::Continue));
            continue;
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let here = match cut {
                Cut::Every(size) => size,
                Cut::At(place) if place > fed => place - fed,
                Cut::At(_) => usize::MAX,
            };
            let (piece, behind) = rest.split_at(here.min(rest.len()));
            fed += piece.len();
            rest = behind;
            let outcome = parser.take(side, Piece::Bytes(piece), at_ns, &mut out);
            assert!(parser.memory() <= MEMORY_MAX);
            if let Outcome::Switch { to, rest: left } = outcome {
                parser.finish(99, &mut out);
                let to = match to {
                    Next::Http2(first) => format!("Http2 {}", show(&first)),
                    to => format!("{to:?}"),
                };
                return (out, Some(format!("{to}, {} left", left + rest.len())));
            }
        }
    }
    parser.finish(99, &mut out);
    (out, None)
}

fn http(exchange: &Exchange) -> &Http {
    match &exchange.message {
        Message::Http(http) => http,
        other => panic!("not HTTP: {other:?}"),
    }
}

/// `GET host/path 1.1 -> 200 body 0/5 at 1-2`, and what is special.
fn show(exchange: &Exchange) -> String {
    let http = http(exchange);
    let scheme = http.scheme.as_ref().map_or(String::new(), |scheme| format!("{scheme}://"));
    let mut line = format!(
        "{} {scheme}{}{} {} -> {} body {}/{} at {}-{}",
        http.method,
        http.authority.as_deref().unwrap_or("-"),
        http.target,
        http.version,
        http.status.unwrap_or(0),
        http.body[0],
        http.body[1],
        exchange.began_ns,
        exchange.ended_ns
    );
    for (name, value) in http.trailers.iter() {
        line += &format!(" {name}={value}");
    }
    if let Some(error) = http.error {
        line += &format!(" {error:?}");
    }
    line + if exchange.gap { " gap" } else { "" }
}

/// Every cut of the events gives the same exchanges; here they are.
fn told(events: &[Event<'_>]) -> (Vec<Exchange>, Option<String>) {
    let all = feed_until(events, Cut::Every(usize::MAX));
    let length: usize = events.iter().map(|event| event.len()).sum();
    for cut in (1..=3).map(Cut::Every).chain((1..length).map(Cut::At)) {
        assert_eq!(feed_until(events, cut), all, "{cut:?} of {events:?}");
    }
    all
}

impl Event<'_> {
    fn len(&self) -> usize {
        if let C(bytes) | S(bytes) = self { bytes.len() } else { 0 }
    }
}

/// Asserts what is told, in any cut; `whole`: each byte belongs to an exchange.
#[track_caller]
fn check(name: &str, whole: bool, events: &[Event<'_>], wanted: &[&str]) {
    let (out, next) = told(events);
    let shown: Vec<_> =
        out.iter().map(show).chain(next.iter().map(|next| format!("=> {next}"))).collect();
    assert_eq!(shown, wanted, "{name}");
    if whole {
        let mut sent = [0; 2];
        for event in events {
            let (side, piece) = event.piece();
            sent[side as usize] += match piece {
                Piece::Bytes(bytes) => bytes.len() as u64,
                Piece::Missing(count) => count,
                Piece::End => 0,
            };
        }
        let counted = out
            .iter()
            .fold([0, 0], |sum, exchange| [sum[0] + exchange.bytes[0], sum[1] + exchange.bytes[1]]);
        assert_eq!(counted, sent, "{name}: bytes");
    }
}

#[test]
fn fields_are_told_in_order_and_in_lower_case() {
    let (out, _) = told(&[
        C(b"GET / HTTP/1.1\r\nHost: a\r\nX-One: 1 \r\nx-one:2\r\n\r\n"),
        S(b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"),
    ]);
    let http = http(&out[0]);
    let request: Vec<_> = http.request.iter().collect();
    assert_eq!(request, [("host", "a"), ("x-one", "1"), ("x-one", "2")]);
    let response: Vec<_> = http.response.iter().collect();
    assert_eq!(response, [("set-cookie", "a"), ("set-cookie", "b"), ("content-length", "0")]);
}

#[test]
fn folded_and_unclean_fields_are_mended() {
    let (out, _) = told(&[
        C(b"GET /\xff HTTP/1.1\r\nA: b\r\n\tc\n  d\r\nno field\r\n: x\r\nE: \xe4\r\n\r\n"),
        S(b"HTTP/1.1 200 OK\r\nF : g\r\nH: i\r\n j\r\nContent-Length: 0\r\n\r\n"),
    ]);
    let http = http(&out[0]);
    assert_eq!(http.target, "/\u{fffd}");
    let request: Vec<_> = http.request.iter().collect();
    assert_eq!(request, [("a", "b  \tc   d"), ("e", "\u{fffd}")]);
    let response: Vec<_> = http.response.iter().collect();
    assert_eq!(response, [("f", "g"), ("h", "i   j"), ("content-length", "0")]);
}

#[test]
fn a_head_has_at_most_64_kib() {
    for (length, fits) in [(half::HEAD_MAX - 40, true), (half::HEAD_MAX, false)] {
        let long = [b"GET / HTTP/1.1\r\nA: ", &vec![b'a'; length][..], b"\r\n\r\n"].concat();
        let first = b"GET /1 HTTP/1.1\r\n\r\n";
        let last = b"GET /2 HTTP/1.1\r\n\r\n";
        for cut in [usize::MAX, 1000, 1] {
            let out = feed(&[C(first), C(&long), C(last)], Cut::Every(cut));
            let errors: Vec<_> = out.iter().map(|exchange| http(exchange).error).collect();
            let middle = if fits { Trouble::NoResponse } else { Trouble::Malformed };
            let wanted = [Trouble::NoResponse, middle, Trouble::NoResponse];
            assert_eq!(errors, wanted.map(Some), "{length}, pieces of {cut}");
        }
    }
}

#[test]
fn a_head_has_at_most_2048_fields() {
    for (count, error) in [(129, Trouble::NoResponse), (2049, Trouble::Malformed)] {
        let head = [&b"GET / HTTP/1.1\r\n"[..], &b"a:b\r\n".repeat(count), b"\r\n"].concat();
        let out = feed(&[C(&head)], Cut::Every(usize::MAX));
        assert_eq!(out.len(), 1);
        assert_eq!(http(&out[0]).error, Some(error), "{count} fields");
        assert_eq!(http(&out[0]).method, "GET");
    }
}

#[test]
fn requests_beyond_the_bound_push_the_oldest_out() {
    let many = b"GET / HTTP/1.1\r\n\r\n".repeat(OUTSTANDING_MAX + 10);
    let (mut parser, mut out) = (Http1::new(), Vec::new());
    parser.take(Side::Client, Piece::Bytes(&many), 1, &mut out);
    assert_eq!(out.len(), 10);
    assert!(out.iter().all(|exchange| exchange.gap));
    let large = [b"GET /", &vec![b'a'; 60 << 10][..], b" HTTP/1.1\r\n\r\n"].concat().repeat(50);
    parser.take(Side::Client, Piece::Bytes(&large), 2, &mut out);
    assert!(parser.memory() < MEMORY_MAX / 2, "{}", parser.memory());
    parser.finish(3, &mut out);
    assert_eq!(out.len(), OUTSTANDING_MAX + 60);
    assert_eq!(parser.memory(), 0);
}

#[test]
fn any_length_that_is_claimed_is_harmless() {
    for length in ["18446744073709551615", "9223372036854775808"] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nabc");
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let events = [C(request), S(head.as_bytes()), MissS(u64::MAX - 5), MissS(u64::MAX)];
        let out = feed(&events, Cut::Every(usize::MAX));
        assert_eq!(out.len(), 1, "{length}");
    }
    let chunk = S(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc");
    let out = feed(
        &[C(b"GET / HTTP/1.1\r\n\r\n"), chunk, MissS(u64::MAX - 3), MissS(9), S(b"\r\n0\r\n\r\n")],
        Cut::Every(usize::MAX),
    );
    assert_eq!(show(&out[0]), format!("GET -/ 1.1 -> 200 body 0/{} at 1-5 gap", u64::MAX));
}

#[test]
fn noise_is_never_trouble() {
    let mut noise = Noise::new(0x6874_7470);
    let mut bytes = Vec::new();
    for _ in 0..40_000 {
        bytes.clear();
        // Pieces of real conversations, each with the byte that tells the side and the length.
        for _ in 0..1 + noise.below(6) {
            let events =
                conversations::CASES[noise.below(conversations::CASES.len() as u32) as usize];
            for event in events.2 {
                let (side, piece) = event.piece();
                let Piece::Bytes(mut piece) = piece else {
                    bytes.push(noise.byte() & 0x0f);
                    continue;
                };
                while !piece.is_empty() {
                    let steps = 2 + noise.below(30) as u8;
                    let count = usize::from(steps) * usize::from(steps);
                    let (now, later) = piece.split_at(count.min(piece.len()));
                    bytes.push(steps << 3 | (side as u8) << 2 | noise.byte() & 3);
                    bytes.extend_from_slice(now);
                    bytes.resize(bytes.len() + count - now.len(), b' ');
                    piece = later;
                }
            }
        }
        noise.stir(&mut bytes);
        fuzz_http1(&bytes);
    }
}
