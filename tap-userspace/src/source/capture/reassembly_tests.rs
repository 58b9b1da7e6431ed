use super::*;
use crate::protocol::noise::Noise;

/// Takes in `text` at `offset`; adds what comes out to `out`.
fn take(
    stream: &mut Stream,
    offset: i64,
    text: &str,
    total: &mut usize,
    out: &mut Vec<u8>,
) -> Brought {
    let bytes = (text.len() as u32, text.as_bytes());
    stream.take(offset, bytes, 0, total, &mut |piece| put(&piece, out))
}

fn put(piece: &Piece<'_>, out: &mut Vec<u8>) {
    assert_eq!(piece.offset, out.len() as u64);
    out.extend(piece.payload);
    out.resize(out.len() + piece.len as usize - piece.payload.len(), b'.');
}

fn stream() -> Stream {
    let mut stream = Stream::default();
    stream.begin(0);
    stream
}

#[test]
fn each_byte_comes_out_once_and_in_order_and_nothing_is_left_held() {
    let mut noise = Noise::new(3);
    let text: String = (0..200).map(|n| char::from(b'a' + n % 26)).collect();
    for _ in 0..3_000 {
        let (mut stream, mut total, mut out) = (stream(), 0, Vec::new());
        while stream.position < 200 {
            let from = noise.below(200) as usize;
            let to = (from + 1 + noise.below(40) as usize).min(200);
            let seen = stream.highest;
            let brought = take(&mut stream, from as i64, &text[from..to], &mut total, &mut out);
            assert_eq!(brought == Brought::New, to as u64 > seen);
        }
        assert_eq!((out, total, stream.highest), (text.clone().into_bytes(), 0, 200));
    }
}

#[test]
fn what_is_held_is_bounded_for_one_and_for_all() {
    let big = "x".repeat(64 << 10);
    let (mut total, mut missing) = (0, 0);
    let mut streams: Vec<_> = (0..100).map(|_| stream()).collect();
    for round in 0..40_i64 {
        for stream in &mut streams {
            let offset = 1 + round * (65 << 10);
            stream.take(offset, (big.len() as u32, big.as_bytes()), 0, &mut total, &mut |piece| {
                missing += u64::from(piece.is_missing);
            });
            assert!(stream.charged <= HELD_MAX && total <= HELD_TOTAL_MAX);
        }
    }
    assert!(missing > 0);
    assert_eq!(total, streams.iter().map(|stream| stream.charged).sum::<usize>());
    streams.iter_mut().for_each(|stream| stream.clear(&mut total));
    assert_eq!(total, 0);
    // Many small segments cost more than their bytes.
    let mut stream = stream();
    for n in 0..100_000 {
        stream.take(1 + n * 2, (1, b"x"), 0, &mut total, &mut |_| {});
        assert!(stream.charged <= HELD_MAX && stream.held.len() <= HELD_MAX / HELD_COST);
    }
}

#[test]
fn senseless_numbers_are_harmless() {
    for sequence in [0, 1, 1 << 30, (1 << 30) + 1, 1 << 31, u32::MAX] {
        let (mut stream, mut total) = (stream(), 0);
        stream.position = 1 << 40;
        stream.highest = 1 << 40;
        let offset = stream.offset(sequence);
        assert_eq!(offset.is_some(), sequence <= 1 << 30 || sequence == u32::MAX, "{sequence}");
        for offset in [offset.unwrap_or(0), i64::MIN, -1, 0, 1 << 40] {
            stream.take(offset, (u32::MAX, b"x"), 0, &mut total, &mut |_| {});
        }
        stream.acknowledge(sequence);
        stream.settle(u64::MAX, &mut total, &mut |_| {});
        stream.finish(true, u64::MAX, &mut total, &mut |_| {});
        assert_eq!(total, 0);
    }
}

#[test]
fn marks_tell_copies_from_what_was_sent_again() {
    let of = |timestamp, id| Segment { timestamp, id, ..Segment::default() };
    // The newest before; this; ns after it; a copy?
    let rows = [
        (of(Some(10), 7), of(Some(10), 7), 0, true),
        (of(Some(10), 7), of(Some(10), 8), 0, false),
        (of(Some(10), 7), of(Some(9), 9), 0, true),
        (of(Some(10), 7), of(Some(11), 7), 0, false),
        (of(Some(u32::MAX), 0), of(Some(1), 0), 0, false),
        (of(None, 7), of(None, 7), u64::MAX - 1, true),
        (of(None, u16::MAX), of(None, 1), 0, false),
        (of(None, 0), of(None, 0), COPY_NS, true),
        (of(None, 0), of(None, 0), COPY_NS + 1, false),
        (of(Some(10), 0), of(Some(10), 0), COPY_NS + 1, false),
    ];
    for (newest, this, after, copy) in rows {
        let mut stream = Stream::default();
        stream.mark(&newest, 1);
        assert_eq!(stream.is_copy(&this, 1 + after), copy, "{newest:?} {this:?}");
    }
}
