//! How real handshakes went.

use super::*;

/// Name; established; resumed; version, cipher and group chosen; ALPN chosen in plaintext.
type Row<'a> = (&'a str, bool, Option<bool>, Option<[&'a str; 3]>, Option<&'a str>);

const AES_256: &str = "TLS_AES_256_GCM_SHA384";
const AES_128: &str = "TLS_AES_128_GCM_SHA256";
const CHACHA: &str = "TLS_CHACHA20_POLY1305_SHA256";
const ECDSA_256: &str = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
const RSA_CBC: &str = "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA";
const NEW: Option<bool> = Some(false);
const RESUMED: Option<bool> = Some(true);

/// An empty group is none.
const COURSES: &[Row<'_>] = &[
    ("tls13", true, NEW, Some(["1.3", AES_256, "x25519"]), None),
    ("tls13-resumed", true, RESUMED, Some(["1.3", AES_256, "x25519"]), None),
    ("tls13-early-data", true, RESUMED, Some(["1.3", AES_256, "x25519"]), None),
    ("tls13-early-data-refused", true, NEW, Some(["1.3", AES_256, "x25519"]), None),
    ("tls13-psk", true, RESUMED, Some(["1.3", CHACHA, "x25519"]), None),
    ("tls13-no-middlebox", true, NEW, Some(["1.3", AES_256, "x25519"]), None),
    ("tls13-retry", true, NEW, Some(["1.3", AES_256, "secp384r1"]), None),
    ("tls13-retry-resumed", true, RESUMED, Some(["1.3", AES_256, "secp384r1"]), None),
    ("tls13-client-cert", true, NEW, Some(["1.3", AES_256, "x25519"]), None),
    ("tls13-chacha", true, NEW, Some(["1.3", CHACHA, "x448"]), None),
    ("tls13-ccm8", true, NEW, Some(["1.3", "TLS_AES_128_CCM_8_SHA256", "x25519"]), None),
    ("tls13-client-refuses", false, NEW, Some(["1.3", AES_256, "x25519"]), None),
    ("tls13-no-cipher", false, None, None, None),
    ("tls13-no-group", false, None, None, None),
    ("no-alpn", false, None, None, None),
    ("no-version", false, None, None, None),
    ("tls12", true, NEW, Some(["1.2", ECDSA_256, "x25519"]), Some("h2")),
    ("tls12-ticket", true, RESUMED, Some(["1.2", ECDSA_256, ""]), None),
    ("tls12-session-id", true, RESUMED, Some(["1.2", ECDSA_256, ""]), None),
    ("tls12-forgotten-ticket", true, NEW, Some(["1.2", ECDSA_256, "x25519"]), None),
    ("tls12-p521", true, NEW, Some(["1.2", ECDSA_256, "secp521r1"]), None),
    ("tls12-rsa", true, NEW, Some(["1.2", "TLS_RSA_WITH_AES_128_GCM_SHA256", ""]), None),
    ("tls12-dhe", true, NEW, Some(["1.2", "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256", ""]), None),
    ("tls12-psk", true, NEW, Some(["1.2", "TLS_PSK_WITH_AES_128_CBC_SHA256", ""]), None),
    (
        "tls12-ecdhe-psk",
        true,
        NEW,
        Some(["1.2", "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256", "x25519"]),
        None,
    ),
    (
        "tls12-anonymous",
        true,
        NEW,
        Some(["1.2", "TLS_ECDH_anon_WITH_AES_256_CBC_SHA", "x25519"]),
        None,
    ),
    ("tls12-client-cert", true, NEW, Some(["1.2", ECDSA_256, "x25519"]), None),
    ("tls12-client-cert-refused", false, NEW, Some(["1.2", ECDSA_256, "x25519"]), None),
    ("tls12-client-refuses", false, NEW, Some(["1.2", ECDSA_256, "x25519"]), None),
    ("tls12-no-cipher", false, None, None, None),
    ("tls11", true, NEW, Some(["1.1", RSA_CBC, "x25519"]), None),
    ("tls11-session-id", true, RESUMED, Some(["1.1", RSA_CBC, ""]), None),
    ("tls10", true, NEW, Some(["1.0", RSA_CBC, "x25519"]), None),
    ("plain-http-server", false, None, None, None),
    ("go-go", true, NEW, Some(["1.3", AES_128, "X25519MLKEM768"]), None),
    ("go-resumed", true, RESUMED, Some(["1.3", AES_128, "X25519MLKEM768"]), None),
    (
        "go-tls12-resumed",
        true,
        RESUMED,
        Some(["1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", ""]),
        Some("h2"),
    ),
    ("go-server-openssl", true, NEW, Some(["1.3", AES_128, "x25519"]), None),
    ("go-server-node", true, NEW, Some(["1.3", AES_128, "x25519"]), None),
    ("gnutls", true, NEW, Some(["1.3", AES_256, "secp256r1"]), None),
    ("gnutls-resumed", true, RESUMED, Some(["1.3", AES_256, "secp256r1"]), None),
    ("gnutls-tls12", true, NEW, Some(["1.2", ECDSA_256, "secp256r1"]), None),
    ("gnutls-tls12-resumed", true, RESUMED, Some(["1.2", ECDSA_256, ""]), None),
    ("curl-openssl", true, NEW, Some(["1.3", AES_256, "x25519"]), None),
    ("wget", true, NEW, Some(["1.3", AES_256, "secp256r1"]), None),
    ("chrome99", true, NEW, Some(["1.3", AES_128, "x25519"]), None),
    ("chrome116", true, NEW, Some(["1.3", AES_128, "x25519"]), None),
    ("chrome120", true, NEW, Some(["1.3", AES_128, "x25519"]), None),
    ("chrome131", true, NEW, Some(["1.3", AES_128, "X25519MLKEM768"]), None),
    ("chrome146", true, NEW, Some(["1.3", AES_128, "X25519MLKEM768"]), None),
    ("edge101", true, NEW, Some(["1.3", AES_128, "x25519"]), None),
    ("safari155", true, NEW, Some(["1.3", AES_128, "x25519"]), None),
    ("safari180", true, NEW, Some(["1.3", AES_128, "x25519"]), None),
    ("safari260", true, NEW, Some(["1.3", AES_128, "X25519MLKEM768"]), None),
    ("firefox133", true, NEW, Some(["1.3", AES_128, "X25519MLKEM768"]), None),
    ("firefox147", true, NEW, Some(["1.3", AES_128, "X25519MLKEM768"]), None),
    ("tor145", true, NEW, Some(["1.3", AES_128, "x25519"]), None),
];

#[test]
fn real_handshakes_are_told_as_they_went() {
    for (name, established, resumed, chosen, alpn) in COURSES {
        let told = course(name).play();
        assert_eq!(told.established, *established, "{name}: {told:?}");
        assert_eq!(told.resumed, *resumed, "{name}");
        let server = told.server_hello.as_ref();
        let found = server
            .map(|hello| [hello.version, hello.cipher, hello.group].map(Option::unwrap_or_default));
        assert_eq!(found, *chosen, "{name}");
        assert_eq!(server.and_then(|hello| hello.alpn.as_deref()), *alpn, "{name}");
        assert_eq!(told.retried, name.contains("retry"), "{name}");
        assert!(!told.gap, "{name}");
    }
    let played = std::fs::read_dir(FIXTURES)
        .expect("fixtures")
        .filter(|entry| {
            entry.as_ref().is_ok_and(|entry| {
                entry.path().extension().is_some_and(|extension| extension == "pieces")
            })
        })
        .count();
    assert_eq!(played, COURSES.len());
}

#[test]
fn handshakes_of_which_the_order_is_not_known() {
    for course in courses() {
        if COURSES.iter().any(|(name, ..)| *name == course.name) {
            continue;
        }
        let told = course.play();
        let name = &course.name;
        assert_eq!(told.established, !name.ends_with("rejects"), "{name}: {told:?}");
        assert_eq!(told.resumed, NEW, "{name}");
        assert_eq!(told.retried, name.ends_with("retry"), "{name}");
    }
}

/// The piece of which the end of the handshake is the end, counted from 0.
#[test]
fn the_end_is_that_of_the_last_finished() {
    for (name, end, last) in [
        ("tls13", Side::Client, 2),
        ("tls13-resumed", Side::Client, 2),
        ("tls13-early-data", Side::Client, 2),
        ("tls13-retry", Side::Client, 4),
        ("tls13-retry-resumed", Side::Client, 4),
        ("tls12", Side::Server, 3),
        ("tls12-forgotten-ticket", Side::Server, 3),
        // The server is the first to finish.
        ("tls12-ticket", Side::Client, 2),
        ("go-tls12-resumed", Side::Client, 2),
        ("go-resumed", Side::Client, 2),
        ("chrome146", Side::Client, 2),
    ] {
        let course = course(name);
        let told = course.play();
        assert_eq!(told.times, [Some(0), Some(last)], "{name}");
        assert_eq!(course.pieces[last as usize].0, end, "{name}");
    }
}

#[test]
fn a_fatal_alert_ends_it_and_is_named() {
    for (name, from, description) in [
        ("tls13-no-cipher", Side::Server, "handshake_failure"),
        ("tls13-no-group", Side::Server, "handshake_failure"),
        ("no-alpn", Side::Server, "no_application_protocol"),
        ("no-version", Side::Server, "protocol_version"),
        ("tls12-no-cipher", Side::Server, "handshake_failure"),
        ("tls12-client-refuses", Side::Client, "unknown_ca"),
        ("tls12-client-cert-refused", Side::Server, "unknown_ca"),
        ("openssl-tls12-rejects", Side::Client, "unknown_ca"),
        // OpenSSL's client has no key to write with yet.
        ("tls13-client-refuses", Side::Client, "unknown_ca"),
        ("openssl-rejects", Side::Client, "unknown_ca"),
    ] {
        let told = course(name).play();
        let alert = told.alert.expect(name);
        assert_eq!((alert.from, alert.description()), (from, Some(description)), "{name}");
        assert_eq!(told.events.last(), Some(&TlsEvent::Failed(alert)), "{name}");
        assert!(told.times[1].is_some() && !told.established, "{name}");
    }
    // Go's has: its refusal is a short application data record.
    let told = course("go-rejects").play();
    assert_eq!((told.alert, told.established, told.times[1]), (None, false, None));
}

#[test]
fn a_server_that_speaks_no_tls() {
    let told = course("plain-http-server").play();
    assert!(told.client_hello.is_some());
    assert_eq!(told.events, [TlsEvent::ClientHello, TlsEvent::Broken(HelloError::NotTls)]);
}

#[test]
fn after_a_retry_the_last_values_win_and_the_first_fingerprints() {
    for name in ["openssl-retry", "tls13-retry"] {
        let course = course(name);
        let first = client_says(&course.said(Side::Client)).expect("a hello").expect("whole");
        let told = course.play();
        let last = told.client_hello.expect("a hello");
        assert_eq!(
            told.events,
            [TlsEvent::ClientHello, TlsEvent::ServerHello, TlsEvent::Established],
            "{name}"
        );
        assert_eq!((&last.ja3, &last.ja4), (&first.ja3, &first.ja4), "{name}");
        assert_eq!(told.times[0], Some(0), "{name}");
    }
    // Real second hellos differ in key share and cookie; here SNI and cipher suite tell which it is.
    let name = |name: &[u8], suites: &[u8]| {
        let length = name.len() as u8;
        let sni = [&[0, 0, 0, length + 5, 0, length + 3, 0, 0, length], name].concat();
        with_extensions([3, 3], suites, &sni)
    };
    let retry = course("tls13-retry").pieces[1].1.clone();
    let mut handshake = Handshake::new();
    handshake.take(Side::Client, Piece::Bytes(&name(b"first", &[0x13, 1])), 1);
    handshake.take(Side::Client, Piece::Bytes(&name(b"unasked", &[0x13, 1])), 2);
    let before = handshake.client_hello().cloned().expect("a hello");
    assert_eq!(before.server_name.as_deref(), Some("first"));
    handshake.take(Side::Server, Piece::Bytes(&retry), 3);
    assert!(handshake.retried() && handshake.server_hello().is_none());
    handshake.take(Side::Client, Piece::Bytes(&record(20, &[1])), 4);
    handshake.take(Side::Client, Piece::Bytes(&name(b"second.name", &[0x13, 2])), 5);
    let after = handshake.client_hello().cloned().expect("a hello");
    assert_eq!(after.server_name.as_deref(), Some("second.name"));
    assert_eq!((after.ja4, after.ja3), (before.ja4, before.ja3));
    assert_eq!(handshake.client_hello_ns(), Some(1));
}

#[test]
fn early_data_is_no_finished() {
    let course = course("tls13-early-data");
    // The early data comes with the hello; then the server's flight; it is not over before the
    // client's Finished.
    let mut handshake = Handshake::new();
    for (n, (side, bytes)) in course.pieces.iter().enumerate() {
        handshake.take(*side, Piece::Bytes(bytes), n as u64);
        assert_eq!(handshake.established(), n >= 2, "piece {n}");
    }
    // More of it after the server's flight.
    let mut handshake = Handshake::new();
    for (side, bytes) in &course.pieces[..2] {
        handshake.take(*side, Piece::Bytes(bytes), 0);
    }
    let more = record(23, &[9; 500]);
    handshake.take(Side::Client, Piece::Bytes(&more), 1);
    assert!(!handshake.established());
    handshake.take(Side::Client, Piece::Bytes(&course.pieces[2].1), 2);
    assert_eq!((handshake.established(), handshake.ended_ns()), (true, Some(2)));
}

#[test]
fn warnings_between_messages_and_within_are_passed_over() {
    let course = course("tls12");
    let hello = course.said(Side::Client);
    let message = &hello[5..hello_end(&hello)];
    let (begin, end) = message.split_at(100);
    const UNRECOGNIZED_NAME: u8 = 112;
    let warning = record(21, &[1, UNRECOGNIZED_NAME]);
    let stirred = [record(22, begin), warning.clone(), record(22, end)].concat();
    let mut handshake = Handshake::new();
    handshake.take(Side::Client, Piece::Bytes(&stirred), 0);
    assert!(handshake.client_hello().is_some());
    handshake.take(Side::Server, Piece::Bytes(&warning), 1);
    for (side, bytes) in &course.pieces[1..] {
        handshake.take(*side, Piece::Bytes(bytes), 2);
    }
    assert!(handshake.established() && handshake.alert().is_none());
}

#[test]
fn a_ticket_without_a_session_id_resumes_when_the_server_finishes_at_once() {
    // RFC 5077 §3.4: the client may leave the session id empty.
    let server_hello = |session: &[u8]| {
        let id = [&[session.len() as u8], session].concat();
        record(22, &message(2, &[&[3, 3], &[1; 32][..], &id, &[0xc0, 0x2f, 0]].concat()))
    };
    let ticket = message(4, &[0; 20]);
    let change = record(20, &[1]);
    let certificate = record(22, &message(11, &[0; 40]));
    let done = record(22, &message(14, &[]));
    for (flight, before, resumed) in [
        (vec![], None, Some(true)),
        (vec![record(22, &ticket)], None, Some(true)),
        (vec![certificate], Some(false), Some(false)),
        (vec![done], Some(false), Some(false)),
    ] {
        let mut handshake = Handshake::new();
        let hello = with_extensions([3, 3], &[0xc0, 0x2f], b"\x00\x23\x00\x02ab");
        handshake.take(Side::Client, Piece::Bytes(&hello), 0);
        let said = [server_hello(b""), flight.concat()].concat();
        handshake.take(Side::Server, Piece::Bytes(&said), 0);
        assert_eq!(handshake.resumed(), before);
        handshake.take(Side::Server, Piece::Bytes(&change), 0);
        assert_eq!(handshake.resumed(), resumed);
    }
}

/// For orientation: `cargo test --release -- --ignored --nocapture costs`.
#[test]
#[ignore = "measures time"]
fn what_a_handshake_costs() {
    for name in ["tls12", "tls13", "chrome146", "go-go", "curl-openssl"] {
        let course = course(name);
        let rounds = 20_000;
        let time = |pieces: &[(Side, Vec<u8>)]| {
            let begun = std::time::Instant::now();
            for _ in 0..rounds {
                let mut handshake = Handshake::new();
                for (side, bytes) in pieces {
                    std::hint::black_box(handshake.take(*side, Piece::Bytes(bytes), 1));
                }
            }
            begun.elapsed().as_nanos() / rounds
        };
        println!("{name}: {} ns, hello {} ns", time(&course.pieces), time(&course.pieces[..1]));
    }
    let mut handshake = Handshake::new();
    for (side, bytes) in &course("tls13").pieces {
        handshake.take(*side, Piece::Bytes(bytes), 1);
    }
    let data = record(23, &[0; 16_000]);
    let begun = std::time::Instant::now();
    for _ in 0..1_000_000 {
        std::hint::black_box(handshake.take(Side::Server, Piece::Bytes(&data), 1));
    }
    println!("after the end: {} ps", begun.elapsed().as_nanos() / 1000);
}
