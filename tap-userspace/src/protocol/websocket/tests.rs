//! Sessions with what must be counted of them, however the bytes are cut.

use super::*;
use crate::protocol::noise::Noise;

#[derive(Clone, Copy, Debug)]
enum Event<'a> {
    C(&'a [u8]),
    S(&'a [u8]),
    MissC(u64),
    MissS(u64),
}
use Event::{C, MissC, MissS, S};

/// Feeds events, the n-th at time n: of each the first bytes, then pieces of one size.
fn feed(events: &[Event<'_>], first: usize, size: usize) -> Exchange {
    let (mut parser, mut out) = (Session::new(), Vec::new());
    let mut lost = false;
    for (event, at_ns) in events.iter().zip(1..) {
        let (side, pieces) = match *event {
            C(bytes) => (Side::Client, cut(bytes, first, size)),
            S(bytes) => (Side::Server, cut(bytes, first, size)),
            MissC(count) => (Side::Client, vec![Piece::Missing(count)]),
            MissS(count) => (Side::Server, vec![Piece::Missing(count)]),
        };
        for piece in pieces {
            lost |= matches!(parser.take(side, piece, at_ns, &mut out), Outcome::Lost);
        }
    }
    assert!(out.is_empty());
    parser.finish(99, &mut out);
    parser.finish(99, &mut out);
    assert_eq!(out.len(), 1);
    let session = out.remove(0);
    assert_eq!(session.gap, lost);
    session
}

fn cut(bytes: &[u8], first: usize, size: usize) -> Vec<Piece<'_>> {
    let (head, tail) = bytes.split_at(first.min(bytes.len()));
    std::iter::once(head).chain(tail.chunks(size)).map(Piece::Bytes).collect()
}

/// Frames, messages and payload of client and server, the close code, and whether it was lost.
fn show(exchange: &Exchange) -> String {
    let Message::WebSocket(session) = &exchange.message else { panic!("{exchange:?}") };
    let [client, server] = [0, 1].map(|side| {
        format!("{}/{}/{}", session.frames[side], session.messages[side], session.payload[side])
    });
    let code = session.close_code.map_or(String::new(), |code| format!(" closed {code}"));
    let lost = if exchange.gap { " lost" } else { "" };
    format!("{client} {server}{code}{lost} at {}-{}", exchange.began_ns, exchange.ended_ns)
}

/// The examples of RFC 6455 §5.7, and what else can come.
#[rustfmt::skip]
const CASES: &[(&str, &[Event<'_>], &str)] = &[
    ("a text message, unmasked", &[S(b"\x81\x05Hello")], "0/0/0 1/1/5 at 1-1"),
    ("a text message, masked", &[C(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")], "1/1/5 0/0/0 at 1-1"),
    ("a message in two frames", &[S(b"\x01\x03Hel"), S(b"\x80\x02lo")], "0/0/0 2/1/5 at 1-2"),
    ("ping between a message's frames, and pong", &[S(b"\x01\x03Hel\x89\x05Hello\x80\x02lo"), C(b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")], "1/0/0 3/1/5 at 1-2"),
    ("256 bytes", &[S(b"\x82\x7e\x01\x00"), S(&[7; 256])], "0/0/0 1/1/256 at 1-2"),
    ("64 KiB", &[S(b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"), MissS(65535), S(b"x")], "0/0/0 1/1/65536 at 1-3"),
    ("compressed (RSV1)", &[S(b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00")], "0/0/0 1/1/7 at 1-1"),
    ("empty", &[S(b"\x81\x00\x89\x00")], "0/0/0 2/1/0 at 1-1"),
    ("closed by the client, masked", &[C(b"\x88\x82\x01\x02\x03\x04\x02\xea"), S(b"\x88\x02\x03\xe9")], "1/0/0 1/0/0 closed 1000 at 1-2"),
    ("closed by the server, with a reason", &[S(b"\x88\x05\x03\xf3bye"), C(b"\x88\x80abcd")], "1/0/0 1/0/0 closed 1011 at 1-2"),
    ("closed without a code", &[S(b"\x88\x00")], "0/0/0 1/0/0 at 1-1"),
    ("a close frame of one byte", &[S(b"\x88\x01\x03\x81\x00")], "0/0/0 2/1/0 at 1-1"),
    ("missing inside a payload", &[C(b"\x82\x8a\0\0\0\0abc"), MissC(7), C(b"\x82\x80\0\0\0\0")], "2/2/10 0/0/0 at 1-3"),
    ("missing in a close frame: its code", &[S(b"\x88\x02"), MissS(2), S(b"\x81\x00")], "0/0/0 2/1/0 at 1-3"),
    ("missing beyond a payload", &[C(b"\x82\x8a\0\0\0\0abc"), MissC(8)], "0/0/3 0/0/0 lost at 1-2"),
    ("missing between frames", &[S(b"\x81\x00"), MissS(1)], "0/0/0 1/1/0 lost at 1-2"),
    ("missing in a head", &[S(b"\x81"), MissS(1)], "0/0/0 0/0/0 lost at 1-2"),
    ("cut off", &[S(b"\x81\x05Hel")], "0/0/0 0/0/3 at 1-1"),
    ("an opcode nobody has", &[S(b"\x81\x00\x83\x00")], "0/0/0 1/1/0 lost at 1-1"),
    ("a control frame in fragments", &[S(b"\x09\x00")], "0/0/0 0/0/0 lost at 1-1"),
    ("a control frame too long", &[S(b"\x89\x7e\x00\x80")], "0/0/0 0/0/0 lost at 1-1"),
    ("a length of 64 bits", &[S(b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00")], "0/0/0 0/0/0 lost at 1-1"),
    ("a length of 63 bits", &[S(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"), MissS(u64::MAX >> 1), S(b"\x81\x01"), MissS(u64::MAX)], "0/0/0 1/1/9223372036854775807 lost at 1-4"),
    ("nothing", &[], "0/0/0 0/0/0 at 99-99"),
];

#[test]
fn sessions_however_they_are_cut() {
    for (name, events, wanted) in CASES {
        for (first, size) in (1..=4).map(|size| (0, size)).chain((0..300).map(|at| (at, 4096))) {
            let shown = show(&feed(events, first, size));
            assert_eq!(shown, *wanted, "{name}, {first} bytes and then by {size}");
        }
    }
}

#[test]
fn bytes_are_counted_with_their_framing() {
    let session = feed(&[C(b"\x81\x80abcd"), S(b"\x81\x05He"), MissS(3)], 0, 4096);
    assert_eq!(session.bytes, [6, 7]);
}

#[test]
fn noise_is_never_trouble() {
    let mut noise = Noise::new(0x7773);
    let mut bytes = Vec::new();
    for _ in 0..40_000 {
        bytes.clear();
        for _ in 0..1 + noise.below(5) {
            for event in CASES[noise.below(CASES.len() as u32) as usize].1 {
                let (side, piece) = match event {
                    C(piece) => (0, *piece),
                    S(piece) => (1, *piece),
                    MissC(_) | MissS(_) => (0, &[][..]),
                };
                let piece = &piece[..piece.len().min(100)];
                bytes.push((piece.len() as u8) << 1 | side);
                bytes.extend_from_slice(piece);
            }
        }
        noise.stir(&mut bytes);
        fuzz_websocket(&bytes);
    }
}
