//! The TLS ClientHello, and whether a handshake has come to encrypted data. Comes in: the head of
//! a direction. Parsing is `tls-parser`'s; what is done here is joining records and naming.

use tls_parser::{
    TlsCipherSuite, TlsExtension, TlsMessage, TlsMessageHandshake, TlsVersion,
    parse_tls_client_hello_extensions, parse_tls_message_handshake,
};

/// What a ClientHello says, as span attributes want it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name (SNI), in lower case; absent without the extension, or if it is no name.
    pub server_name: Option<String>,
    /// Protocols offered by ALPN, in order (`tap.tls.client.alpn`).
    pub alpn: Vec<String>,
    /// Highest version offered, as `tls.protocol.version` writes it (`1.3`).
    pub version: Option<&'static str>,
    /// Cipher suites offered, IANA names, GREASE left out (`tls.client.supported_ciphers`).
    pub ciphers: Vec<&'static str>,
}

/// A head that is no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no TLS ClientHello: {0}")]
pub struct NoHello(&'static str);

/// Longest handshake message that is waited for.
const MESSAGE_MAX: usize = 1 << 16;
/// Most names, protocols or suites that are kept.
const LIST_MAX: usize = 256;
/// Longest DNS name (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;

const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Reads the ClientHello at the begin of a direction, over as many records and segments as it
/// takes; `None` while it is not whole.
pub fn parse_client_hello(head: &[u8]) -> Result<Option<ClientHello>, NoHello> {
    let mut message = Vec::new();
    for record in records(head) {
        if record.kind != HANDSHAKE || record.bytes.is_empty() {
            return Err(NoHello("a record of another kind comes first"));
        }
        message.extend_from_slice(record.bytes);
        let [kind, a, b, c, ..] = message[..] else { continue };
        if kind != 1 {
            return Err(NoHello("another handshake message comes first"));
        }
        let len = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
        if len > MESSAGE_MAX {
            return Err(NoHello("its length is impossible"));
        }
        if message.len() >= len {
            return hello(&message[..len]).map(Some);
        }
    }
    Ok(None)
}

fn hello(message: &[u8]) -> Result<ClientHello, NoHello> {
    let (_, parsed) =
        parse_tls_message_handshake(message).map_err(|_| NoHello("it is malformed"))?;
    let TlsMessage::Handshake(TlsMessageHandshake::ClientHello(parsed)) = parsed else {
        return Err(NoHello("it is another message"));
    };
    let mut hello = ClientHello {
        version: version_name(parsed.version.0),
        ciphers: parsed
            .ciphers
            .iter()
            .filter_map(|cipher| TlsCipherSuite::from_id(cipher.0))
            .map(|suite| suite.name)
            .take(LIST_MAX)
            .collect(),
        ..ClientHello::default()
    };
    let extensions = parsed.ext.and_then(|ext| parse_tls_client_hello_extensions(ext).ok());
    for extension in extensions.into_iter().flat_map(|(_, extensions)| extensions) {
        match extension {
            TlsExtension::SNI(names) => {
                let name = names.iter().find(|(kind, _)| kind.0 == 0);
                hello.server_name = name.and_then(|(_, name)| host_name(name));
            }
            TlsExtension::ALPN(protocols) => {
                let text = |protocol: &&[u8]| String::from_utf8_lossy(protocol).into_owned();
                hello.alpn = protocols
                    .iter()
                    .filter(|name| !is_grease(name))
                    .map(text)
                    .take(LIST_MAX)
                    .collect();
            }
            TlsExtension::SupportedVersions(versions) => {
                let highest = versions
                    .iter()
                    .map(|version| version.0)
                    .filter(|v| version_name(*v).is_some())
                    .max();
                hello.version = highest.and_then(version_name).or(hello.version);
            }
            _ => {}
        }
    }
    Ok(hello)
}

/// A name as RFC 6066 §3 allows it, in lower case. What is not printable ASCII is no host name.
fn host_name(name: &[u8]) -> Option<String> {
    let sound = !name.is_empty()
        && name.len() <= NAME_MAX
        && name.iter().all(|byte| byte.is_ascii_graphic());
    sound.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// A protocol name of GREASE (RFC 8701 §2): two equal bytes of the form 0x?A.
fn is_grease(name: &[u8]) -> bool {
    matches!(name, [a, b] if a == b && a & 0x0f == 0x0a)
}

fn version_name(version: u16) -> Option<&'static str> {
    match TlsVersion(version) {
        TlsVersion::Ssl30 => Some("3.0"),
        TlsVersion::Tls10 => Some("1.0"),
        TlsVersion::Tls11 => Some("1.1"),
        TlsVersion::Tls12 => Some("1.2"),
        TlsVersion::Tls13 => Some("1.3"),
        _ => None,
    }
}

/// Whether a handshake has come so far that the client sends encrypted data: it answered the
/// server's flight. (In TLS 1.3 the server's first encrypted record is still handshake, so the
/// server's records alone do not tell.)
pub fn established(client: &[u8], server: &[u8]) -> bool {
    let has = |head, kind| records(head).any(|record| record.kind == kind);
    let server_answered = has(server, CHANGE_CIPHER_SPEC) || has(server, APPLICATION_DATA);
    server_answered && (has(client, APPLICATION_DATA) || has_encrypted_finish(client))
}

/// TLS 1.2: a handshake record behind the client's ChangeCipherSpec is its encrypted Finished.
fn has_encrypted_finish(client: &[u8]) -> bool {
    records(client)
        .skip_while(|record| record.kind != CHANGE_CIPHER_SPEC)
        .skip(1)
        .any(|record| record.kind == HANDSHAKE)
}

/// A TLS record, or the begin of one that is cut off.
struct TlsRecord<'a> {
    kind: u8,
    bytes: &'a [u8],
}

/// The records of a head, up to what is none.
fn records(head: &[u8]) -> impl Iterator<Item = TlsRecord<'_>> {
    let mut rest = head;
    std::iter::from_fn(move || {
        let [kind @ 20..=24, 3, 0..=4, high, low, body @ ..] = rest else { return None };
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(body.len());
        let (bytes, after) = body.split_at(len);
        rest = after;
        (len > 0).then_some(TlsRecord { kind: *kind, bytes })
    })
}

#[doc(hidden)]
pub fn fuzz_hello(bytes: &[u8]) {
    let _ = parse_client_hello(bytes);
    let middle = bytes.len() / 2;
    let _ = established(&bytes[..middle], &bytes[middle..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hellos of real clients; how they were made stands beside them.
    fn fixture(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tls");
        let text = std::fs::read_to_string(format!("{folder}/{name}.hex")).unwrap();
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    const FIXTURES: [(&str, Option<&str>, &[&str], &str); 7] = [
        ("openssl-tls13", Some("tls13.example"), &["h2", "http/1.1"], "1.3"),
        ("openssl-tls12", Some("tls12.example"), &[], "1.2"),
        ("openssl-no-sni", None, &[], "1.3"),
        ("curl", Some("curl.example"), &["h2", "http/1.1"], "1.3"),
        ("python", Some("python.example"), &[], "1.3"),
        ("node", Some("node.example"), &["h2"], "1.3"),
        ("go-post-quantum", Some("go.example"), &["h2"], "1.3"),
    ];

    #[test]
    fn hellos_of_real_clients() {
        for (name, server_name, alpn, version) in FIXTURES {
            let hello = parse_client_hello(&fixture(name)).unwrap().unwrap();
            assert_eq!(hello.server_name.as_deref(), server_name, "{name}");
            assert_eq!(hello.alpn, alpn, "{name}");
            assert_eq!(hello.version, Some(version), "{name}");
            assert!(hello.ciphers.iter().all(|cipher| cipher.starts_with("TLS_")), "{name}");
            assert!(!hello.ciphers.is_empty(), "{name}");
        }
        assert!(fixture("go-post-quantum").len() > 1460, "no more than one segment");
    }

    #[test]
    fn a_hello_that_is_not_whole_needs_more() {
        for (name, ..) in FIXTURES {
            let whole = fixture(name);
            let len = 5 + usize::from(u16::from_be_bytes([whole[3], whole[4]]));
            for cut in 0..len {
                assert_eq!(parse_client_hello(&whole[..cut]), Ok(None), "{name} {cut}");
            }
        }
    }

    /// The same handshake message in records of `size` bytes each (RFC 8446 §5.1 allows it).
    fn in_small_records(whole: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let mut record = vec![22, 3, 1];
            record.extend((part.len() as u16).to_be_bytes());
            record.extend(part);
            record
        };
        whole[5..].chunks(size).flat_map(record).collect()
    }

    #[test]
    fn a_hello_over_many_records_is_whole() {
        for (name, ..) in FIXTURES {
            let whole = fixture(name);
            let hello = parse_client_hello(&whole);
            for size in [1, 3, 100, 517] {
                assert_eq!(parse_client_hello(&in_small_records(&whole, size)), hello, "{name}");
            }
        }
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        for bad in [
            &[23, 3, 3, 0, 1, 1][..],
            &[22, 3, 3, 0, 4, 2, 0, 0, 0],
            &[22, 3, 1, 0, 4, 1, 255, 255, 255],
        ] {
            assert!(parse_client_hello(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_client_hello(b"\x80\x2e\x01\x03\x01"), Ok(None));
        assert_eq!(parse_client_hello(&[22, 3, 1, 0, 0]), Ok(None));
    }

    #[test]
    fn mutated_hellos_are_survived() {
        let mut seed = 3u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for (name, ..) in FIXTURES {
            let whole = fixture(name);
            for _ in 0..20_000 {
                let mut bytes = whole.clone();
                for _ in 0..=next(4) {
                    let at = next(bytes.len());
                    bytes[at] = next(256) as u8;
                }
                bytes.truncate(next(bytes.len() + 1));
                fuzz_hello(&bytes);
            }
        }
    }

    #[test]
    fn the_client_ends_the_handshake() {
        let hello = fixture("curl");
        let record = |kind: u8, len: u16| {
            let mut record = vec![kind, 3, 3];
            record.extend(len.to_be_bytes());
            record.extend(vec![0; len.into()]);
            record
        };
        let (finished, data, change) = (record(22, 40), record(23, 20), record(20, 1));
        let server13 = [record(22, 90), change.clone(), record(23, 900)].concat();
        assert!(!established(&hello, &server13));
        assert!(!established(&[&hello[..], &change].concat(), &server13));
        assert!(established(&[&hello[..], &change, &data].concat(), &server13));
        let server12 = [record(22, 90), change.clone(), finished.clone()].concat();
        assert!(established(
            &[&hello[..], &record(22, 70), &change, &finished].concat(),
            &server12
        ));
        assert!(!established(&hello, &record(22, 90)));
    }
}
