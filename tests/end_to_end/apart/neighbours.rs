//! Another program on the same hook, attached before tap and after it. Callbacks of `sock_ops` are
//! per socket and setting them overwrites: neither may take the other's.

use std::io::Read;

use anyhow::Result;
use tests::{
    bpf::neighbour::Neighbour,
    stage::{Session, apart},
    sys,
    workload::Connected,
};

/// Connections of several kinds are right, whoever else is there.
fn check_connections(session: &Session) -> Result<()> {
    for round in 1..=3 {
        let mut connected = Connected::new()?;
        for _ in 0..10 {
            connected.send(100 * round)?;
            connected.answer(50 * round)?;
        }
        let both = session.receiver.both(connected.close()?)?;
        both.assert_bytes(1000 * round as u64, 500 * round as u64);
        both.assert_state("closed");
        both.assert_whole();
        both.assert_tied();
    }
    let mut connected = Connected::new()?;
    connected.send(10)?;
    sys::reset_on_close(&connected.server)?;
    let Connected { mut client, server, ends } = connected;
    drop(server);
    assert!(client.read(&mut [0]).is_err());
    drop(client);
    let both = session.receiver.both(ends)?;
    both.assert_bytes(10, 0);
    both.assert_state("reset");
    Ok(())
}

#[test]
fn one_that_overwrites_the_callbacks_before_us() {
    apart(|| {
        let neighbour = Neighbour::rude()?;
        let session = Session::start()?;
        check_connections(&session)?;
        drop(neighbour);
        session.finish().map(drop)
    });
}

#[test]
fn one_that_overwrites_the_callbacks_after_us() {
    apart(|| {
        let session = Session::start()?;
        let neighbour = Neighbour::rude()?;
        check_connections(&session)?;
        drop(neighbour);
        session.finish().map(drop)
    });
}

#[test]
fn callbacks_of_one_before_us_go_on() {
    apart(|| {
        let neighbour = Neighbour::counting_rtt()?;
        let session = Session::start()?;
        let before = neighbour.count()?;
        check_connections(&session)?;
        assert!(neighbour.count()? >= before + 20, "its callbacks stopped");
        session.finish().map(drop)
    });
}

#[test]
fn callbacks_of_one_after_us_go_on() {
    apart(|| {
        let session = Session::start()?;
        let neighbour = Neighbour::counting_rtt()?;
        check_connections(&session)?;
        assert!(neighbour.count()? >= 20, "its callbacks stopped");
        session.finish().map(drop)
    });
}

#[test]
fn one_that_comes_and_goes_while_a_connection_is_open() {
    apart(|| {
        let session = Session::start()?;
        let mut connected = Connected::new()?;
        connected.send(100)?;
        let neighbour = Neighbour::rude()?;
        connected.answer(200)?;
        drop(neighbour);
        connected.send(300)?;
        let both = session.receiver.both(connected.close()?)?;
        both.assert_bytes(400, 200);
        both.assert_state("closed");
        session.finish().map(drop)
    });
}
