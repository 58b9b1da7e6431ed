//! Bytes that nobody kept, and connections that are older than tap.

use super::super::frame::HEAD;
use super::*;

#[test]
fn missing_bytes_are_progress_inside_a_payload() {
    let head =
        |length: usize, kind, flags| frame(kind, flags, 1, &vec![0; length])[..HEAD].to_vec();
    let cases: Vec<(&str, Vec<Event>, Vec<&str>)> = vec![
        (
            "of DATA, to its end and before it",
            vec![
                client(&[frame(1, 5, 1, &get())]),
                server(&[frame(1, 4, 1, OK), head(100, 0, 0)]),
                Misses(S, 100),
                server(&[head(50, 0, 1), vec![0; 10]]),
                Misses(S, 39),
                server(&[vec![0], frame(6, 0, 0, &[0; 8])]),
            ],
            vec!["1 GET http://h/ [] 200 [] body 0/150 bytes 26/178 at 2-7"],
        ),
        (
            "of a header block: its fields are unknown, what follows is not",
            vec![
                client(&[head(30, 1, 5), vec![0x82]]),
                Misses(C, 20),
                client(&[vec![0; 9], frame(1, 5, 3, &get())]),
                server(&[frame(1, 5, 1, OK), frame(1, 5, 3, OK)]),
            ],
            vec![
                "1  -://- [] 200 [] body 0/0 bytes 39/10 at 2-5 gap",
                "3 GET http://h/ [] 200 [] body 0/0 bytes 26/10 at 4-5",
            ],
        ),
        (
            "of a reset",
            vec![client(&[frame(1, 5, 1, &get())]), server(&[head(4, 3, 0)]), Misses(S, 4)],
            vec!["1 GET http://h/ [] - [] body 0/0 bytes 26/0 at 2-2 NoResponse gap"],
        ),
    ];
    for (what, events, want) in cases {
        check(what, Http2::new, &[hello().to_vec(), events].concat(), &want, false);
    }
}

#[test]
fn frames_are_found_again_after_a_gap() {
    let indexed = [&get()[..], &[0x40, 1, b'k', 1, b'v']].concat();
    let again = [&get()[..], &[0xbe]].concat();
    let both = [&again[..], &[0xbf]].concat();
    let junk = b"GET / HTTP/1.1 and other text that is no frame".to_vec();
    let events = [
        hello().to_vec(),
        vec![
            client(&[frame(1, 5, 1, &indexed), frame(1, 5, 3, &again)]),
            Misses(C, 77),
            Says(C, junk),
            Says(C, vec![0; 100]),
            // The table is unknown, what is put into it from here on is not.
            client(&[frame(1, 5, 21, &again), frame(1, 5, 23, &indexed)]),
            client(&[frame(1, 5, 25, &both)]),
            server(&[1, 3, 21, 23, 25].map(|stream| frame(1, 5, stream, OK))),
        ],
    ]
    .concat();
    let (out, lost) = run(Http2::new(), &events, |_, _| vec![]);
    let lines: Vec<_> = out.iter().map(show).collect();
    let want = [
        "1 GET http://h/ [k=v] 200 [] body 0/0 bytes 31/10 at 2-8 gap",
        "3 GET http://h/ [k=v] 200 [] body 0/0 bytes 27/10 at 2-8 gap",
        "21 GET http://h/ [] 200 [] body 0/0 bytes 27/10 at 6-8 gap",
        "23 GET http://h/ [k=v] 200 [] body 0/0 bytes 31/10 at 6-8",
        "25 GET http://h/ [k=v] 200 [] body 0/0 bytes 28/10 at 7-8 gap",
    ];
    assert_eq!(lines, want);
    assert!(!lost);
}

#[test]
fn a_joined_connection_is_read_from_its_next_frames() {
    let events = [
        // Trailers of a stream from before, and a response to it.
        client(&[frame(1, 5, 7, &fields(&[("t", "u")])), frame(8, 0, 0, &[0, 0, 0, 9])]),
        client(&[frame(1, 5, 9, &[&get()[..], &[0xc0]].concat())]),
        server(&[frame(1, 5, 7, OK), frame(1, 4, 9, &[0x88, 0xc1]), frame(0, 1, 9, b"abc")]),
        client(&[frame(1, 5, 11, &get())]),
        server(&[frame(1, 5, 11, OK)]),
    ];
    let want = [
        "9 GET http://h/ [] 200 [] body 0/3 bytes 27/23 at 1-2 gap",
        "11 GET http://h/ [] 200 [] body 0/0 bytes 26/10 at 3-4",
    ];
    check("joined", Http2::joined, &events, &want, false);

    // In the middle of a body.
    let mut events = events.to_vec();
    events.insert(0, Says(S, b"rest of a body".to_vec()));
    events.insert(0, Says(C, vec![0xff; 3000]));
    let (out, lost) = run(Http2::joined(), &events, |_, _| vec![]);
    assert_eq!((out.len(), lost), (2, false));
}
