//! How connections end: in good order, by halves, or by a reset of either side.

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use tests::{
    span::{Span, Status},
    stage::together,
    sys,
    wait::{PATIENCE, until_true},
    workload::{Connected, drain, silence},
};

#[track_caller]
fn assert_reset(span: &Span, by: &str, status: Status) {
    assert_eq!(span.state(), "reset", "{span:#?}");
    assert_eq!(span.str("tap.reset.by"), by, "{span:#?}");
    assert_eq!(span.status, status, "{span:#?}");
}

#[test]
fn half_closed_by_the_client_while_the_server_goes_on() {
    together(|on| {
        let mut connected = Connected::new()?;
        connected.send(50)?;
        connected.client.shutdown(Shutdown::Write)?;
        assert_eq!(connected.server.read(&mut [0; 8])?, 0);
        connected.answer(300_000)?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(50, 300_000);
        both.assert_state("closed");
        both.assert_whole();
        Ok(())
    });
}

#[test]
fn half_closed_by_the_server_while_the_client_goes_on() {
    together(|on| {
        let mut connected = Connected::new()?;
        connected.answer(60)?;
        connected.server.shutdown(Shutdown::Write)?;
        assert_eq!(connected.client.read(&mut [0; 8])?, 0);
        connected.send(300_000)?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(300_000, 60);
        both.assert_state("closed");
        both.assert_whole();
        Ok(())
    });
}

#[test]
fn an_idle_connection_reset_by_the_client() {
    together(|on| {
        let mut connected = Connected::new()?;
        connected.send(100)?;
        connected.answer(200)?;
        sys::reset_on_close(&connected.client)?;
        let Connected { client, mut server, ends } = connected;
        drop(client);
        assert!(server.read(&mut [0]).is_err());
        drop(server);
        let both = on.receiver.both(ends)?;
        both.assert_bytes(100, 200);
        // The request was answered: nobody lost anything.
        assert_reset(&both.client, "local", Status::Unset);
        assert_reset(&both.server, "peer", Status::Unset);
        Ok(())
    });
}

#[test]
fn a_request_that_the_server_resets_is_an_error() {
    together(|on| {
        let mut connected = Connected::new()?;
        connected.send(700)?;
        sys::reset_on_close(&connected.server)?;
        let Connected { mut client, server, ends } = connected;
        drop(server);
        assert!(client.read(&mut [0]).is_err());
        drop(client);
        let both = on.receiver.both(ends)?;
        both.assert_bytes(700, 0);
        assert_reset(&both.client, "peer", Status::Error);
        assert_reset(&both.server, "local", Status::Error);
        assert_eq!(both.client.str("error.type"), "reset");
        both.assert_tied();
        Ok(())
    });
}

#[test]
fn a_close_with_unread_data_is_a_reset() {
    together(|on| {
        let Connected { mut client, server, ends } = Connected::new()?;
        client.write_all(&[1; 5000])?;
        // The bytes are in the server's socket, which reads none of them.
        until_true("the bytes to arrive", PATIENCE, || {
            server.peek(&mut [0; 5000]).is_ok_and(|len| len == 5000)
        })?;
        drop(server);
        assert!(client.read(&mut [0]).is_err());
        drop(client);
        let both = on.receiver.both(ends)?;
        both.assert_bytes(5000, 0);
        assert_reset(&both.client, "peer", Status::Error);
        assert_reset(&both.server, "local", Status::Error);
        Ok(())
    });
}

#[test]
fn what_a_reset_leaves_unread_was_still_sent_and_received() {
    together(|on| {
        // More than the sockets hold: the writer is stuck in the middle when the reader resets.
        let Connected { mut client, server, ends } = Connected::new()?;
        client.set_write_timeout(Some(std::time::Duration::from_millis(300)))?;
        let stuck = std::iter::repeat_with(|| client.write(&[7; 65536])).take(1000);
        assert!(stuck.take_while(Result::is_ok).count() < 1000);
        sys::reset_on_close(&server)?;
        drop((server, client));
        let both = on.receiver.both(ends)?;
        // What is still in the client's buffer never crossed; what crossed is the same number at
        // both ends.
        let (sent, received) = (both.client.bytes().0, both.server.bytes().1);
        assert!(sent > 0 && sent == received, "{sent} sent, {received} received");
        assert_eq!(both.client.state(), "reset");
        Ok(())
    });
}

#[test]
fn the_span_lasts_from_open_to_close() {
    together(|on| {
        let mut connected = Connected::new()?;
        connected.send(1)?;
        silence(std::time::Duration::from_millis(200));
        let span = on.receiver.client(connected.close()?)?;
        assert!(span.end_ns - span.start_ns >= 200_000_000, "{span:#?}");
        Ok(())
    });
}

#[test]
fn a_program_that_is_killed_leaves_a_closed_connection() {
    together(|on| {
        use tests::programs::scripts::node_server;
        let server = node_server()?;
        let mut client = std::net::TcpStream::connect(("127.0.0.1", server.port))?;
        let ends = tests::workload::Ends::of_client(&client)?;
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
        client.read_exact(&mut [0; 100])?;
        let pid = server.process.pid();
        let executable = tests::programs::executable(pid)?;
        drop(server);
        drain(&mut client).ok();
        drop(client);
        let span = on.receiver.server(ends)?;
        assert_eq!(span.pid(), Some(i64::from(pid)));
        assert_eq!(span.str("process.executable.path"), executable);
        assert_eq!(span.bytes().1, 27);
        Ok(())
    });
}
