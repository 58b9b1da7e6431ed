//! A network that loses, doubles, reorders, delays and forges: bytes and heads stay exact.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tests::{
    programs::tls::NAME,
    relay::{
        Relay, Roughness, Side, Verdict,
        frame::{Segment, flag, spoil},
        rough,
    },
    span::Status,
    stage::together,
    sys,
    workload::{Connected, client_hello},
};

/// A connection through the relay, from left to right.
fn connect(relay: &Relay) -> Result<Connected> {
    let ends = &relay.ends;
    let listener = ends.right.run(|| Ok(TcpListener::bind((ends.address(2), 0))?))?;
    let address = listener.local_addr()?;
    let client = ends.left.run(|| Ok(TcpStream::connect(address)?))?;
    Connected::accepted(client, &listener)
}

/// A hello of more than one segment goes first.
fn say_hello(connected: &mut Connected) -> Result<u64> {
    let hello = client_hello(NAME, &["h2"], 1700);
    connected.client.write_all(&hello)?;
    let mut got = vec![0; hello.len()];
    connected.server.read_exact(&mut got).context("the hello")?;
    Ok(hello.len() as u64)
}

#[test]
fn loss_doubling_and_reordering_change_neither_bytes_nor_heads() {
    together(|on| {
        let how = Roughness { loss: 30, doubled: 50, delayed: 100 };
        for seed in [1, 20, 300] {
            let relay = Relay::new(rough(seed, how))?;
            let mut connected = connect(&relay)?;
            let hello = say_hello(&mut connected)?;
            connected.answer(500_000)?;
            connected.send(1_000_000)?;
            connected.answer(777)?;
            let both = on.receiver.both(connected.close()?)?;
            assert!(relay.counts.disturbed().iter().all(|it| *it > 0), "{:?}", relay.counts);
            both.assert_bytes(hello + 1_000_000, 500_777);
            both.assert_tied();
            both.assert_whole();
            both.assert_state("closed");
            for span in [&both.client, &both.server] {
                assert_eq!(span.str("server.address"), NAME, "seed {seed}: {span:#?}");
            }
            let retransmits = both.client.int("tap.tcp.retransmits");
            assert!(retransmits > 0, "{:#?}", both.client);
        }
        Ok(())
    });
}

#[test]
fn a_hello_whose_halves_change_places_is_read() {
    together(|on| {
        let mut held = false;
        let relay = Relay::new(move |side: Side, bytes: &[u8]| match Segment::parse(bytes) {
            Some(it) if side == Side::Left && !it.payload().is_empty() && !held => {
                held = true;
                Verdict::Late(Duration::from_millis(20))
            }
            _ => Verdict::Pass,
        })?;
        let mut connected = connect(&relay)?;
        let hello = say_hello(&mut connected)?;
        let both = on.receiver.both(connected.close()?)?;
        assert_eq!(relay.counts.disturbed()[2], 1);
        both.assert_bytes(hello, 0);
        both.assert_whole();
        assert_eq!(both.server.str("server.address"), NAME, "{:#?}", both.server);
        assert_eq!(both.server.attributes.strings("tap.tls.client.alpn"), ["h2"]);
        Ok(())
    });
}

#[test]
fn forged_segments_are_not_believed() {
    together(|on| {
        // Before every segment with data: its place taken by junk with a wrong checksum, junk far
        // outside of the window, and a reset far outside of the window.
        let relay = Relay::new(|side: Side, bytes: &[u8]| match Segment::parse(bytes) {
            Some(it) if side == Side::Left && !it.payload().is_empty() => {
                let junk = vec![b'!'; it.payload().len()];
                let far = it.seq().wrapping_add(0x3000_0000);
                let past = it.seq().wrapping_sub(0x3000_0000);
                Verdict::After(vec![
                    spoil(it.forge(it.seq(), it.flags(), &junk)),
                    it.forge(far, it.flags(), &junk),
                    it.forge(past, it.flags(), &junk),
                    it.forge(far, flag::RST, &[]),
                    it.forge(far, flag::FIN | flag::ACK, &[]),
                ])
            }
            _ => Verdict::Pass,
        })?;
        let mut connected = connect(&relay)?;
        let hello = say_hello(&mut connected)?;
        connected.send(50_000)?;
        connected.answer(60_000)?;
        let both = on.receiver.both(connected.close()?)?;
        assert!(relay.counts.forged.load(Relaxed) > 0);
        both.assert_bytes(hello + 50_000, 60_000);
        both.assert_state("closed");
        both.assert_tied();
        assert_eq!(both.server.str("server.address"), NAME, "{:#?}", both.server);
        assert_eq!(both.server.status, Status::Unset);
        Ok(())
    });
}

#[test]
fn a_peer_that_vanishes_is_a_timeout_with_the_bytes_that_were_sent() {
    together(|on| {
        let cut = Arc::new(AtomicBool::new(false));
        let relay = Relay::new({
            let cut = Arc::clone(&cut);
            move |_: Side, bytes: &[u8]| {
                let lost = cut.load(Relaxed) && Segment::parse(bytes).is_some();
                if lost { Verdict::Drop } else { Verdict::Pass }
            }
        })?;
        let mut connected = connect(&relay)?;
        connected.send(100)?;
        let user_timeout = libc::TCP_USER_TIMEOUT;
        sys::set_tcp(&connected.client, user_timeout, 1000)?;
        cut.store(true, Relaxed);
        connected.client.write_all(&[0; 40])?;
        let error = connected.client.read(&mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        let ends = connected.ends;
        drop(connected);
        let client = on.receiver.client(ends)?;
        assert_eq!(client.state(), "timeout", "{client:#?}");
        assert_eq!(client.str("error.type"), "timeout");
        assert_eq!(client.status, Status::Error);
        // The 40 bytes left this host, more than once; they count once.
        assert_eq!(client.bytes(), (140, 0));
        Ok(())
    });
}

#[test]
fn the_round_trip_time_is_in_microseconds() {
    together(|on| {
        let relay = Relay::new(|_: Side, bytes: &[u8]| match Segment::parse(bytes) {
            Some(_) => Verdict::Late(Duration::from_millis(15)),
            None => Verdict::Pass,
        })?;
        let mut connected = connect(&relay)?;
        for _ in 0..5 {
            connected.send(100)?;
            connected.answer(100)?;
        }
        let span = on.receiver.client(connected.close()?)?;
        let rtt = span.int("tap.tcp.rtt_us");
        // The kernel's own number is eight times as big: 240,000.
        assert!((25_000..150_000).contains(&rtt), "{rtt} µs for 30 ms");
        assert_eq!(span.int("tap.tcp.retransmits"), 0);
        Ok(())
    });
}
