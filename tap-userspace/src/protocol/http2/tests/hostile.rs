//! Peers that mean harm, and noise.

use super::super::half::BLOCK_MAX;
use super::*;
use crate::protocol::noise::Noise;

/// Feeds endless pieces and tells the most memory held and the exchanges.
fn flood(parser: &mut Http2, side: Side, pieces: impl Iterator<Item = Vec<u8>>) -> (usize, usize) {
    let (mut most, mut told) = (0, 0);
    let mut out = vec![];
    for piece in pieces {
        parser.take(side, Piece::Bytes(&piece), 1, &mut out);
        most = most.max(parser.memory());
        told += out.len();
        out.clear();
    }
    (most, told)
}

fn open() -> Http2 {
    let mut parser = Http2::new();
    for event in hello() {
        let Says(side, bytes) = event else { continue };
        assert!(!feed(&mut parser, side, Piece::Bytes(&bytes), 0, &mut vec![]));
    }
    parser
}

#[test]
fn the_oldest_of_too_many_streams_are_told_early() {
    let mut parser = open();
    let requests = (0..10_000u32).map(|nth| frame(1, 5, 2 * nth + 1, &get()));
    let (most, told) = flood(&mut parser, C, requests);
    assert!(most < STREAMS_MAX + 10_000, "{most}");
    assert!(told > 8_000 && told as u64 == parser.crowded_out(), "{told}");
    let mut out = vec![];
    parser.finish(2, &mut out);
    assert_eq!(out.len() + told, 10_000);
    // The ones kept are the newest, and those told early say so.
    let Message::Http(last) = &out.last().unwrap().message else { panic!() };
    assert_eq!(last.stream, 19_999);
}

#[test]
fn large_fields_on_many_streams_stay_within_the_bound() {
    let mut parser = open();
    let mut block = vec![0x82, 0x86, 0x84];
    for _ in 0..120 {
        block.extend(fields(&[("name", &"v".repeat(120))]));
    }
    assert!(block.len() < 16 << 10);
    let requests = (0..500u32).map(|nth| frame(1, 5, 2 * nth + 1, &block));
    let (most, told) = flood(&mut parser, C, requests);
    assert!(most < STREAMS_MAX + (64 << 10) && told > 400, "{most} {told}");
}

#[test]
fn a_flood_of_continuations_is_not_kept() {
    let mut parser = open();
    let first = frame(1, 1, 1, &get());
    let more = frame(9, 0, 1, &[0x88; 4096]);
    let empty = frame(9, 0, 1, &[]).repeat(1000);
    let pieces = [first].into_iter().chain((0..2000).map(|nth| match nth % 2 {
        0 => more.clone(),
        _ => empty.clone(),
    }));
    let (most, told) = flood(&mut parser, C, pieces);
    assert!(most < BLOCK_MAX + 1024 && told == 0, "{most} {told}");
    // It ends: the request is told, with a gap, and the table is unknown.
    let (_, _) = flood(&mut parser, C, [frame(9, 4, 1, &[])].into_iter());
    let mut out = vec![];
    parser.take(S, Piece::Bytes(&frame(1, 5, 1, OK)), 1, &mut out);
    assert!(out[0].gap && out[0].bytes[0] > 4096 * 1000);
}

#[test]
fn a_table_that_is_told_again_and_again_yields_a_bounded_list() {
    let mut parser = open();
    // An entry of 4000 bytes, then thousands of references to it in each block.
    let mut first = vec![0x82, 0x86, 0x84, 0x40, 1, b'k', 0x7f, 0xa1, 0x1e];
    first.resize(first.len() + 4000, b'v');
    let bomb = [&[0x82, 0x86, 0x84][..], &[0xbe; 16_000]].concat();
    let mut piece = frame(1, 5, 1, &first);
    for nth in 1..100 {
        piece.extend(frame(1, 5, 2 * nth + 1, &bomb));
    }
    let mut out = vec![];
    assert!(!feed(&mut parser, C, Piece::Bytes(&piece), 1, &mut out));
    parser.finish(2, &mut out);
    assert_eq!(out.len(), 100);
    let held = |exchange: &Exchange| match &exchange.message {
        Message::Http(http) => http.request.memory(),
        _ => 0,
    };
    assert!(out.iter().all(|exchange| held(exchange) < 34 << 10));
    // Rapid resets of them, in a piece of 64 KiB.
    let short = [&[0x82, 0x86, 0x84][..], &[0xbe; 4]].concat();
    let mut piece = vec![];
    let mut nth = 100;
    while piece.len() < 64 << 10 {
        piece.extend(frame(1, 5, 2 * nth + 1, &short));
        piece.extend(frame(3, 0, 2 * nth + 1, &[0, 0, 0, 8]));
        nth += 1;
    }
    out.clear();
    assert!(!feed(&mut parser, C, Piece::Bytes(&piece), 3, &mut out));
    let sum: usize = out.iter().map(held).sum();
    assert!(out.len() > 1500 && sum < 3 * (FIELDS_MAX + EXPANSION * piece.len()), "{sum}");
    assert!(out.last().unwrap().gap);
}

#[test]
fn settings_that_are_never_acknowledged_are_not_kept() {
    let mut parser = open();
    let many = frame(4, 0, 0, &[0, 1, 0, 0, 0x10, 0]).repeat(5000);
    let (most, _) = flood(&mut parser, S, [many].into_iter());
    assert!(most < 1024, "{most}");
}

/// A capture as the fuzzer's input: chunks with a control byte each.
fn fuzz_input(events: &[Event], first: u8) -> Vec<u8> {
    let mut input = vec![first];
    for event in events {
        let Says(side, bytes) = event else { continue };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = (rest.len() - 1) / 8;
            let take = len.min(31) * 8 + 1;
            input.push((len.min(31) as u8) << 3 | *side as u8);
            input.extend(&rest[..take]);
            rest = &rest[take..];
        }
    }
    input
}

#[test]
fn noise_in_real_connections_breaks_no_bound() {
    let mut noise = Noise::new(2026);
    let inputs: Vec<Vec<u8>> = real::PRIOR
        .iter()
        .flat_map(|name| {
            let events = real::capture(name).events;
            [fuzz_input(&events, 0), fuzz_input(&events, 1)]
        })
        .collect();
    for input in &inputs {
        fuzz_http2(input);
    }
    for round in 0..40_000 {
        let mut input = inputs[round % inputs.len()].clone();
        noise.stir(&mut input);
        fuzz_http2(&input);
    }
    for _ in 0..20_000 {
        let len = noise.below(400);
        let input: Vec<u8> = (0..len).map(|_| noise.byte()).collect();
        fuzz_http2(&input);
    }
}

/// `cargo test --release -- --ignored --nocapture measured`.
#[test]
#[ignore = "measures, and says nothing in a debug build"]
fn measured() {
    for (name, copies) in
        [("h2load", 400), ("curl-prior", 2000), ("grpc", 1000), ("nghttp-push", 1000)]
    {
        let events = real::capture(name).events;
        let mut out = vec![];
        let (mut told, mut bytes) = (0, 0);
        let began = std::time::Instant::now();
        for _ in 0..copies {
            let mut parser = Http2::new();
            for event in &events {
                if let Says(side, piece) = event {
                    bytes += piece.len();
                    parser.take(*side, Piece::Bytes(piece), 1, &mut out);
                }
            }
            parser.finish(1, &mut out);
            told += out.len();
            out.clear();
        }
        let ns = began.elapsed().as_nanos();
        println!("{name}: {} ns per exchange, {} bytes each", ns / told as u128, bytes / told);
    }
    // One connection of many requests, two a piece.
    let mut parser = open();
    let mut out = vec![];
    let said = [("user-agent", "measure/1.0"), ("accept", "*/*"), ("x-request-id", "0123456789")];
    let request: Vec<u8> = [&get()[..], &fields(&said)].concat();
    let response: Vec<u8> =
        [OK, &fields(&[("content-type", "text/plain"), ("date", "now")])].concat();
    let body = vec![0; 1000];
    let pieces: Vec<(Vec<u8>, Vec<u8>)> = (0..200_000u32)
        .map(|nth| {
            let id = 2 * nth + 1;
            (
                frame(1, 5, id, &request),
                [frame(1, 4, id, &response), frame(0, 1, id, &body)].concat(),
            )
        })
        .collect();
    let began = std::time::Instant::now();
    for (request, response) in &pieces {
        parser.take(C, Piece::Bytes(request), 1, &mut out);
        parser.take(S, Piece::Bytes(response), 1, &mut out);
        out.clear();
    }
    println!("one connection: {} ns per exchange", began.elapsed().as_nanos() / 200_000);
    println!(
        "an idle connection holds {} bytes and its own {}",
        parser.memory(),
        size_of::<Http2>()
    );
}
