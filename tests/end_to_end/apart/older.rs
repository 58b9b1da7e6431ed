//! Connections that are older than tap.

use std::net::{TcpListener, TcpStream};
use tests::{
    netns::Pair,
    stage::{Session, apart},
    workload::Connected,
};

#[test]
fn a_connection_older_than_tap_counts_from_there_and_has_its_owner() {
    apart(|| {
        // As long as somebody listens it can be told who opened the connection.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut connected = Connected::to(&listener)?;
        connected.send(123_456)?;
        connected.answer(654_321)?;
        let session = Session::start()?;
        connected.send(1000)?;
        connected.answer(2000)?;
        connected.send(30)?;
        let both = session.receiver.both(connected.close()?)?;
        both.assert_bytes(1030, 2000);
        both.assert_state("closed");
        for span in [&both.client, &both.server] {
            assert_eq!(span.quality(), ["preexisting"], "{span:#?}");
            assert_eq!(span.pid(), Some(i64::from(std::process::id())));
        }
        assert_eq!(both.client.str("connection.direction"), "egress");
        assert_eq!(both.server.str("connection.direction"), "ingress");
        session.finish().map(drop)
    });
}

#[test]
fn an_idle_connection_older_than_tap_is_seen_when_it_closes() {
    apart(|| {
        let mut connected = Connected::new()?;
        connected.send(77)?;
        let session = Session::start()?;
        let both = session.receiver.both(connected.close()?)?;
        both.assert_bytes(0, 0);
        assert!(both.client.marked("preexisting") && both.server.marked("preexisting"));
        session.finish().map(drop)
    });
}

#[test]
fn an_idle_connection_older_than_tap_is_flushed_at_its_end() {
    apart(|| {
        let mut connected = Connected::new()?;
        connected.send(77)?;
        let session = Session::start()?;
        // What the daemon lists at its start it lists in the background.
        let other = Connected::new()?.close()?;
        session.receiver.both(other)?;
        let receiver = session.finish()?;
        let both = receiver.both(connected.ends)?;
        both.assert_state("open");
        both.assert_bytes(0, 0);
        Ok(())
    });
}

#[test]
fn a_connection_of_another_namespace_older_than_tap_is_picked_up_when_it_sends() {
    apart(|| {
        let pair = Pair::new()?;
        let listener = pair.right.run(|| Ok(TcpListener::bind((pair.address(2), 0))?))?;
        let to = listener.local_addr()?;
        let client = pair.left.run(|| Ok(TcpStream::connect(to)?))?;
        let mut connected = Connected::accepted(client, &listener)?;
        connected.send(5000)?;
        let session = Session::start()?;
        connected.answer(40)?;
        connected.send(60)?;
        let both = session.receiver.both(connected.close()?)?;
        both.assert_bytes(60, 40);
        assert!(both.client.marked("preexisting") && both.server.marked("preexisting"));
        session.finish().map(drop)
    });
}
