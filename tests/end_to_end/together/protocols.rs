//! What the first bytes say.

use std::{
    io::{Read, Write},
    time::Duration,
};

use anyhow::Result;
use tests::{
    expect::Both,
    stage::{Session, together},
    workload::{Connected, client_hello, silence},
};

/// The client sends `head`, the server `answer`.
fn exchange(on: &Session, head: &[u8], answer: &[u8]) -> Result<Both> {
    exchange_in(on, &[head], answer)
}

/// The client sends `pieces` with a moment between them.
fn exchange_in(on: &Session, pieces: &[&[u8]], answer: &[u8]) -> Result<Both> {
    let mut connected = Connected::new()?;
    connected.client.set_nodelay(true)?;
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            silence(Duration::from_millis(5));
        }
        connected.client.write_all(piece)?;
        connected.server.read_exact(&mut vec![0; piece.len()])?;
    }
    connected.server.write_all(answer)?;
    connected.client.read_exact(&mut vec![0; answer.len()])?;
    on.receiver.both(connected.close()?)
}

#[track_caller]
fn assert_protocol(both: &Both, event: &str, name: &str, version: &str) {
    for span in [&both.client, &both.server] {
        let told = span.event("ProtocolEvent").and_then(|it| it.attributes.str("protocol"));
        assert_eq!(told, Some(event), "{span:#?}");
        assert_eq!(span.str("network.protocol.name"), name);
        assert_eq!(span.str("network.protocol.version"), version);
    }
}

#[test]
fn http1() {
    together(|on| {
        let request = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        let both = exchange(on, request, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        assert_protocol(&both, "http1", "http", "1.1");
        Ok(())
    });
}

#[test]
fn http1_byte_by_byte() {
    together(|on| {
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let pieces: Vec<&[u8]> = request.chunks(1).collect();
        let both = exchange_in(on, &pieces, b"HTTP/1.1 200 OK\r\n\r\n")?;
        assert_protocol(&both, "http1", "http", "1.1");
        Ok(())
    });
}

#[test]
fn http2_by_its_preface() {
    together(|on| {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let both = exchange(on, preface, b"\0\0\0\x04\0\0\0\0\0")?;
        assert_protocol(&both, "http2", "http", "2");
        Ok(())
    });
}

#[test]
fn bytes_of_no_known_protocol_are_unknown() {
    together(|on| {
        let both = exchange(on, b"\x00\x01\x02\x03hello", b"\xff\xfe")?;
        assert_protocol(&both, "unknown", "unknown", "");
        both.assert_whole();
        Ok(())
    });
}

#[track_caller]
fn assert_hello(both: &Both) {
    for span in [&both.client, &both.server] {
        assert_eq!(span.str("server.address"), "hello.example", "{span:#?}");
        assert_eq!(span.attributes.strings("tap.tls.client.alpn"), ["h2", "http/1.1"]);
        assert!(!span.attributes.strings("tls.client.supported_ciphers").is_empty());
        assert!(span.event("TLSClientHelloEvent").is_some(), "{:?}", span.event_names());
    }
}

#[test]
fn a_client_hello_in_one_piece_and_in_many() {
    together(|on| {
        let hello = client_hello("hello.example", &["h2", "http/1.1"], 1200);
        let both = exchange(on, &hello, b"\x15\x03\x03\0\x02\x02\x28")?;
        assert_protocol(&both, "tls", "tls", "");
        assert_hello(&both);
        for size in [1, 100, 700] {
            let pieces: Vec<&[u8]> =
                hello[..10].chunks(size).chain(hello[10..].chunks(200)).collect();
            assert_hello(&exchange_in(on, &pieces, b"\x15\x03\x03\0\x02\x02\x28")?);
        }
        Ok(())
    });
}

#[test]
fn a_hello_that_is_longer_than_the_head_is_said_to_be_cut() {
    together(|on| {
        let hello = client_hello("hello.example", &["h2"], 14_000);
        let both = exchange(on, &hello, b"\x15\x03\x03\0\x02\x02\x28")?;
        for span in [&both.client, &both.server] {
            assert!(span.marked("truncated"), "{span:#?}");
            assert_eq!(span.str("network.protocol.name"), "tls");
        }
        both.assert_bytes(hello.len() as u64, 7);
        Ok(())
    });
}

#[test]
fn a_head_that_waits_for_its_rest_does_no_harm() {
    together(|on| {
        // Half a hello, then the end.
        let hello = client_hello("hello.example", &["h2"], 100);
        let mut connected = Connected::new()?;
        connected.client.write_all(&hello[..60])?;
        connected.server.read_exact(&mut [0; 60])?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(60, 0);
        assert_ne!(both.client.str("server.address"), "hello.example");
        Ok(())
    });
}
