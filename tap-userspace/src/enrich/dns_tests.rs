use super::*;

fn wire(labels: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in labels {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire
}

fn text(wire: &[u8]) -> Option<String> {
    Name::read(wire, 0)?.0.text(false)
}

#[test]
fn names_are_lower_case_and_escaped() {
    let cases: &[(&[&[u8]], Option<&str>)] = &[
        (&[b"API", b"Example", b"COM"], Some("api.example.com")),
        (&[b"_dmarc", b"a-b", b"x_y"], Some("_dmarc.a-b.x_y")),
        (&[b"a.b\\c", b"\x00 \x7f\xff"], Some("a\\.b\\\\c.\\000\\032\\127\\255")),
        (&[b"XN--BCHER-KVA"], Some("xn--bcher-kva")),
        (&[], None),
        // 4 * 63 + 1 is all that fits; 85 bytes that take 4 each are too many.
        (&[&[b'x'; 63], &[b'x'; 63], &[b'x'; 63], &[b'x'; 61]], Some(&long())),
        (&[&[0; 63]], Some(&"\\000".repeat(63))),
        (&[&[0; 63], &[0; 1]], None),
    ];
    for (labels, expected) in cases {
        assert_eq!(text(&wire(labels)).as_deref(), *expected, "{labels:?}");
    }
}

fn long() -> String {
    [63, 63, 63, 61].map(|len| "x".repeat(len)).join(".")
}

#[test]
fn names_too_long_are_refused() {
    let too_long: &[&[&[u8]]] =
        &[&[&[b'x'; 63], &[b'x'; 63], &[b'x'; 63], &[b'x'; 62]], &[b"x".as_slice(); 128]];
    for labels in too_long {
        assert!(Name::read(&wire(labels), 0).is_none());
    }
    assert!(Name::read(&wire(&[b"x".as_slice(); 127]), 0).is_some());
    // Labels of the reserved types 01 and 10.
    for len in [0x40, 0x80, 0xbf] {
        assert!(Name::read(&[&[len], &[b'x'; 255][..], &[0]].concat(), 0).is_none());
    }
}

#[test]
fn services_lose_the_labels_before_their_host() {
    let cases: &[(&[&[u8]], Option<&str>)] = &[
        (&[b"_8443", b"_https", b"api", b"test"], Some("api.test")),
        (&[b"api", b"_x", b"test"], Some("api._x.test")),
        (&[b"_dns"], None),
    ];
    for (labels, expected) in cases {
        let name = Name::read(&wire(labels), 0).unwrap().0;
        assert_eq!(name.text(true).as_deref(), *expected);
    }
}

#[test]
fn pointers_go_backwards_and_end() {
    type Case<'a> = (&'a [u8], usize, Option<(&'a str, usize)>);
    let cases: &[Case<'_>] = &[
        (b"\x01a\x00\x01b\xc0\x00", 3, Some(("b.a", 7))),
        // A pointer to a pointer.
        (b"\x01a\x00\xc0\x00\xc0\x03!", 5, Some(("a", 7))),
        (b"\xc0\x00", 0, None),
        (b"\x01a\xc0\x00", 0, None),
        (b"\xc0\x02\x01a\x00", 0, None),
        (b"\x01a\x00\xc0\x05\xc0\x03", 5, None),
        // Back, but into the run at hand.
        (b"\x01a\x01b\xc0\x02", 0, None),
        (b"\xc0", 0, None),
        (b"\x05a", 0, None),
        (b"\x01a", 0, None),
        (b"", 0, None),
        (b"\xff\xff", 0, None),
    ];
    for (bytes, at, expected) in cases {
        let read = Name::read(bytes, *at).map(|(name, end)| (name.text(false).unwrap(), end));
        let read = read.as_ref().map(|(name, end)| (name.as_str(), *end));
        assert_eq!(read, *expected, "{bytes:?}");
    }
    // Each of 126 labels behind a pointer of its own, as a compressor may do; and 8,000 in a row.
    let mut bytes = b"\x01x\x00".to_vec();
    let mut last = 0u16;
    for _ in 0..126 {
        let at = bytes.len() as u16;
        bytes.extend([1, b'y']);
        bytes.extend((0xc000 | last).to_be_bytes());
        last = at;
    }
    assert!(Name::read(&bytes, last.into()).is_some());
    let mut bytes = vec![0, 0];
    for pointer in 0..8_000u16 {
        bytes.extend((0xc000 | (2 * pointer)).to_be_bytes());
    }
    assert!(Name::read(&bytes, bytes.len() - 2).is_none());
}

fn cut(pieces: &[Piece<'_>]) -> Vec<String> {
    let (mut tcp, mut told) = (DnsTcp::default(), Vec::new());
    for piece in pieces {
        tcp.take(*piece, &mut |message| told.push(String::from_utf8_lossy(message).into_owned()));
    }
    told
}

#[test]
fn messages_are_cut_out_of_any_pieces() {
    let stream = b"\x00\x03abc\x00\x00\x00\x01d\x00\x04efgh";
    let expected = ["abc", "d", "efgh"];
    assert_eq!(cut(&[Piece::Bytes(stream)]), expected);
    let bytes: Vec<_> = stream.chunks(1).map(Piece::Bytes).collect();
    assert_eq!(cut(&bytes), expected);
    for at in 0..=stream.len() {
        let (one, two) = stream.split_at(at);
        assert_eq!(cut(&[Piece::Bytes(one), Piece::Bytes(two)]), expected, "{at}");
    }
}

#[test]
fn holes_cut_messages_and_hide_where_the_next_begins() {
    use Piece::{Bytes, End, Missing};
    let cases: &[(&str, &[Piece<'_>], &[&str])] = &[
        ("in a message", &[Bytes(b"\0\x04ab"), Missing(1), Bytes(b"d\0\x01e")], &["ab", "e"]),
        ("to its end", &[Bytes(b"\0\x04ab"), Missing(2), Bytes(b"\0\x01e")], &["ab", "e"]),
        ("two", &[Bytes(b"\0\x04ab"), Missing(1), Missing(1), Bytes(b"\0\x01e")], &["ab", "e"]),
        ("over its end", &[Bytes(b"\0\x04ab"), Missing(3), Bytes(b"\0\x01e")], &["ab"]),
        ("all of it", &[Bytes(b"\0\x02"), Missing(2), Bytes(b"\0\x01e")], &["e"]),
        ("in a length", &[Bytes(b"\0"), Missing(1), Bytes(b"\0\x01e")], &[]),
        ("between", &[Bytes(b"\0\x01e"), Missing(1), Bytes(b"\0\x01e")], &["e"]),
        ("nothing", &[Bytes(b"\0\x01e"), Missing(0), Bytes(b"\0\x01f")], &["e", "f"]),
        ("endless", &[Bytes(b"\0\x04ab"), Missing(u64::MAX), Bytes(b"\0\x01e")], &["ab"]),
        ("the end", &[Bytes(b"\0\x04ab"), End, Bytes(b"\0\x01e")], &["ab"]),
    ];
    for (name, pieces, expected) in cases {
        assert_eq!(cut(pieces), *expected, "{name}");
    }
}

#[test]
fn a_long_message_in_pieces_is_told_as_far_as_it_is_kept() {
    let mut stream = b"\xff\xff".to_vec();
    stream.resize(2 + 0xffff, b'x');
    stream.extend(b"\0\x01e");
    let lens = |step| {
        let (mut tcp, mut lens, mut most) = (DnsTcp::default(), Vec::new(), 0);
        for piece in stream.chunks(step) {
            tcp.take(Piece::Bytes(piece), &mut |message| lens.push(message.len()));
            most = most.max(tcp.memory());
        }
        assert!(most <= 2 * DnsTcp::HELD_MAX + 4, "{most}");
        lens
    };
    assert_eq!(lens(stream.len()), [0xffff, 1]);
    assert_eq!(lens(1000), [DnsTcp::HELD_MAX, 1]);
    assert_eq!(lens(1), [DnsTcp::HELD_MAX, 1]);
}
