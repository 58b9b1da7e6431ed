//! Connects that fail, each in its way.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use socket2::{Domain, Socket, Type};
use tests::{
    netns::{Namespace, Pair},
    span::{Span, Status},
    stage::{Session, together},
    sys,
    wait::PATIENCE,
    workload::{Connected, deaf_port},
};

/// The one span of a connect to `server`.
fn attempt(on: &Session, server: SocketAddr) -> Result<Arc<Span>> {
    let what = format!("the connect to {server}");
    let spans = on.receiver.wait_for(&what, 1, PATIENCE, |span| span.peer() == Some(server))?;
    tests::expect::sound(&spans[0])?;
    Ok(Arc::clone(&spans[0]))
}

#[track_caller]
fn assert_failed(span: &Span, state: &str) {
    assert_eq!(span.state(), state, "{span:#?}");
    assert_eq!(span.str("error.type"), state, "{span:#?}");
    assert_eq!(span.status, Status::Error, "{span:#?}");
    assert_eq!(span.str("connection.direction"), "egress");
    assert_eq!(span.bytes(), (0, 0));
    assert_eq!(span.pid(), Some(i64::from(std::process::id())), "{span:#?}");
    assert!(span.event("ErrorEvent").is_some(), "{:?}", span.event_names());
}

#[test]
fn refused() {
    together(|on| {
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?.local_addr()?;
        for nobody in [deaf_port()?, six] {
            let error = TcpStream::connect(nobody).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_failed(&*attempt(on, nobody)?, "refused");
        }
        Ok(())
    });
}

#[test]
fn refused_without_waiting_for_it() {
    together(|on| {
        // As event loops do it: the error is found by a poll, then the socket is closed.
        let nobody = deaf_port()?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        assert!(socket.connect(&nobody.into()).is_err());
        let stream = TcpStream::from(socket);
        tests::wait::until_true("the error", PATIENCE, || {
            stream.take_error().is_ok_and(|error| error.is_some())
        })?;
        drop(stream);
        assert_failed(&*attempt(on, nobody)?, "refused");
        Ok(())
    });
}

/// A host of the pair's network that takes frames and answers nothing.
fn black_hole(pair: &Pair) -> Result<SocketAddr> {
    let address = pair.address(66);
    let neighbour = format!("neigh add {address} lladdr 02:00:00:00:00:66 dev eth0");
    pair.left.ip(&neighbour)?;
    Ok(SocketAddr::new(address, 4321))
}

#[test]
fn timed_out() {
    together(|on| {
        let pair = Pair::new()?;
        let hole = black_hole(&pair)?;
        pair.left.sysctl("net.ipv4.tcp_syn_retries", "1")?;
        let error = pair.left.run(|| Ok(TcpStream::connect(hole).unwrap_err()))?;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let span = attempt(on, hole)?;
        assert_failed(&span, "timeout");
        assert!(span.end_ns - span.start_ns > 1_000_000_000, "a SYN and its repetition take 3 s");
        Ok(())
    });
}

#[test]
fn unreachable() {
    together(|on| {
        let pair = Pair::new()?;
        let nobody = SocketAddr::new(pair.address(77), 4321);
        pair.left.sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "100")?;
        let error = pair.left.run(|| Ok(TcpStream::connect(nobody).unwrap_err()))?;
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
        assert_failed(&*attempt(on, nobody)?, "unreachable");
        Ok(())
    });
}

#[test]
fn given_up() {
    together(|on| {
        // The loser of Happy Eyeballs: closed while its SYN is on the way.
        let pair = Pair::new()?;
        let hole = black_hole(&pair)?;
        pair.left.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            assert!(socket.connect_timeout(&hole.into(), Duration::from_millis(50)).is_err());
            Ok(())
        })?;
        let span = attempt(on, hole)?;
        assert_eq!(span.state(), "aborted", "{span:#?}");
        assert_eq!(span.status, Status::Unset);
        assert_eq!(span.bytes(), (0, 0));
        Ok(())
    });
}

#[test]
fn one_socket_that_connects_three_times_gives_three_spans() {
    together(|on| {
        let nobody = deaf_port()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = listener.local_addr()?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;

        assert!(socket.connect(&nobody.into()).is_err());
        socket.connect(&server.into())?;
        let mut second = Connected::accepted(socket.try_clone()?.into(), &listener)?;
        second.send(100)?;
        let second_ends = second.ends;
        sys::disconnect(&socket)?;
        socket.connect(&server.into())?;
        let mut third = Connected::accepted(socket.into(), &listener)?;
        third.send(30)?;
        third.answer(40)?;
        drop(second);
        let third_ends = third.close()?;

        let first = attempt(on, nobody)?;
        assert_failed(&first, "refused");
        let second = on.receiver.client(second_ends)?;
        assert_eq!((second.state(), second.bytes()), ("reset", (100, 0)), "{second:#?}");
        let third = on.receiver.both(third_ends)?;
        third.assert_bytes(30, 40);
        third.assert_state("closed");
        third.assert_whole();
        third.assert_tied();
        let cookie = first.int("connection.cookie");
        assert_eq!(
            [second.int("connection.cookie"), third.client.int("connection.cookie")],
            [cookie; 2]
        );
        assert_ne!(first.str("connection.id"), second.str("connection.id"));
        assert_ne!(second.str("connection.id"), third.client.str("connection.id"));
        Ok(())
    });
}

#[test]
fn a_host_without_a_route_does_not_disturb() {
    together(|on| {
        // The connect call fails before there is any segment; whether tap makes a span of it is
        // not promised, but the next connection of the same socket must be right.
        let apart = Namespace::new()?;
        let (ends, error) = apart.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let nowhere = SocketAddr::from(([192, 0, 2, 1], 80));
            let error = socket.connect(&nowhere.into()).unwrap_err();
            socket.connect(&listener.local_addr()?.into())?;
            let mut connected = Connected::accepted(socket.into(), &listener)?;
            connected.send(9)?;
            Ok((connected.close()?, error))
        })?;
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
        on.receiver.both(ends)?.assert_bytes(9, 0);
        Ok(())
    });
}
