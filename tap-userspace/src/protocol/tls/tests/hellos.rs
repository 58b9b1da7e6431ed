//! What hellos say.

use super::*;
use crate::protocol::tls::group_name;

fn hello(name: &str) -> ClientHello {
    course(name).play().client_hello.expect("a hello")
}

#[test]
fn real_hellos_say_what_their_programs_offered() {
    for (name, server_name, alpn, version, chosen) in [
        ("openssl", Some("tap.example"), &["h2", "http/1.1"][..], "1.3", "1.3"),
        ("openssl-tls13", Some("tap.example"), &[], "1.3", "1.3"),
        ("openssl-tls12", Some("tap.example"), &[], "1.2", "1.2"),
        ("openssl-tls11", Some("tap.example"), &[], "1.1", "1.1"),
        ("openssl-tls10", Some("tap.example"), &[], "1.0", "1.0"),
        ("openssl-no-sni", None, &[], "1.3", "1.3"),
        ("openssl-retry", Some("tap.example"), &[], "1.3", "1.3"),
        ("curl-http1", Some("tap.example"), &["http/1.1"], "1.3", "1.3"),
        ("curl-tls12", Some("tap.example"), &["h2", "http/1.1"], "1.2", "1.2"),
        ("python", Some("tap.example"), &["http/1.1"], "1.3", "1.3"),
        ("node", Some("tap.example"), &["h2", "http/1.1"], "1.3", "1.3"),
        ("go", Some("tap.example"), &["h2", "http/1.1"], "1.3", "1.3"),
        ("wget", None, &[], "1.3", "1.3"),
        ("chrome146", Some("tap.example"), &["h2", "http/1.1"], "1.3", "1.3"),
        ("firefox147", Some("tap.example"), &["h2", "http/1.1"], "1.3", "1.3"),
    ] {
        let told = course(name).play();
        let hello = told.client_hello.expect("a hello");
        assert_eq!(hello.server_name.as_deref(), server_name, "{name}");
        assert_eq!(hello.alpn, alpn, "{name}");
        assert_eq!(hello.version, Some(version), "{name}");
        let server = told.server_hello.expect("a hello");
        assert_eq!(server.version, Some(chosen), "{name}");
        let cipher = server.cipher.expect("a cipher");
        assert!(hello.ciphers.contains(&cipher), "{name}: {cipher}");
    }
    let hello = hello("openssl-tls13");
    assert_eq!(
        hello.ciphers,
        [
            "TLS_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_AES_128_GCM_SHA256",
            "TLS_EMPTY_RENEGOTIATION_INFO_SCSV"
        ]
    );
    assert_eq!(hello.versions, ["1.3"]);
    let groups: Vec<_> = hello.groups.iter().filter_map(|id| group_name(*id)).collect();
    assert_eq!(groups[..3], ["x25519", "secp256r1", "x448"]);
    assert_eq!(groups[5..], ["ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"]);
    assert_eq!(hello.signature_algorithms[..3], [0x0403, 0x0503, 0x0603]);
}

#[test]
fn browsers_offer_post_quantum_groups_and_encrypted_hellos() {
    const X25519_MLKEM768: u16 = 4588;
    for (name, post_quantum, ech) in [
        ("chrome99", false, false),
        ("chrome120", false, true),
        ("chrome131", true, true),
        ("chrome146", true, true),
        ("safari180", false, false),
        ("safari260", true, false),
        ("firefox147", true, true),
        ("go", true, false),
        ("gnutls", false, false),
    ] {
        let hello = hello(name);
        assert_eq!(hello.groups.contains(&X25519_MLKEM768), post_quantum, "{name}");
        assert_eq!(hello.ech, ech, "{name}");
        assert_eq!(hello.versions[..2], ["1.3", "1.2"], "{name}");
    }
    assert_eq!(group_name(X25519_MLKEM768), Some("X25519MLKEM768"));
    assert_eq!(hello("chrome99").point_formats, [0]);
}

#[test]
fn what_is_presented_to_resume_a_session_is_told() {
    for (name, session_id, ticket, pre_shared_key, early_data) in [
        ("tls13", 32, false, false, false),
        ("tls13-no-middlebox", 0, false, false, false),
        ("tls13-resumed", 32, false, true, false),
        ("tls13-early-data", 32, false, true, true),
        ("tls12", 0, false, false, false),
        ("tls12-ticket", 32, true, false, false),
        ("tls12-session-id", 32, false, false, false),
    ] {
        let hello = hello(name);
        assert_eq!(hello.session_id.len(), session_id, "{name}");
        assert_eq!(hello.session_ticket, ticket, "{name}");
        assert_eq!(hello.pre_shared_key, pre_shared_key, "{name}");
        assert_eq!(hello.early_data, early_data, "{name}");
    }
}

#[test]
fn a_post_quantum_hello_is_larger_than_a_segment() {
    let client = course("go-long-name").said(Side::Client);
    assert!(hello_end(&client) > 1500);
    let name = hello("go-long-name").server_name.expect("a name");
    assert!(name.ends_with(".tap.example") && name.len() > 180, "{name}");
}

#[test]
fn a_hello_over_several_records() {
    let hello = hello("openssl-records");
    assert_eq!(hello.alpn.len(), 30);
    assert_eq!(hello.alpn[29], "protocol-29/1.0");
    // The same hello in records of every size gives the same.
    let client = course("go").said(Side::Client);
    let whole = client_says(&client);
    let message = &client[5..hello_end(&client)];
    for size in 1..=message.len() {
        let cut: Vec<u8> = message.chunks(size).flat_map(|part| record(22, part)).collect();
        assert_eq!(client_says(&cut), whole, "records of {size}");
    }
}

#[test]
fn grease_is_left_out() {
    let extensions = b"\x4a\x4a\x00\x00\x00\x2b\x00\x05\x04\x7a\x7a\x03\x03\
        \x00\x10\x00\x08\x00\x06\x02\x5a\x5a\x02h2\
        \x00\x0a\x00\x06\x00\x04\xba\xba\x00\x1d\x00\x0d\x00\x06\x00\x04\xca\xca\x04\x03\
        \xfa\xfa\x00\x01\x00";
    let hello = parsed([3, 3], &[0x1a, 0x1a, 0x13, 0x01, 0xff, 0xf0], extensions);
    assert_eq!(hello.ciphers, ["TLS_AES_128_GCM_SHA256"]);
    assert_eq!(hello.alpn, ["h2"]);
    assert_eq!((hello.version, &hello.versions[..]), (Some("1.2"), &["1.2"][..]));
    assert_eq!((&hello.groups[..], &hello.signature_algorithms[..]), (&[29][..], &[0x0403][..]));
    assert!(hello.ja4.starts_with("t12i0204h2_"), "{}", hello.ja4);
}

#[test]
fn names_that_are_none() {
    for (list, expected) in [
        (&b"\x00\x00\x00\x08\x00\x06\x00\x00\x03A.b"[..], Some("a.b")),
        (b"\x00\x00\x00\x08\x00\x09\x00\x00\x03A.b", None),
        (b"\x00\x00\x00\x08\x00\x06\x00\x00\x03a b", None),
        (b"\x00\x00\x00\x08\x00\x06\x00\x00\x03a\nb", None),
        (b"\x00\x00\x00\x08\x00\x06\x00\x00\x03a\xffb", None),
        (b"\x00\x00\x00\x08\x00\x06\x01\x00\x03a.b", None),
        (b"\x00\x00\x00\x05\x00\x03\x00\x00\x00", None),
        (b"\x00\x00\x00\x00", None),
        (b"\x00\x00\x00\x02\x00\x00", None),
    ] {
        assert_eq!(parsed([3, 3], &[], list).server_name.as_deref(), expected, "{list:?}");
    }
    let mut long = b"\x00\x00\x01\x05\x01\x03\x00\x01\x00".to_vec();
    long.extend_from_slice(&[b'a'; 256]);
    assert_eq!(parsed([3, 3], &[], &long).server_name, None);
}

#[test]
fn odd_values_stay_bounded() {
    let alpn = b"\x00\x10\x00\x06\x00\x04\x03a\x00\xff";
    assert_eq!(parsed([3, 3], &[], alpn).alpn, [r"a\x00\xff"]);
    assert_eq!(parsed([3, 4], &[], b"").version, Some("1.2"));
    assert_eq!(parsed([3, 0], &[], b"").version, None);
    // Only versions that nobody knows: the legacy one stands.
    let versions = b"\x00\x2b\x00\x03\x02\x7f\x1c";
    assert_eq!(parsed([3, 3], &[], versions).version, Some("1.2"));
    let many = [0x13, 0x01].repeat(2000);
    assert_eq!(parsed([3, 3], &many, b"").ciphers.len(), 256);
    let mut alpn = b"\x00\x10\x00\xca\x00\xc8".to_vec();
    alpn.extend([1, b'x'].repeat(100));
    assert_eq!(parsed([3, 3], &[], &alpn).alpn.len(), 32);
    let mut groups = b"\x00\x0a\x07\xd2\x07\xd0".to_vec();
    groups.extend([0, 29].repeat(1000));
    assert_eq!(parsed([3, 3], &[], &groups).groups.len(), 256);
}

#[test]
fn what_is_no_hello_is_an_error() {
    use HelloError::{Malformed, NotTls, OtherMessage, Sslv2, TooLong};
    let broken = with_extensions([3, 3], &[], b"\x00\x00\x00\x09\x00");
    let alert_first = [&record(21, &[1, 0])[..], &record(23, &[0; 9])].concat();
    for (bytes, error) in [
        (&b"\x80\x2e\x01\x03\x01\x00\x15"[..], Sslv2),
        (b"GET / HTTP/1.1", NotTls),
        (b"\x16\x02\x00\x00\x01", NotTls),
        (b"\x16\x03\x05\x00\x01", NotTls),
        (b"\x17\x03\x03\x00\x01\x00", NotTls),
        (b"\x14\x03\x03\x00\x01\x01", NotTls),
        (b"\x16\x03\x01\x00\x00", Malformed),
        (b"\x16\x03\x01\xff\xff\x01", Malformed),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", OtherMessage(2)),
        (b"\x16\x03\x01\x00\x04\x0b\x00\x00\x00", OtherMessage(11)),
        (b"\x16\x03\x01\x00\x04\x01\x01\x00\x00", TooLong(65536)),
        (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", Malformed),
        (&broken, Malformed),
    ] {
        assert_eq!(client_says(bytes), Err(error), "{bytes:?}");
        let bytewise = play(bytes.chunks(1).map(|byte| (0, Side::Client, byte)));
        assert_eq!(bytewise.error, Some(error), "{bytes:?} byte by byte");
        assert_eq!(bytewise.events, [TlsEvent::Broken(error)]);
    }
    assert_eq!(client_says(&alert_first), Ok(None));
}
