//! The relay between two real TCP stacks.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::AtomicBool,
    thread,
};

use super::{
    frame::{Segment, flag, spoil},
    *,
};
use crate::stage::as_root;

/// Sends `data` from left to right, and gives what arrived.
fn carry(relay: &Relay, data: &[u8]) -> Result<Vec<u8>> {
    let ends = &relay.ends;
    let listener = ends.right.run(|| Ok(TcpListener::bind((ends.address(2), 0))?))?;
    let address = listener.local_addr()?;
    let mut client = ends.left.run(|| Ok(TcpStream::connect(address)?))?;
    let (mut server, _) = listener.accept()?;
    thread::scope(|scope| {
        scope.spawn(move || client.write_all(data));
        let mut got = Vec::new();
        server.read_to_end(&mut got)?;
        Ok(got)
    })
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn a_rough_network_disturbs_but_tcp_gets_through() {
    as_root(|| {
        let relay = Relay::new(rough(7, Roughness { loss: 20, doubled: 30, delayed: 50 }))?;
        let data = pattern(1 << 20);
        assert!(carry(&relay, &data)? == data);
        assert!(relay.counts.disturbed().iter().all(|count| *count > 0), "{:?}", relay.counts);
        Ok(())
    });
}

#[test]
fn checksums_on_the_wire_are_whole_and_forged_frames_are_well_formed() {
    as_root(|| {
        let right = Arc::new(AtomicBool::new(true));
        let relay = Relay::new({
            let right = Arc::clone(&right);
            move |_: Side, bytes: &[u8]| {
                let Some(segment) = Segment::parse(bytes) else {
                    return Verdict::Pass;
                };
                let same = segment.forge(segment.seq(), segment.flags(), segment.payload());
                let ours = Segment::parse(&same).is_some_and(|same| same.checksum_is_right());
                if !segment.checksum_is_right() || !ours || same[..] != bytes[..same.len()] {
                    right.store(false, Ordering::Relaxed);
                }
                Verdict::Pass
            }
        })?;
        let data = pattern(100_000);
        assert!(carry(&relay, &data)? == data);
        assert!(right.load(Ordering::Relaxed));
        Ok(())
    });
}

#[test]
fn tcp_does_not_take_forged_segments() {
    as_root(|| {
        let relay = Relay::new(|side: Side, bytes: &[u8]| match Segment::parse(bytes) {
            Some(it) if side == Side::Left && !it.payload().is_empty() => {
                let junk = vec![b'!'; it.payload().len()];
                let far = it.seq().wrapping_add(1 << 30);
                Verdict::After(vec![
                    spoil(it.forge(it.seq(), it.flags(), &junk)),
                    it.forge(far, it.flags(), &junk),
                    it.forge(far, flag::RST, &[]),
                ])
            }
            _ => Verdict::Pass,
        })?;
        let data = pattern(10_000);
        assert!(carry(&relay, &data)? == data);
        assert!(relay.counts.forged.load(Ordering::Relaxed) > 0);
        Ok(())
    });
}
