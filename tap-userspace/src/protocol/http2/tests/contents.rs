//! Contents that are kept: the same however the frames are cut, without a hole, within the bounds.

use super::*;
use crate::protocol::content::Collect;

fn kept(events: &[Event], collect: &Arc<Collect>, cut: usize) -> Vec<[String; 2]> {
    let mut parser = Http2::new().with_content(Some(collect.clone()));
    let mut out = vec![];
    for (event, at_ns) in events.iter().zip(1..) {
        match event {
            Misses(side, count) => {
                drop(parser.take(*side, Piece::Missing(*count), at_ns, &mut out));
            }
            Ends(side) => drop(parser.take(*side, Piece::End, at_ns, &mut out)),
            Says(side, bytes) => {
                for piece in bytes.chunks(cut) {
                    drop(parser.take(*side, Piece::Bytes(piece), at_ns, &mut out));
                    assert!(parser.contents <= collect.connection);
                }
            }
        }
    }
    parser.finish(99, &mut out);
    assert_eq!(parser.contents, 0);
    let told = out.iter().map(|exchange| {
        let Message::Http(http) = &exchange.message else { panic!() };
        let content = http.content.as_ref().unwrap();
        [C, S].map(|side| {
            assert!(content.of(side).len() as u64 <= http.body[side as usize]);
            String::from_utf8_lossy(content.of(side)).into_owned()
        })
    });
    told.collect()
}

#[test]
fn contents_are_kept_however_they_are_cut() {
    const END: u8 = 1;
    const PADDED: u8 = 8;
    let head = |stream| frame(1, 4, stream, &get());
    let ok = |stream| frame(1, 4, stream, OK);
    let data = |flags, stream, bytes: &[u8]| frame(0, flags, stream, bytes);
    let [client_hello, server_hello] = hello();
    let with =
        |events: Vec<Event>| [vec![client_hello.clone(), server_hello.clone()], events].concat();
    let rows = [
        (
            "frames, padding, two streams in turns",
            with(vec![
                client(&[head(1), data(0, 1, b"ab"), head(3), data(PADDED, 1, b"\x02cd00")]),
                client(&[data(END, 3, b"x"), data(END, 1, b"e")]),
                server(&[
                    ok(3),
                    ok(1),
                    data(0, 1, b"one "),
                    data(END, 3, b"three"),
                    data(END, 1, b"more"),
                ]),
            ]),
            vec![["x", "three"], ["abcde", "one more"]],
        ),
        (
            "more than is kept",
            with(vec![
                client(&[frame(1, 5, 1, &get())]),
                server(&[ok(1), data(0, 1, b"0123456789"), data(END, 1, b"0123456789")]),
            ]),
            vec![["", "0123456789012345"]],
        ),
        (
            "a hole in a frame",
            with(vec![
                client(&[frame(1, 5, 1, &get())]),
                Says(S, [ok(1), data(END, 1, b"abcdefgh")[..13].to_vec()].concat()),
                Misses(S, 2),
                Says(S, b"gh".to_vec()),
            ]),
            vec![["", "abcd"]],
        ),
    ];
    for (name, events, wanted) in rows {
        for cut in [1, 2, 3, 5, 7, 11, usize::MAX] {
            let collect = Arc::new(Collect::new(16, 1 << 20));
            assert_eq!(kept(&events, &collect, cut), wanted, "{name}, {cut}");
            assert_eq!(collect.held(), 0);
        }
    }
}

#[test]
fn streams_share_the_connection_s_bound() {
    let [client_hello, server_hello] = hello();
    let mut events = vec![client_hello, server_hello];
    for stream in 0..50 {
        let stream = 2 * stream + 1;
        events.push(client(&[frame(1, 4, stream, &get()), frame(0, 0, stream, &[b'x'; 900])]));
    }
    let collect = Arc::new(Collect::new(1000, 1 << 20));
    let whole = kept(&events, &collect, usize::MAX).iter().filter(|it| it[0].len() == 900).count();
    assert_eq!((whole, collect.cut()), (4, 46));
}
