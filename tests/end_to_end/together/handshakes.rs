//! Data that comes with the handshake passes the kernel's hooks with the listener as its socket;
//! it must be on the connection's span all the same, head and bytes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Result, ensure};
use socket2::{Domain, Socket, Type};
use tests::{
    netns::Namespace,
    relay::{Relay, Side, Verdict, frame::Segment},
    stage::{Session, together},
    sys,
    workload::{Connected, Ends},
};

const REQUEST: &[u8] = b"GET /first HTTP/1.1\r\nhost: tap-test.example\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// The server takes the request and answers; then both close.
fn finish(mut client: TcpStream, mut server: TcpStream) -> Result<Ends> {
    let mut request = vec![0; REQUEST.len()];
    server.read_exact(&mut request)?;
    ensure!(request == REQUEST, "another request arrived");
    server.write_all(ANSWER)?;
    client.read_exact(&mut [0; ANSWER.len()])?;
    let ends = Ends::of_client(&client)?;
    Connected { client, server, ends }.close()
}

/// Both ends have every byte, and the server's head was captured: its protocol is known.
fn check(on: &Session, ends: Ends) -> Result<()> {
    let both = on.receiver.both(ends)?;
    both.assert_bytes(REQUEST.len() as u64, ANSWER.len() as u64);
    both.assert_tied();
    both.assert_whole();
    for span in [&both.client, &both.server] {
        assert_eq!(span.str("network.protocol.name"), "http", "{span:#?}");
        assert_eq!(span.turns().len(), 2, "{span:#?}");
        assert_eq!(span.pid(), Some(i64::from(std::process::id())));
    }
    Ok(())
}

#[test]
fn a_deferred_accept_has_its_first_bytes() {
    together(|on| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        sys::set_tcp(&listener, libc::TCP_DEFER_ACCEPT, 5)?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        client.write_all(REQUEST)?;
        check(on, finish(client, listener.accept()?.0)?)
    });
}

#[test]
fn a_lost_handshake_ack_is_made_up_for_by_the_first_data() {
    together(|on| {
        let mut data_seen = false;
        let relay = Relay::new(move |side: Side, bytes: &[u8]| match Segment::parse(bytes) {
            Some(segment) if side == Side::Left && !data_seen => {
                data_seen = !segment.payload().is_empty();
                if segment.is_bare_ack() { Verdict::Drop } else { Verdict::Pass }
            }
            _ => Verdict::Pass,
        })?;
        let (left, right) = (&relay.ends.left, &relay.ends.right);
        let listener = right.run(|| Ok(TcpListener::bind((relay.ends.address(2), 0))?))?;
        let address = listener.local_addr()?;
        let mut client = left.run(|| Ok(TcpStream::connect(address)?))?;
        client.write_all(REQUEST)?;
        let ends = finish(client, listener.accept()?.0)?;
        assert!(relay.counts.disturbed()[0] > 0, "no ACK was lost");
        check(on, ends)
    });
}

/// A namespace where TCP Fast Open works without cookies, and a listener in it.
fn fast_open(listener_too: bool) -> Result<(Namespace, TcpListener)> {
    let namespace = Namespace::new()?;
    // Client and server on (1 | 2), both without a cookie (4 | 0x200).
    namespace.sysctl("net.ipv4.tcp_fastopen", "519")?;
    let listener = namespace.run(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    if listener_too {
        sys::set_tcp(&listener, libc::TCP_FASTOPEN, 16)?;
    }
    Ok((namespace, listener))
}

/// A client whose request goes with its SYN.
fn request_with_syn(namespace: &Namespace, to: SocketAddr) -> Result<TcpStream> {
    let socket = namespace.run(|| Ok(Socket::new(Domain::IPV4, Type::STREAM, None)?))?;
    let taken = sys::send_fast_open(&socket, REQUEST, to)?;
    ensure!(taken == REQUEST.len(), "only {taken} bytes were taken");
    Ok(socket.into())
}

#[test]
fn fast_open_data_in_the_syn_is_counted_at_both_ends() {
    together(|on| {
        let (namespace, listener) = fast_open(true)?;
        let client = request_with_syn(&namespace, listener.local_addr()?)?;
        let server = listener.accept()?.0;
        assert!(sys::syn_data_was_taken(&client)?, "the data did not go with the SYN");
        check(on, finish(client, server)?)
    });
}

#[test]
fn fast_open_data_that_the_server_ignores_is_counted_once() {
    together(|on| {
        // The SYN has the data, the server wants none in a SYN, so it is sent again.
        let (namespace, listener) = fast_open(false)?;
        let client = request_with_syn(&namespace, listener.local_addr()?)?;
        let server = listener.accept()?.0;
        assert!(!sys::syn_data_was_taken(&client)?);
        check(on, finish(client, server)?)
    });
}
