//! Pieces cut anywhere, pieces that are missing, and noise.

use super::*;
use crate::protocol::{noise::Noise, tls::fuzz_handshake};

#[test]
fn byte_by_byte_and_every_cut_tell_the_same() {
    for course in courses() {
        let whole = course.play();
        let numbered =
            || course.pieces.iter().enumerate().map(|(n, (side, b))| (n as u64, *side, &b[..]));
        let bytewise = numbered().flat_map(|(n, side, b)| b.chunks(1).map(move |b| (n, side, b)));
        assert_eq!(play(bytewise), whole, "{} byte by byte", course.name);
        for (cut_piece, (_, bytes)) in course.pieces.iter().enumerate() {
            // Most of what is long is certificates.
            let step = 1 + bytes.len() / 700;
            for cut in (0..=bytes.len()).step_by(step) {
                let pieces = numbered().flat_map(|(n, side, bytes)| {
                    let cut = if n == cut_piece as u64 { cut } else { 0 };
                    let (first, second) = bytes.split_at(cut);
                    [(n, side, first), (n, side, second)]
                });
                assert_eq!(play(pieces), whole, "{} piece {cut_piece} at {cut}", course.name);
            }
        }
    }
}

#[test]
fn every_prefix_tells_no_more_than_the_whole() {
    for course in courses() {
        let whole = course.play();
        let bytes: Vec<_> = course
            .pieces
            .iter()
            .enumerate()
            .flat_map(|(n, (side, b))| b.iter().map(move |byte| (n as u64, *side, *byte)))
            .collect();
        let mut handshake = Handshake::new();
        let mut events = Vec::new();
        for (n, side, byte) in bytes {
            events.extend(handshake.take(side, Piece::Bytes(&[byte]), n));
            assert_eq!(events[..], whole.events[..events.len()], "{}", course.name);
            assert_eq!(handshake.established(), events.contains(&TlsEvent::Established));
        }
    }
}

#[test]
fn the_order_of_the_directions_does_not_matter_for_the_end() {
    for course in courses() {
        // Which bytes are early data, and that a second hello is asked for, is known by order only.
        if course.name.contains("early") || course.name.contains("retry") {
            continue;
        }
        let whole = course.play();
        let (client, server) = (course.said(Side::Client), course.said(Side::Server));
        for pieces in [
            [(0, Side::Client, &client[..]), (1, Side::Server, &server[..])],
            [(0, Side::Server, &server[..]), (1, Side::Client, &client[..])],
        ] {
            let told = play(pieces.into_iter());
            assert_eq!(told.established, whole.established, "{}", course.name);
            // Those end it, so that nothing of the other direction is read any more.
            if whole.error.is_none() && whole.alert.is_none() {
                assert_eq!(told.server_hello, whole.server_hello, "{}", course.name);
                assert_eq!(told.client_hello, whole.client_hello, "{}", course.name);
            }
        }
    }
}

/// The course with `count` bytes of a side missing from `at` on.
fn with_gap(course: &Course, gap_side: Side, at: usize, count: usize) -> Told {
    let mut pieces = Vec::new();
    let mut offset = 0;
    for (n, (side, bytes)) in course.pieces.iter().enumerate() {
        if *side != gap_side {
            pieces.push((n as u64, *side, Piece::Bytes(bytes)));
            continue;
        }
        let begin = at.saturating_sub(offset).min(bytes.len());
        let end = (at + count).saturating_sub(offset).min(bytes.len());
        offset += bytes.len();
        pieces.push((n as u64, *side, Piece::Bytes(&bytes[..begin])));
        pieces.push((n as u64, *side, Piece::Missing((end - begin) as u64)));
        pieces.push((n as u64, *side, Piece::Bytes(&bytes[end..])));
    }
    play_with_gaps(pieces.into_iter())
}

#[test]
fn a_gap_in_a_hello_leaves_it_out_and_is_told() {
    for name in ["tls13", "tls12", "go-go", "tls12-ticket", "chrome146"] {
        let course = course(name);
        let whole = course.play();
        let hello = hello_end(&course.said(Side::Client));
        for at in 0..hello {
            let told = with_gap(&course, Side::Client, at, 1);
            assert!(told.gap && told.client_hello.is_none(), "{name} at {at}: {told:?}");
            assert_eq!(told.error, None, "{name} at {at}");
            let body = at >= 5;
            if body {
                // The records are still known.
                assert!(told.established, "{name} at {at}: {told:?}");
                assert_eq!(told.server_hello, whole.server_hello);
            }
        }
        for at in 9..40 {
            let told = with_gap(&course, Side::Server, at, 3);
            assert!(told.gap && told.server_hello.is_none(), "{name} at {at}: {told:?}");
            assert_eq!(told.client_hello, whole.client_hello, "{name} at {at}");
            assert!(told.established, "{name} at {at}: {told:?}");
        }
    }
}

#[test]
fn a_gap_in_certificates_or_ciphertext_is_progress() {
    for (name, side, at, count) in [
        ("tls12", Side::Server, 200, 150),
        ("openssl-tls12", Side::Server, 200, 600),
        ("tls13", Side::Server, 250, 300),
        ("go-go", Side::Server, 1300, 100),
        ("tls12-client-cert", Side::Client, 300, 400),
    ] {
        let course = course(name);
        assert_eq!(with_gap(&course, side, at, count), course.play(), "{name}");
    }
}

#[test]
fn a_hole_of_any_size_never_makes_a_handshake_that_was_none() {
    for course in courses() {
        let whole = course.play();
        for side in [Side::Client, Side::Server] {
            let length = course.said(side).len();
            for at in (0..length).step_by(1 + length / 60) {
                for count in [1, 5, 100, 1460, 100_000] {
                    let told = with_gap(&course, side, at, count);
                    let name = &course.name;
                    assert!(!told.established || whole.established, "{name} {side:?} {at} {count}");
                    if let (Some(found), Some(hello)) = (&told.client_hello, &whole.client_hello) {
                        assert_eq!(found.ja4.len(), hello.ja4.len(), "{name} {side:?} {at}");
                    }
                    if told.gap {
                        continue;
                    }
                    assert_eq!(told.client_hello.is_some(), whole.client_hello.is_some(), "{name}");
                    assert_eq!(told.server_hello.is_some(), whole.server_hello.is_some(), "{name}");
                }
            }
        }
    }
}

#[test]
fn after_a_hole_records_are_found_again() {
    // The server's first segment is lost, with its hello and the begin of its certificates.
    for name in ["tls12", "tls12-rsa", "tls13", "tls12-ticket"] {
        let course = course(name);
        let first = course.pieces.iter().find(|(side, _)| *side == Side::Server).expect("one");
        let told = with_gap(&course, Side::Server, 0, first.1.len().min(700));
        assert!(told.gap && told.server_hello.is_none(), "{name}");
        assert!(told.established, "{name}: {told:?}");
        assert_eq!(told.resumed, None, "{name}");
    }
    // Nothing was seen of the handshake: data of both sides is the proof.
    let data = record(23, &[5; 100]);
    let mut handshake = Handshake::new();
    for side in [Side::Client, Side::Server] {
        assert!(!handshake.established());
        handshake.take(side, Piece::Missing(3000), 0);
        handshake.take(side, Piece::Bytes(&data), 1);
    }
    assert!(handshake.established() && handshake.gap());
    // What only looks like a header is none.
    let mut handshake = Handshake::new();
    handshake.take(Side::Client, Piece::Missing(3000), 0);
    let shammed = [&[1, 2, 3][..], &record(23, &[5; 100])[..80], &[23, 3, 3, 0, 9, 1]].concat();
    handshake.take(Side::Client, Piece::Bytes(&shammed), 1);
    handshake.take(Side::Client, Piece::Bytes(&[5; 19]), 1);
    handshake.take(Side::Server, Piece::Missing(1), 1);
    handshake.take(Side::Server, Piece::Bytes(&data), 1);
    assert!(!handshake.established());
}

#[test]
fn what_is_held_grows_with_what_came_and_stays_bounded() {
    let mut handshake = Handshake::new();
    let claimed = (64 << 10) - 4;
    let mut said = vec![1, 0, 0xff, 0xfc];
    said.resize(4 + claimed, 7);
    let mut came = 0;
    for fragment in said[..said.len() - 1].chunks(16_000) {
        for part in record(22, fragment).chunks(100) {
            handshake.take(Side::Client, Piece::Bytes(part), 0);
            came += part.len();
            assert!(handshake.memory() <= (2 * came + 8).min(64 << 10), "{came}");
        }
    }
    assert_eq!(handshake.memory(), 64 << 10);
    handshake.take(Side::Client, Piece::Bytes(&record(22, &[0])), 0);
    assert_eq!(handshake.error(), Some(HelloError::Malformed));
    assert!(handshake.done() && handshake.memory() == 0);
    // One byte more is refused at once.
    assert_eq!(
        client_says(b"\x16\x03\x01\x00\x04\x01\x00\xff\xfd"),
        Err(HelloError::TooLong(65533))
    );
}

#[test]
fn a_handshake_that_never_ends_is_given_up() {
    let course = course("tls13");
    let mut handshake = Handshake::new();
    for (side, bytes) in &course.pieces[..2] {
        handshake.take(*side, Piece::Bytes(bytes), 0);
    }
    let data = record(23, &[5; 16_000]);
    let rounds = (0..100).find(|_| {
        handshake.take(Side::Server, Piece::Bytes(&data), 0);
        handshake.done()
    });
    assert_eq!(rounds, Some(65));
    assert!(!handshake.established() && handshake.client_hello().is_some());
    // Both ends are over.
    let mut handshake = Handshake::new();
    handshake.take(Side::Client, Piece::End, 0);
    assert!(!handshake.done());
    handshake.take(Side::Server, Piece::End, 0);
    assert!(handshake.done());
}

#[test]
fn noise_is_never_trouble() {
    let courses = courses();
    let mut noise = Noise::new(0x7461_7003);
    let mut bytes = Vec::new();
    let fuzzed = |course: &Course, size: usize| -> Vec<u8> {
        let how = |side: Side, len: usize| ((len as u8) << 3) | side as u8;
        let pieces = course.pieces.iter().flat_map(|(side, b)| b.chunks(size).map(|b| (*side, b)));
        pieces.flat_map(|(side, b)| [&[how(side, b.len())], b].concat()).collect()
    };
    for n in 0..60_000 {
        let course = &courses[n % courses.len()];
        bytes.clear();
        if n % 4 == 0 {
            bytes.extend(fuzzed(course, 31));
            noise.stir(&mut bytes);
        } else {
            bytes.extend((0..noise.below(64)).map(|_| noise.byte()));
        }
        fuzz_handshake(&bytes);
        // Noise in the contents only.
        let stirred: Vec<_> = course
            .pieces
            .iter()
            .map(|(side, said)| {
                let mut said = said[..said.len().min(2500)].to_vec();
                noise.stir(&mut said);
                (*side, said)
            })
            .collect();
        let mut handshake = Handshake::new();
        for (side, said) in &stirred {
            handshake.take(*side, Piece::Bytes(said), 0);
        }
        if let Some(hello) = handshake.client_hello() {
            hello.check();
        }
    }
}
