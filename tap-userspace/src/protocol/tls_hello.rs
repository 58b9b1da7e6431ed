//! The TLS hellos. In: the contiguous first bytes of a direction, TLS records of any size in any
//! number. Out: what the ClientHello offers, what the ServerHello chose, and whether the handshake
//! was completed.
//!
//! A parser gives `Ok(None)` while bytes are missing; an error is final.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use tls_parser::{
    TlsCipherSuite, TlsExtension, TlsVersion, parse_tls_client_hello_extension,
    parse_tls_handshake_client_hello, parse_tls_handshake_server_hello,
    parse_tls_server_hello_extension,
};

/// A hello of this length and more is none: no head is longer.
const HELLO_MAX: u32 = 64 << 10;
/// Cipher suites that are kept; real clients offer up to about 180.
const CIPHERS_MAX: usize = 256;
/// ALPN protocols that are kept.
const ALPN_MAX: usize = 32;
/// A DNS name has at most 253 characters and, on the wire, 255 bytes (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;

/// What a ClientHello says, as span attributes want it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name (SNI): lower case, printable ASCII; absent without the extension.
    pub server_name: Option<String>,
    /// Protocols offered by ALPN, in order (`tap.tls.client.alpn`); GREASE left out, bytes that
    /// are not printable ASCII escaped.
    pub alpn: Vec<String>,
    /// Highest version offered, as `tls.protocol.version` writes it (`1.3`).
    pub version: Option<&'static str>,
    /// Cipher suites offered, IANA names, GREASE and unassigned numbers left out
    /// (`tls.client.supported_ciphers`).
    pub ciphers: Vec<&'static str>,
}

/// What a ServerHello chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// The version, as `tls.protocol.version` writes it.
    pub version: Option<&'static str>,
    /// The cipher suite's IANA name.
    pub cipher: Option<&'static str>,
}

/// Why bytes are no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The first record is no TLS handshake record.
    #[error("no TLS handshake record")]
    NotTls,
    /// An SSLv2-compatible hello, which tap does not read.
    #[error("an SSLv2-compatible hello")]
    Sslv2,
    /// The handshake begins with another message.
    #[error("the handshake begins with a message of type {0}")]
    OtherMessage(u8),
    /// The hello is longer than any head.
    #[error("a hello of {0} bytes")]
    TooLong(u32),
    /// A length inside it does not fit.
    #[error("a malformed hello")]
    Malformed,
}

/// Reads the ClientHello at the begin of what a client sent.
pub fn parse_client_hello(stream_head: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let Some(body) = first_message(stream_head, CLIENT_HELLO)? else { return Ok(None) };
    let (_, hello) = parse_tls_handshake_client_hello(&body).map_err(|_| HelloError::Malformed)?;
    let mut found = ClientHello {
        ciphers: hello
            .ciphers
            .iter()
            .filter(|id| !is_grease(id.0))
            .filter_map(|id| cipher_name(id.0))
            .take(CIPHERS_MAX)
            .collect(),
        ..ClientHello::default()
    };
    let mut versions = None;
    for extension in extensions(hello.ext.unwrap_or_default()) {
        let (kind, bytes) = extension?;
        // A hello is read as far as it can be: the others are of no concern, and one of these that
        // is malformed is as good as absent.
        if !matches!(kind, SERVER_NAME | ALPN | SUPPORTED_VERSIONS) {
            continue;
        }
        match parse_tls_client_hello_extension(bytes) {
            Ok((_, TlsExtension::SNI(names))) if found.server_name.is_none() => {
                const HOST_NAME: u8 = 0;
                found.server_name =
                    names.iter().find(|(kind, _)| kind.0 == HOST_NAME).and_then(|(_, n)| name(n));
            }
            Ok((_, TlsExtension::ALPN(protocols))) if found.alpn.is_empty() => {
                found.alpn = protocols
                    .iter()
                    .filter(|protocol| !is_alpn_grease(protocol))
                    .take(ALPN_MAX)
                    .map(|protocol| protocol.escape_ascii().to_string())
                    .collect();
            }
            Ok((_, TlsExtension::SupportedVersions(offered))) => {
                versions = offered.iter().filter_map(|version| version_name(*version)).max();
            }
            _ => {}
        }
    }
    found.version = versions.or_else(|| legacy_version(hello.version));
    Ok(Some(found))
}

/// Reads the ServerHello at the begin of what a server sent. A HelloRetryRequest is one in form
/// (RFC 8446 §4.1.4) and says the same of version and cipher.
pub fn parse_server_hello(stream_head: &[u8]) -> Result<Option<ServerHello>, HelloError> {
    let Some(body) = first_message(stream_head, SERVER_HELLO)? else { return Ok(None) };
    let (_, hello) = parse_tls_handshake_server_hello(&body).map_err(|_| HelloError::Malformed)?;
    let mut chosen = None;
    for extension in extensions(hello.ext.unwrap_or_default()) {
        let (SUPPORTED_VERSIONS, bytes) = extension? else { continue };
        if let Ok((_, TlsExtension::SupportedVersions(versions))) =
            parse_tls_server_hello_extension(bytes)
        {
            chosen = versions.first().and_then(|version| version_name(*version));
        }
    }
    Ok(Some(ServerHello {
        version: chosen.or_else(|| legacy_version(hello.version)),
        cipher: cipher_name(hello.cipher.0),
    }))
}

/// Whether the handshake came as far as encrypted data of both ends (`tls.established`), as far as
/// it can be told from outside. The arguments are the heads of what the client and the server
/// sent.
///
/// Up to TLS 1.2: both changed their cipher; or the client did and went on to application data,
/// which it does only after the server's Finished (the server's may be behind its certificates,
/// beyond the head). In TLS 1.3 the server's first application record is the rest of its
/// handshake, and the client's answer to it is its Finished, or an alert if it refuses: those are
/// encrypted alike and differ in length only.
pub fn established(client_head: &[u8], server_head: &[u8]) -> bool {
    let Ok(Some(server)) = parse_server_hello(server_head) else { return false };
    let client = Seen::of(client_head);
    let server_seen = Seen::of(server_head);
    if server.version == Some("1.3") {
        server_seen.application_data && client.application_data_max >= FINISHED_MIN
    } else {
        client.changed_cipher && (server_seen.changed_cipher || client.application_data)
    }
}

/// For the fuzzer: any bytes as a client's head.
#[doc(hidden)]
pub fn fuzz_client_hello(bytes: &[u8]) {
    if let Ok(Some(hello)) = parse_client_hello(bytes) {
        assert!(hello.alpn.len() <= ALPN_MAX && hello.ciphers.len() <= CIPHERS_MAX);
        assert!(hello.alpn.iter().all(|protocol| protocol.len() <= 4 * 255));
        if let Some(name) = hello.server_name {
            assert!(!name.is_empty() && name.len() <= NAME_MAX);
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}

/// For the fuzzer: any bytes as a server's head, and as both heads.
#[doc(hidden)]
pub fn fuzz_server_hello(bytes: &[u8]) {
    let hello = parse_server_hello(bytes);
    let (client, server) = bytes.split_at(bytes.len() / 2);
    established(client, server);
    assert!(!established(client, bytes) || matches!(hello, Ok(Some(_))));
}

// === Records ===

const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// TLSCiphertext.length (RFC 8446 §5.2; RFC 5246 §6.2.3 allows 2048 bytes of expansion).
const RECORD_MAX: usize = (1 << 14) + 2048;

/// Header (4), HMAC-SHA-256 (32), content type (1) and the shortest tag (CCM_8, 8) of a Finished; an
/// encrypted alert is 11 to 19 bytes long.
const FINISHED_MIN: usize = 45;

/// One record: its type, its full length and as much of its fragment as is there.
struct Record<'a> {
    kind: u8,
    length: usize,
    fragment: &'a [u8],
}

/// Splits `head` into records; the last one may be cut. Ends at what is no record header.
fn records(mut head: &[u8]) -> impl Iterator<Item = Result<Record<'_>, HelloError>> {
    std::iter::from_fn(move || {
        let [kind, major, minor, high, low, rest @ ..] = head else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *major != 3 || *minor > 4 || length > RECORD_MAX {
            head = &[];
            return Some(Err(HelloError::Malformed));
        }
        let (fragment, after) = rest.split_at(length.min(rest.len()));
        head = after;
        Some(Ok(Record { kind: *kind, length, fragment }))
    })
}

/// Kinds of records that a direction has shown.
#[derive(Default)]
struct Seen {
    changed_cipher: bool,
    application_data: bool,
    application_data_max: usize,
}

impl Seen {
    fn of(head: &[u8]) -> Self {
        let mut seen = Self::default();
        for record in records(head).map_while(Result::ok) {
            match record.kind {
                CHANGE_CIPHER_SPEC => seen.changed_cipher = true,
                APPLICATION_DATA => {
                    seen.application_data = true;
                    seen.application_data_max = seen.application_data_max.max(record.length);
                }
                _ => {}
            }
        }
        seen
    }
}

// === Handshake messages ===

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// The body of the first handshake message of `head`, which must be of type `kind`, put together
/// from as many records as it takes.
fn first_message(head: &[u8], kind: u8) -> Result<Option<Cow<'_, [u8]>>, HelloError> {
    match head {
        // msg_length with its high bit set, msg_type 1 (RFC 5246 appendix E.2).
        [0x80..=0xff, _, CLIENT_HELLO, ..] => return Err(HelloError::Sslv2),
        [first, ..] if *first != HANDSHAKE => return Err(HelloError::NotTls),
        [_, major, ..] if *major != 3 => return Err(HelloError::NotTls),
        [_, _, minor, ..] if *minor > 4 => return Err(HelloError::NotTls),
        _ => {}
    }
    let mut message = Cow::Borrowed(&[][..]);
    for record in records(head) {
        let record = record?;
        if record.kind != HANDSHAKE || record.length == 0 {
            return Err(HelloError::Malformed);
        }
        if message.is_empty() {
            message = Cow::Borrowed(record.fragment);
        } else {
            message.to_mut().extend_from_slice(record.fragment);
        }
        match message[..] {
            [other, ..] if other != kind => return Err(HelloError::OtherMessage(other)),
            [_, a, b, c, ref body @ ..] => {
                let length = u32::from_be_bytes([0, a, b, c]);
                if length >= HELLO_MAX {
                    return Err(HelloError::TooLong(length));
                }
                let length = length as usize;
                if body.len() >= length {
                    return Ok(Some(match message {
                        Cow::Borrowed(message) => Cow::Borrowed(&message[4..4 + length]),
                        Cow::Owned(message) => Cow::Owned(message[4..4 + length].to_vec()),
                    }));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

// === Extensions and names ===

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// Splits a hello's extensions: the type of each, and its bytes with type and length, as
/// tls-parser wants them. One at a time, since its parser of all ends in silence at the first that
/// it cannot read.
fn extensions(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), HelloError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let [t0, t1, l0, l1, rest @ ..] = bytes else {
            bytes = &[];
            return Some(Err(HelloError::Malformed));
        };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if rest.len() < length {
            bytes = &[];
            return Some(Err(HelloError::Malformed));
        }
        let (extension, after) = bytes.split_at(4 + length);
        bytes = after;
        Some(Ok((u16::from_be_bytes([*t0, *t1]), extension)))
    })
}

/// GREASE values of cipher suites and extensions (RFC 8701 §2): 0x0A0A, 0x1A1A, … 0xFAFA.
const fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

/// GREASE values of ALPN are the two bytes of those.
const fn is_alpn_grease(protocol: &[u8]) -> bool {
    matches!(protocol, [high, low] if is_grease(u16::from_be_bytes([*high, *low])))
}

fn cipher_name(id: u16) -> Option<&'static str> {
    TlsCipherSuite::from_id(id).map(|suite| suite.name)
}

const fn version_name(version: TlsVersion) -> Option<&'static str> {
    match version.0 {
        0x0301 => Some("1.0"),
        0x0302 => Some("1.1"),
        0x0303 => Some("1.2"),
        0x0304 => Some("1.3"),
        _ => None,
    }
}

/// Without the extension a hello cannot mean more than 1.2 (RFC 8446 §4.2.1).
const fn legacy_version(version: TlsVersion) -> Option<&'static str> {
    if version.0 > 0x0303 { Some("1.2") } else { version_name(version) }
}

/// A host name that may stand in an attribute: what is too long or not printable is no host name.
fn name(bytes: &[u8]) -> Option<String> {
    let fine =
        !bytes.is_empty() && bytes.len() <= NAME_MAX && bytes.iter().all(u8::is_ascii_graphic);
    let name = std::str::from_utf8(bytes).ok().filter(|_| fine)?;
    Some(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        Protocol,
        detect::{Detection, detect},
        head::Head,
        noise::Noise,
    };

    macro_rules! fixtures {
        ($($name:literal)*) => {
            &[$((
                $name,
                include_bytes!(concat!("../../../tests/fixtures/tls/", $name, ".client.bin")),
                include_bytes!(concat!("../../../tests/fixtures/tls/", $name, ".server.bin")),
            )),*]
        };
    }

    /// Name, what the client sent, what the server sent.
    const FIXTURES: &[(&str, &[u8], &[u8])] = fixtures!(
        "openssl" "openssl-tls13" "openssl-tls12" "openssl-tls11" "openssl-tls10"
        "openssl-no-sni" "openssl-records" "openssl-retry" "openssl-rejects"
        "openssl-tls12-rejects" "curl" "curl-http1" "curl-tls12" "python" "node" "go"
        "go-rejects" "go-long-name"
    );

    fn hello(name: &str) -> ClientHello {
        let (_, client, _) = FIXTURES.iter().find(|(n, ..)| *n == name).expect("a fixture");
        parse_client_hello(client).expect("a hello").expect("whole")
    }

    /// Where the hello's last byte is.
    fn hello_end(client: &[u8]) -> usize {
        (0..=client.len())
            .find(|end| matches!(parse_client_hello(&client[..*end]), Ok(Some(_))))
            .expect("a whole hello")
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
            ("curl", Some("tap.example"), &["h2", "http/1.1"], "1.3", "1.3"),
            ("curl-http1", Some("tap.example"), &["http/1.1"], "1.3", "1.3"),
            ("curl-tls12", Some("tap.example"), &["h2", "http/1.1"], "1.2", "1.2"),
            ("python", Some("tap.example"), &["http/1.1"], "1.3", "1.3"),
            ("node", Some("tap.example"), &["h2", "http/1.1"], "1.3", "1.3"),
            ("go", Some("tap.example"), &["h2", "http/1.1"], "1.3", "1.3"),
        ] {
            let hello = hello(name);
            assert_eq!(hello.server_name.as_deref(), server_name, "{name}");
            assert_eq!(hello.alpn, alpn, "{name}");
            assert_eq!(hello.version, Some(version), "{name}");
            let (_, _, server) = FIXTURES.iter().find(|(n, ..)| *n == name).expect("a fixture");
            let server = parse_server_hello(server).expect("a hello").expect("whole");
            assert_eq!(server.version, Some(chosen), "{name}");
            let cipher = server.cipher.expect("a cipher");
            assert!(hello.ciphers.contains(&cipher), "{name}: {cipher}");
        }
        assert_eq!(
            hello("openssl-tls13").ciphers,
            [
                "TLS_AES_256_GCM_SHA384",
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_AES_128_GCM_SHA256",
                "TLS_EMPTY_RENEGOTIATION_INFO_SCSV"
            ]
        );
    }

    #[test]
    fn a_post_quantum_hello_is_larger_than_a_segment() {
        let (_, client, _) = FIXTURES.iter().find(|(n, ..)| *n == "go-long-name").expect("it");
        assert!(hello_end(client) > 1500);
        let name = hello("go-long-name").server_name.expect("a name");
        assert!(name.ends_with(".tap.example") && name.len() > 180, "{name}");
    }

    #[test]
    fn a_hello_over_several_records() {
        let (_, client, _) = FIXTURES.iter().find(|(n, ..)| *n == "openssl-records").expect("it");
        let lengths: Vec<_> = records(client).map_while(Result::ok).map(|r| r.length).collect();
        assert_eq!(lengths[0], 512);
        let hello = hello("openssl-records");
        assert_eq!(hello.alpn.len(), 30);
        assert_eq!(hello.alpn[29], "protocol-29/1.0");
        // The same hello in records of every size gives the same.
        let (_, client, _) = FIXTURES.iter().find(|(n, ..)| *n == "go").expect("it");
        let whole = parse_client_hello(client);
        let message = &client[5..hello_end(client)];
        for size in 1..=message.len() {
            let mut cut = Vec::new();
            for fragment in message.chunks(size) {
                cut.extend_from_slice(&[22, 3, 1]);
                cut.extend_from_slice(&u16::try_from(fragment.len()).expect("small").to_be_bytes());
                cut.extend_from_slice(fragment);
            }
            assert_eq!(parse_client_hello(&cut), whole, "records of {size}");
        }
    }

    #[test]
    fn every_prefix_is_none_or_the_whole() {
        for (name, client, server) in FIXTURES {
            let whole = parse_client_hello(client);
            let mut was_whole = false;
            for end in 0..=client.len() {
                let part = parse_client_hello(&client[..end]);
                assert!(part == Ok(None) || part == whole, "{name} cut at {end}: {part:?}");
                assert!(part != Ok(None) || !was_whole, "{name} cut at {end}");
                was_whole = part != Ok(None);
                established(&client[..end], server);
            }
            assert!(was_whole, "{name}");
            for end in 0..=server.len() {
                parse_server_hello(&server[..end]).expect("none or a hello");
            }
        }
    }

    #[test]
    fn every_cut_into_two_segments_gives_the_same() {
        for (name, client, _) in FIXTURES {
            let client = &client[..hello_end(client)];
            let whole = parse_client_hello(client);
            for cut in 0..=client.len() {
                let (first, second) = client.split_at(cut);
                let mut head = Head::new(4096);
                head.put(cut as u64, second, u32::try_from(second.len()).expect("small"));
                head.put(0, first, u32::try_from(first.len()).expect("small"));
                assert_eq!(parse_client_hello(head.contiguous()), whole, "{name} cut at {cut}");
            }
        }
    }

    #[test]
    fn real_handshakes_are_detected_and_told_apart() {
        for (name, client, server) in FIXTURES {
            let found = detect(server, client);
            assert!(
                matches!(found, Detection::Known(known) if known.protocol == Protocol::Tls),
                "{name}: {found:?}"
            );
            let completed = !name.ends_with("rejects");
            assert_eq!(established(client, server), completed, "{name}");
            let hello = &client[..hello_end(client)];
            assert!(!established(hello, server), "{name}: the hello alone");
            assert!(!established(client, b""), "{name}: no server");
            assert!(!established(server, client), "{name}: turned round");
        }
        // After a HelloRetryRequest both have changed their cipher, with nothing agreed yet.
        let (_, client, server) =
            FIXTURES.iter().find(|(n, ..)| *n == "openssl-retry").expect("it");
        let kinds = |head| records(head).map_while(Result::ok).map(|r| r.kind).collect::<Vec<_>>();
        assert_eq!(kinds(client)[..3], [22, 20, 22]);
        assert_eq!(kinds(server)[..3], [22, 20, 22]);
        assert!(!established(&client[..hello_end(client) + 6 + 100], server));
    }

    #[test]
    fn an_old_server_with_many_certificates() {
        let (_, client, server) =
            FIXTURES.iter().find(|(n, ..)| *n == "openssl-tls12").expect("it");
        // Its head ends within the certificates; the client's application data proves the rest.
        assert!(established(client, &server[..600]));
    }

    /// A hello with these extensions.
    fn with_extensions(version: [u8; 2], ciphers: &[u8], extensions: &[u8]) -> Vec<u8> {
        let mut body = version.to_vec();
        body.extend_from_slice(&[7; 32]);
        body.push(0);
        body.extend_from_slice(&u16::try_from(ciphers.len()).expect("small").to_be_bytes());
        body.extend_from_slice(ciphers);
        body.extend_from_slice(&[1, 0]);
        body.extend_from_slice(&u16::try_from(extensions.len()).expect("small").to_be_bytes());
        body.extend_from_slice(extensions);
        let length = u16::try_from(body.len()).expect("small");
        let mut hello = vec![22, 3, 1];
        hello.extend_from_slice(&(length + 4).to_be_bytes());
        hello.extend_from_slice(&[1, 0]);
        hello.extend_from_slice(&length.to_be_bytes());
        hello.extend_from_slice(&body);
        hello
    }

    fn parsed(version: [u8; 2], ciphers: &[u8], extensions: &[u8]) -> ClientHello {
        parse_client_hello(&with_extensions(version, ciphers, extensions))
            .expect("a hello")
            .expect("whole")
    }

    #[test]
    fn grease_is_left_out() {
        let extensions = b"\x4a\x4a\x00\x00\x00\x2b\x00\x05\x04\x7a\x7a\x03\x03\
            \x00\x10\x00\x08\x00\x06\x02\x5a\x5a\x02h2\xfa\xfa\x00\x01\x00";
        let hello = parsed([3, 3], &[0x1a, 0x1a, 0x13, 0x01, 0xff, 0xf0], extensions);
        assert_eq!(hello.ciphers, ["TLS_AES_128_GCM_SHA256"]);
        assert_eq!(hello.alpn, ["h2"]);
        assert_eq!(hello.version, Some("1.2"));
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
        let many = [0x13, 0x01].repeat(2000);
        assert_eq!(parsed([3, 3], &many, b"").ciphers.len(), CIPHERS_MAX);
        let mut alpn = b"\x00\x10\x00\xca\x00\xc8".to_vec();
        alpn.extend([1, b'x'].repeat(100));
        assert_eq!(parsed([3, 3], &[], &alpn).alpn.len(), ALPN_MAX);
    }

    #[test]
    fn what_is_no_hello_is_an_error() {
        use HelloError::{Malformed, NotTls, OtherMessage, Sslv2, TooLong};
        let broken = with_extensions([3, 3], &[], b"\x00\x00\x00\x09\x00");
        for (bytes, error) in [
            (&b"\x80\x2e\x01\x03\x01\x00\x15"[..], Sslv2),
            (b"GET / HTTP/1.1", NotTls),
            (b"\x16\x02", NotTls),
            (b"\x16\x03\x05", NotTls),
            (b"\x17\x03\x03\x00\x01\x00", NotTls),
            (b"\x16\x03\x01\x00\x00", Malformed),
            (b"\x16\x03\x01\xff\xff\x01", Malformed),
            (b"\x16\x03\x01\x00\x01\x02", OtherMessage(2)),
            (b"\x16\x03\x01\x00\x04\x01\x01\x00\x00", TooLong(65536)),
            (b"\x16\x03\x01\x00\x04\x01\x00\x00\x04\x15\x03\x01\x00\x02\x02\x28", Malformed),
            (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", Malformed),
            (&broken, Malformed),
        ] {
            assert_eq!(parse_client_hello(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn noise_is_never_trouble() {
        let mut noise = Noise::new(0x7461_7003);
        let mut bytes = Vec::new();
        for n in 0..120_000 {
            let (_, client, server) = FIXTURES[n % FIXTURES.len()];
            bytes.clear();
            bytes.extend_from_slice(client);
            noise.stir(&mut bytes);
            fuzz_client_hello(&bytes);
            bytes.clear();
            bytes.extend_from_slice(server);
            noise.stir(&mut bytes);
            fuzz_server_hello(&bytes);
            established(client, &bytes);
            bytes.clear();
            bytes.extend((0..noise.below(48)).map(|_| noise.byte()));
            fuzz_client_hello(&bytes);
            fuzz_server_hello(&bytes);
        }
    }
}
