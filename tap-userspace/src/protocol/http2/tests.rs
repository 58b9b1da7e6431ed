//! Cases of frames, each whole and cut anywhere. Missing bytes are in `gaps`, real programs in
//! `real`, hostile ones in `hostile`.

mod contents;
mod gaps;
mod hostile;
mod real;

use super::*;
use crate::protocol::exchange::Headers;

pub(super) const C: Side = Side::Client;
pub(super) const S: Side = Side::Server;

/// What a direction does.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Says(Side, Vec<u8>),
    Misses(Side, u64),
    Ends(Side),
}

use Event::{Ends, Misses, Says};

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Literal fields that are not indexed.
pub(super) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![];
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// `GET http://h/` from the static table, with the authority as a literal.
fn get() -> Vec<u8> {
    [&[0x82, 0x86, 0x84][..], &fields(&[(":authority", "h")])].concat()
}

const OK: &[u8] = &[0x88];

fn client(frames: &[Vec<u8>]) -> Event {
    Says(C, frames.concat())
}

fn server(frames: &[Vec<u8>]) -> Event {
    Says(S, frames.concat())
}

/// The beginning of each connection.
fn hello() -> [Event; 2] {
    [
        client(&[PREFACE.to_vec(), frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])]),
        server(&[frame(4, 0, 0, &[]), frame(4, 1, 0, &[])]),
    ]
}

fn feed(
    parser: &mut Http2,
    side: Side,
    piece: Piece<'_>,
    at_ns: u64,
    out: &mut Vec<Exchange>,
) -> bool {
    let outcome = parser.take(side, piece, at_ns, out);
    assert!(parser.memory() <= MEMORY_MAX);
    matches!(outcome, Outcome::Lost)
}

/// Runs the events, the nth at time n; a piece is cut where `cut` tells from its number and length.
pub(super) fn run(
    mut parser: Http2,
    events: &[Event],
    cut: impl Fn(usize, usize) -> Vec<usize>,
) -> (Vec<Exchange>, bool) {
    let mut out = vec![];
    let mut lost = false;
    for (nth, event) in events.iter().enumerate() {
        let at_ns = nth as u64;
        lost |= match event {
            Misses(side, missing) => {
                feed(&mut parser, *side, Piece::Missing(*missing), at_ns, &mut out)
            }
            Ends(side) => feed(&mut parser, *side, Piece::End, at_ns, &mut out),
            Says(side, bytes) => {
                let mut lost = false;
                let mut begin = 0;
                for end in cut(nth, bytes.len()).into_iter().chain([bytes.len()]) {
                    let piece = Piece::Bytes(&bytes[begin..end]);
                    lost |= feed(&mut parser, *side, piece, at_ns, &mut out);
                    begin = end;
                }
                lost
            }
        };
    }
    parser.finish(events.len() as u64, &mut out);
    assert_eq!(parser.streams_bytes, 0);
    (out, lost)
}

/// Runs the events whole, byte by byte, and cut in two at each place.
pub(super) fn run_cut(new: impl Fn() -> Http2, events: &[Event]) -> (Vec<Exchange>, bool) {
    let whole = run(new(), events, |_, _| vec![]);
    assert_eq!(run(new(), events, |_, len| (1..len).collect()), whole, "byte by byte");
    for (nth, event) in events.iter().enumerate() {
        let Says(_, bytes) = event else { continue };
        for at in 1..bytes.len() {
            let cut = run(new(), events, |n, _| if n == nth { vec![at] } else { vec![] });
            assert_eq!(cut, whole, "piece {nth} cut at {at}");
        }
    }
    whole
}

fn show_fields(headers: &Headers) -> String {
    let fields: Vec<_> = headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("[{}]", fields.join(" "))
}

/// An exchange in one line.
pub(super) fn show(exchange: &Exchange) -> String {
    let Message::Http(http) = &exchange.message else { panic!("no HTTP: {exchange:?}") };
    assert_eq!(http.version, "2");
    let status = http.status.map_or("-".to_owned(), |status| status.to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
    let mut line = format!(
        "{} {} {}://{}{} {} {} {}",
        http.stream,
        http.method,
        text(&http.scheme),
        text(&http.authority),
        http.target,
        show_fields(&http.request),
        status,
        show_fields(&http.response),
    );
    if !http.trailers.is_empty() {
        line += &format!(" trailers {}", show_fields(&http.trailers));
    }
    let [up, down] = http.body;
    let [sent, received] = exchange.bytes;
    line += &format!(
        " body {up}/{down} bytes {sent}/{received} at {}-{}",
        exchange.began_ns, exchange.ended_ns
    );
    if let Some(trouble) = http.error {
        line += &format!(" {trouble:?}");
    }
    if exchange.gap {
        line += " gap";
    }
    line
}

fn check(what: &str, new: impl Fn() -> Http2, events: &[Event], want: &[&str], lost: bool) {
    let (out, was_lost) = run_cut(new, events);
    let lines: Vec<String> = out.iter().map(show).collect();
    assert_eq!(lines, want, "{what}");
    assert_eq!(was_lost, lost, "{what}");
}

#[test]
fn streams_become_exchanges() {
    let padded = |stream, flags: u8, payload: &[u8]| {
        frame(0, flags | 8, stream, &[&[3][..], payload, &[0; 3]].concat())
    };
    let cases: Vec<(&str, Vec<Event>, Vec<&str>)> = vec![
        (
            "a request and its response",
            vec![
                client(&[frame(1, 5, 1, &get())]),
                server(&[frame(1, 4, 1, OK), frame(0, 0, 1, b"abc")]),
                server(&[frame(0, 1, 1, b"de")]),
            ],
            vec!["1 GET http://h/ [] 200 [] body 0/5 bytes 26/33 at 2-4"],
        ),
        (
            "streams interleave, and end in another order",
            vec![
                client(&[frame(1, 4, 1, &get()), frame(1, 5, 3, &get())]),
                server(&[frame(1, 4, 3, OK), frame(1, 4, 1, &[0x8d])]),
                client(&[frame(0, 0, 1, b"xy"), frame(0, 1, 1, b"")]),
                server(&[frame(0, 0, 1, b"abc"), frame(0, 1, 3, b"d"), frame(0, 1, 1, b"e")]),
            ],
            vec![
                "3 GET http://h/ [] 200 [] body 0/1 bytes 26/20 at 2-5",
                "1 GET http://h/ [] 404 [] body 2/4 bytes 46/32 at 2-5",
            ],
        ),
        (
            "a block in parts, with padding and priority; padded data",
            vec![
                client(&[
                    frame(1, 0x28, 1, &[&[2, 0, 0, 0, 0, 9, 0x82, 0x86][..], &[0, 0]].concat()),
                    frame(9, 0, 1, &[]),
                    frame(9, 0, 1, &[0x84]),
                    frame(9, 4, 1, &fields(&[("a", "b")])),
                    padded(1, 0, b"xyz"),
                    padded(1, 1, b""),
                ]),
                server(&[frame(1, 1, 1, &[]), frame(9, 4, 1, OK)]),
            ],
            vec!["1 GET http://-/ [a=b] 200 [] body 3/0 bytes 81/19 at 2-3"],
        ),
        (
            "informational responses are passed over, trailers are kept apart",
            vec![
                client(&[frame(1, 4, 1, &get())]),
                server(&[frame(1, 4, 1, &fields(&[(":status", "103"), ("link", "x")]))]),
                server(&[frame(1, 4, 1, &fields(&[(":status", "100")]))]),
                client(&[frame(0, 0, 1, b"q"), frame(1, 5, 1, &fields(&[("t", "u")]))]),
                server(&[frame(1, 4, 1, &[&[0x88][..], &fields(&[("r", "s")])].concat())]),
                server(&[frame(0, 0, 1, b"12"), frame(1, 5, 1, &fields(&[("sum", "7")]))]),
            ],
            vec!["1 GET http://h/ [] 200 [r=s] trailers [sum=7] body 1/2 bytes 50/94 at 2-7"],
        ),
        (
            "a response may end before its request, which does not make it longer",
            vec![
                client(&[frame(1, 4, 1, &get())]),
                server(&[frame(1, 5, 1, OK)]),
                client(&[frame(0, 1, 1, b"late")]),
            ],
            vec!["1 GET http://h/ [] 200 [] body 4/0 bytes 39/10 at 2-3"],
        ),
        (
            "a server that has answered may ask for no more",
            vec![
                client(&[frame(1, 4, 1, &get())]),
                server(&[frame(1, 5, 1, OK), frame(3, 0, 1, &[0; 4])]),
                client(&[frame(0, 1, 1, b"late")]),
            ],
            vec!["1 GET http://h/ [] 200 [] body 0/0 bytes 26/10 at 2-3"],
        ),
        (
            "resets",
            vec![
                client(&[frame(1, 5, 1, &get()), frame(1, 5, 3, &get())]),
                server(&[frame(1, 4, 1, OK)]),
                client(&[frame(3, 0, 1, &[0, 0, 0, 8])]),
                server(&[frame(3, 0, 3, &[0, 0, 0, 7]), frame(0, 1, 1, b"late")]),
            ],
            vec![
                "1 GET http://h/ [] 200 [] body 0/0 bytes 26/10 at 2-4 Reset(Client, 8)",
                "3 GET http://h/ [] - [] body 0/0 bytes 26/0 at 2-5 Reset(Server, 7)",
            ],
        ),
        (
            "the connection ends",
            vec![
                client(&[frame(1, 5, 1, &get()), frame(1, 5, 3, &get()), frame(1, 4, 5, &get())]),
                server(&[frame(1, 4, 1, OK), frame(0, 0, 1, b"ab"), frame(1, 5, 5, OK)]),
                Ends(S),
                Ends(C),
            ],
            vec![
                "1 GET http://h/ [] 200 [] body 0/2 bytes 26/21 at 2-3 Truncated",
                "3 GET http://h/ [] - [] body 0/0 bytes 26/0 at 2-2 NoResponse",
                "5 GET http://h/ [] 200 [] body 0/0 bytes 26/10 at 2-3 Truncated",
            ],
        ),
        (
            "a client that is done is still answered, or not",
            vec![
                client(&[frame(1, 5, 1, &get()), frame(1, 5, 3, &get())]),
                Ends(C),
                server(&[frame(1, 5, 3, OK)]),
            ],
            vec![
                "3 GET http://h/ [] 200 [] body 0/0 bytes 26/10 at 2-4",
                "1 GET http://h/ [] - [] body 0/0 bytes 26/0 at 2-2 NoResponse",
            ],
        ),
        (
            "pushes are not told, but their blocks fill the table",
            vec![
                client(&[frame(1, 5, 1, &get())]),
                server(&[
                    frame(5, 4, 1, &[0, 0, 0, 2, 0x82, 0x40, 1, b'k', 1, b'v']),
                    frame(1, 4, 2, &[0x88, 0xbe]),
                    frame(1, 5, 1, &[0x88, 0xbe]),
                    frame(0, 1, 2, b"pushed"),
                ]),
            ],
            vec!["1 GET http://h/ [] 200 [k=v] body 0/0 bytes 26/11 at 2-3"],
        ),
        (
            "an extended CONNECT is one long exchange",
            vec![
                client(&[frame(
                    1,
                    4,
                    1,
                    &fields(&[
                        (":method", "CONNECT"),
                        (":protocol", "websocket"),
                        (":scheme", "https"),
                        (":path", "/chat"),
                        (":authority", "h"),
                    ]),
                )]),
                server(&[frame(1, 4, 1, OK), frame(0, 0, 1, b"down")]),
                client(&[frame(0, 0, 1, b"up")]),
                server(&[frame(0, 1, 1, b"")]),
                client(&[frame(0, 1, 1, b"")]),
            ],
            vec![
                "1 CONNECT https://h/chat [:protocol=websocket] 200 [] body 2/4 bytes 109/32 at 2-5",
            ],
        ),
        (
            "other frames are passed over",
            vec![
                client(&[
                    frame(6, 0, 0, &[1; 8]),
                    frame(0x10, 0, 0, b"\0\0\0\x01u=1"),
                    frame(2, 0, 1, &[0; 5]),
                    // Of a wrong length: harms only its stream.
                    frame(2, 0, 3, &[0; 4]),
                    frame(8, 0, 7, &[0; 4]),
                    frame(0xfa, 0xff, 9, &[0xff; 40]),
                    frame(1, 5, 1, &get()),
                ]),
                server(&[
                    frame(7, 0, 0, &[0; 30]),
                    frame(8, 0, 0, &[0, 0, 1, 0]),
                    frame(0, 1, 99, b"of no stream"),
                    frame(1, 5, 1, OK),
                ]),
            ],
            vec!["1 GET http://h/ [] 200 [] body 0/0 bytes 26/10 at 2-3"],
        ),
        (
            "without an authority the host tells it; the first of several counts",
            vec![
                client(&[frame(
                    1,
                    5,
                    1,
                    &[
                        &[0x82, 0x86][..],
                        &fields(&[(":path", "/a"), (":path", "/b"), ("host", "x:1")]),
                    ]
                    .concat(),
                )]),
                server(&[frame(1, 5, 1, OK)]),
            ],
            vec!["1 GET http://x:1/a [host=x:1] 200 [] body 0/0 bytes 41/10 at 2-3"],
        ),
        (
            "what is broken of a block is its stream's trouble",
            vec![
                client(&[frame(1, 5, 1, &[0x86]), frame(1, 5, 3, &[0x82, 0xff, 0x7f])]),
                client(&[frame(1, 5, 5, &get())]),
                server(&[frame(1, 5, 1, OK), frame(1, 5, 3, OK), frame(1, 5, 5, &[0x80])]),
            ],
            vec![
                "1  http://- [] 200 [] body 0/0 bytes 10/10 at 2-4 Malformed",
                "3 GET -://- [] 200 [] body 0/0 bytes 12/10 at 2-4 Malformed",
                "5 GET http://h/ [] - [] body 0/0 bytes 26/10 at 3-4 Malformed",
            ],
        ),
    ];
    for (what, events, want) in cases {
        check(what, Http2::new, &[hello().to_vec(), events].concat(), &want, false);
    }
}

#[test]
fn settings_bind_the_other_side() {
    let update = [0x3f, 0xe1, 0x3f, 0x82, 0x86, 0x84];
    let large = frame(0, 1, 1, &[0; 20_000]);
    let offer = frame(4, 0, 0, &[0, 1, 0, 0, 0x20, 0, 0, 5, 0, 0, 0x80, 0]);
    // The table grows to 8192 bytes and the frame to 32768, by what was offered.
    let events = [
        hello().to_vec(),
        vec![
            server(std::slice::from_ref(&offer)),
            client(&[frame(4, 1, 0, &[]), frame(1, 4, 1, &update)]),
        ],
        vec![client(std::slice::from_ref(&large)), server(&[frame(1, 5, 1, OK)])],
    ]
    .concat();
    let (out, lost) = run(Http2::new(), &events, |_, _| vec![]);
    assert_eq!(show(&out[0]), "1 GET http://-/ [] 200 [] body 20000/0 bytes 20024/10 at 3-5");
    assert!(!lost);

    // Without the offer neither is allowed.
    let events =
        [hello().to_vec(), vec![client(&[frame(1, 5, 1, &update)]), server(&[frame(1, 5, 1, OK)])]];
    let (out, _) = run(Http2::new(), &events.concat(), |_, _| vec![]);
    assert_eq!(show(&out[0]), "1  -://- [] 200 [] body 0/0 bytes 15/10 at 2-3 Malformed");
    let (_, lost) =
        run(Http2::new(), &[hello().to_vec(), vec![client(&[large])]].concat(), |_, _| vec![]);
    assert!(lost);

    // An acknowledged smaller one takes a larger one back.
    let less = frame(4, 0, 0, &[0, 1, 0, 0, 0, 0]);
    let events = [
        hello().to_vec(),
        vec![
            server(&[offer, less]),
            // Of the first, too.
            client(&[frame(4, 1, 0, &[]).repeat(3), frame(1, 5, 1, &update)]),
        ],
    ];
    let (out, _) = run(Http2::new(), &events.concat(), |_, _| vec![]);
    assert!(show(&out[0]).ends_with("Malformed"));
}

#[test]
fn what_is_not_http2_is_lost() {
    let block = frame(1, 1, 1, &get());
    let cases = [
        ("no preface", vec![Says(C, b"PRI * HTTP/2.1\r\n".to_vec())]),
        (
            "HTTP/1 as an answer",
            vec![hello()[0].clone(), Says(S, b"HTTP/1.1 400 Bad\r\n".to_vec())],
        ),
        (
            "a frame inside a block",
            vec![hello()[0].clone(), client(&[block.clone(), frame(6, 0, 0, &[0; 8])])],
        ),
        (
            "a block of another stream",
            vec![hello()[0].clone(), client(&[block, frame(9, 4, 3, &[])])],
        ),
        ("a block that was not begun", vec![hello()[0].clone(), client(&[frame(9, 4, 1, &[])])]),
        (
            "a push by the client",
            vec![hello()[0].clone(), client(&[frame(5, 4, 1, &[0, 0, 0, 2])])],
        ),
        (
            "a request on a server's stream",
            vec![hello()[0].clone(), client(&[frame(1, 5, 2, &get())])],
        ),
        ("padding without its length", vec![hello()[0].clone(), client(&[frame(0, 8, 1, &[])])]),
        ("padding beyond the payload", vec![hello()[0].clone(), client(&[frame(0, 8, 1, &[1])])]),
    ];
    for (what, events) in cases {
        check(what, Http2::new, &events, &[], true);
    }
    // Streams that are open then are told, and nothing after it is taken.
    let events = [
        hello().to_vec(),
        vec![
            client(&[frame(1, 5, 1, &get())]),
            Says(S, vec![0xff; 9]),
            server(&[frame(1, 5, 1, OK)]),
        ],
    ];
    let want = ["1 GET http://h/ [] - [] body 0/0 bytes 26/0 at 2-2 NoResponse"];
    check("lost", Http2::new, &events.concat(), &want, true);
}
