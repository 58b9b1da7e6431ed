//! Contents that are kept: the same however the bytes are cut, without a hole, within the bounds.

use super::*;

/// Most bytes of a content.
const MOST: usize = 16;

/// Feeds the events with contents kept; what each exchange has of its request and response.
fn kept(events: &[Event<'_>], cut: Cut) -> Vec<[String; 2]> {
    let collect = Arc::new(Collect::new(MOST, 1 << 20));
    let mut parser = Http1::new().with_content(Some(collect.clone()));
    let mut out = Vec::new();
    let mut fed = 0;
    for (event, at_ns) in events.iter().zip(1..) {
        let (side, piece) = event.piece();
        let Piece::Bytes(mut rest) = piece else {
            parser.take(side, piece, at_ns, &mut out);
            continue;
        };
        while !rest.is_empty() {
            let here = match cut {
                Cut::Every(size) => size,
                Cut::At(place) if place > fed => place - fed,
                Cut::At(_) => usize::MAX,
            };
            let (piece, behind) = rest.split_at(here.min(rest.len()));
            fed += piece.len();
            rest = behind;
            parser.take(side, Piece::Bytes(piece), at_ns, &mut out);
            assert!(parser.memory() <= MEMORY_MAX + collect.connection);
        }
    }
    parser.finish(99, &mut out);
    assert_eq!(parser.contents, 0);
    let told = out.iter().map(|exchange| {
        let http = http(exchange);
        let content = http.content.as_ref().unwrap();
        [Side::Client, Side::Server].map(|side| {
            let kept = content.of(side);
            assert!(kept.len() as u64 <= http.body[side as usize]);
            String::from_utf8_lossy(kept).into_owned()
        })
    });
    let told = told.collect();
    drop(out);
    assert_eq!(collect.held(), 0);
    told
}

#[test]
fn contents_are_kept_however_they_are_cut() {
    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    type Row<'a> = (&'a str, &'a [Event<'a>], &'a [[&'a str; 2]]);
    let rows: &[Row<'_>] = &[
        (
            "lengths",
            &[C(POST), S(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")],
            &[["hello", "yes"]],
        ),
        (
            "chunks, with a trailer",
            &[
                C(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                    2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n"),
                S(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    4\r\n\r\n\r\n\r\n1\r\nz\r\n0\r\nA: b\r\n\r\n"),
            ],
            &[["abcde", "\r\n\r\nz"]],
        ),
        (
            "until the end",
            &[C(b"GET / HTTP/1.0\r\n\r\n"), S(b"HTTP/1.0 200 OK\r\n\r\nall of it"), EndS],
            &[["", "all of it"]],
        ),
        (
            "more than is kept",
            &[C(GET), S(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n01234567890123456789")],
            &[["", "0123456789012345"]],
        ),
        (
            "a hole: what follows it is not kept",
            &[
                C(GET),
                S(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabcd"),
                MissS(4),
                S(b"ijkl"),
            ],
            &[["", "abcd"]],
        ),
        (
            "a hole in chunks",
            &[
                C(GET),
                S(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabcd"),
                MissS(4),
                S(b"\r\n2\r\nij\r\n0\r\n\r\n"),
            ],
            &[["", "abcd"]],
        ),
        (
            "pipelined, and a response without a body between",
            &[
                C(POST),
                C(GET),
                C(POST),
                S(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 304 No\r\n\r\n"),
                S(b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3"),
            ],
            &[["hello", "1"], ["", ""], ["hello", "3"]],
        ),
        ("nothing answers", &[C(POST), EndC, EndS], &[["hello", ""]]),
    ];
    for (name, events, wanted) in rows {
        let length: usize = events.iter().map(|event| event.len()).sum();
        let cuts = (1..=3).map(Cut::Every).chain((1..length).map(Cut::At));
        for cut in cuts.chain([Cut::Every(usize::MAX)]) {
            assert_eq!(kept(events, cut), *wanted, "{name}, {cut:?}");
        }
    }
}

/// The response was seen before its request, as the directions are not ordered.
#[test]
fn an_orphan_brings_its_content() {
    let mut parser = Http1::new().with_content(Some(Arc::new(Collect::new(MOST, 1 << 20))));
    let mut out = Vec::new();
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    parser.take(Side::Server, Piece::Bytes(response), 5, &mut out);
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nask";
    parser.take(Side::Client, Piece::Bytes(request), 2, &mut out);
    let content = http(&out[0]).content.as_ref().unwrap();
    assert_eq!((content.of(Side::Client), content.of(Side::Server)), (&b"ask"[..], &b"ok"[..]));
    assert_eq!(parser.contents, 0);
}

#[test]
fn requests_that_wait_share_the_connection_s_bound() {
    let collect = Arc::new(Collect::new(1000, 1 << 20));
    let mut parser = Http1::new().with_content(Some(collect.clone()));
    let mut out = Vec::new();
    let request =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n{}", "x".repeat(900));
    for at_ns in 1..=50 {
        parser.take(Side::Client, Piece::Bytes(request.as_bytes()), at_ns, &mut out);
        assert!(parser.contents <= collect.connection && collect.held() <= collect.connection);
    }
    assert!(parser.contents > collect.connection / 2);
    parser.finish(99, &mut out);
    let kept =
        |exchange: &Exchange| http(exchange).content.as_ref().unwrap().of(Side::Client).len();
    let whole = out.iter().filter(|it| kept(it) == 900).count();
    assert_eq!((out.len(), whole, collect.cut()), (50, 4, 46));
}
