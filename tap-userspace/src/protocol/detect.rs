//! One bounded look at the heads of both directions. In: their contiguous first bytes. Out: a
//! protocol, its version and which end is the client; or that more bytes are needed; or that it is
//! nothing tap knows, which is a valid outcome.
//!
//! Binary garbage must not become HTTP, nor one of the many line protocols that look like it
//! (RTSP, SIP): a request counts when its whole first line is one, or, where the line is longer
//! than the look, when method and target are.
#![forbid(unsafe_code)]

use super::Protocol;
use crate::connection::model::Direction;

/// Bytes of a direction that are looked at.
pub const LOOK: usize = 512;

/// What a look at both heads gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// It is this.
    Known(Detected),
    /// It may become something known with more bytes.
    NeedMore,
    /// Nothing known, whatever follows.
    Unknown,
}

/// A protocol that was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detected {
    /// Which.
    pub protocol: Protocol,
    /// `network.protocol.version` of HTTP (`1.0`, `1.1`, `2`); that of TLS is in its hellos.
    pub version: Option<&'static str>,
    /// The direction in which the client speaks: [`Direction::Transmit`] where this host is the
    /// client. It tells the role in a connection whose opening was not seen.
    pub client: Direction,
}

/// Looks at the bytes that this host received and those that it sent. Either may be empty.
pub fn detect(receive: &[u8], transmit: &[u8]) -> Detection {
    let looks = [
        (Direction::Receive, Direction::Transmit, look(receive)),
        (Direction::Transmit, Direction::Receive, look(transmit)),
    ];
    // What the client says goes first: a plain HTTP server answers a TLS hello with HTTP.
    for (speaker, _, look) in looks {
        if let Look::Client(protocol, version) = look {
            return Detection::Known(Detected { protocol, version, client: speaker });
        }
    }
    for (_, other, look) in looks {
        if let Look::Server(protocol, version) = look {
            return Detection::Known(Detected { protocol, version, client: other });
        }
    }
    if looks.iter().any(|(_, _, look)| *look == Look::More) {
        Detection::NeedMore
    } else {
        Detection::Unknown
    }
}

/// For the fuzzer: any bytes, cut anywhere into two directions.
#[doc(hidden)]
pub fn fuzz_detect(bytes: &[u8]) {
    let (cut, bytes) = bytes.split_first().map_or((0, bytes), |(cut, rest)| (*cut as usize, rest));
    let (receive, transmit) = bytes.split_at(cut.min(bytes.len()));
    let there = detect(receive, transmit);
    let back = detect(transmit, receive);
    assert_eq!(matches!(there, Detection::Known(_)), matches!(back, Detection::Known(_)));
}

/// What one direction looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Client(Protocol, Option<&'static str>),
    Server(Protocol, Option<&'static str>),
    More,
    No,
}

fn look(head: &[u8]) -> Look {
    let head = &head[..head.len().min(LOOK)];
    let Some(first) = head.first() else { return Look::More };
    match first {
        HANDSHAKE => tls(head),
        b'A'..=b'Z' | b'\r' | b'\n' => http(head),
        // 0x80 and above begin an SSLv2-compatible hello (RFC 5246 appendix E.2): no TLS library
        // of this decade accepts one, and its fields are others.
        _ => Look::No,
    }
}

// === TLS ===

const HANDSHAKE: &u8 = &22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// TLSPlaintext.length is at most 2^14 (RFC 8446 §5.1).
const RECORD_MAX: u16 = 1 << 14;

fn tls(head: &[u8]) -> Look {
    let byte = |at: usize| head.get(at).copied();
    if byte(1).is_some_and(|major| major != 3) || byte(2).is_some_and(|minor| minor > 4) {
        return Look::No;
    }
    let (Some(high), Some(low)) = (byte(3), byte(4)) else { return Look::More };
    let length = u16::from_be_bytes([high, low]);
    if length == 0 || length > RECORD_MAX {
        return Look::No;
    }
    let Some(kind) = byte(5) else { return Look::More };
    if kind != CLIENT_HELLO && kind != SERVER_HELLO {
        return Look::No;
    }
    // Where the record holds them: a length below 2^16 (its high byte is 0) and legacy_version 3.x.
    for (at, fine) in [(6, 0..=0), (9, 3..=3), (10, 0..=4)] {
        if at < 5 + usize::from(length) {
            match byte(at) {
                None => return Look::More,
                Some(value) if !fine.contains(&value) => return Look::No,
                Some(_) => {}
            }
        }
    }
    if kind == CLIENT_HELLO {
        Look::Client(Protocol::Tls, None)
    } else {
        Look::Server(Protocol::Tls, None)
    }
}

// === HTTP ===

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The IANA HTTP method registry, and those that UPnP and caches use besides.
#[rustfmt::skip]
const METHODS: &[&[u8]] = &[
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
    b"ACL", b"BASELINE-CONTROL", b"BIND", b"CHECKIN", b"CHECKOUT", b"COPY", b"LABEL", b"LINK",
    b"LOCK", b"MERGE", b"MKACTIVITY", b"MKCALENDAR", b"MKCOL", b"MKREDIRECTREF", b"MKWORKSPACE",
    b"MOVE", b"ORDERPATCH", b"PROPFIND", b"PROPPATCH", b"QUERY", b"REBIND", b"REPORT", b"SEARCH",
    b"UNBIND", b"UNCHECKOUT", b"UNLINK", b"UNLOCK", b"UPDATE", b"UPDATEREDIRECTREF",
    b"VERSION-CONTROL", b"M-SEARCH", b"NOTIFY", b"SUBSCRIBE", b"UNSUBSCRIBE", b"PURGE",
];

fn http(head: &[u8]) -> Look {
    if head.starts_with(PREFACE) {
        return Look::Client(Protocol::Http2, Some("2"));
    }
    if PREFACE.starts_with(head) {
        return Look::More;
    }
    // A server should skip an empty line or two before a request (RFC 9112 §2.2).
    let blank = head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if blank > 4 {
        return Look::No;
    }
    let head = &head[blank..];
    if head.is_empty() {
        return Look::More;
    }
    if head.starts_with(b"HTTP/") || b"HTTP/".starts_with(head) {
        return response(head);
    }
    request(head)
}

/// `HTTP/1.1 200 …`; the reason, and even the space before it, may be missing.
fn response(head: &[u8]) -> Look {
    for (at, byte) in head.iter().take(13).enumerate() {
        let fine = match at {
            0..=6 => *byte == b"HTTP/1."[at],
            7 => byte.is_ascii_digit(),
            8 => *byte == b' ',
            9 => matches!(byte, b'1'..=b'9'),
            10 | 11 => byte.is_ascii_digit(),
            _ => matches!(byte, b' ' | b'\r' | b'\n'),
        };
        if !fine {
            return Look::No;
        }
    }
    match head.get(7) {
        Some(minor) if head.len() > 12 => Look::Server(Protocol::Http1, version(*minor)),
        _ => Look::More,
    }
}

/// `GET /path HTTP/1.1`.
fn request(head: &[u8]) -> Look {
    let Some(space) = head.iter().position(|byte| *byte == b' ') else {
        return if METHODS.iter().any(|method| method.starts_with(head)) {
            Look::More
        } else {
            Look::No
        };
    };
    let (method, target) = (&head[..space], &head[space + 1..]);
    if !METHODS.contains(&method) {
        return Look::No;
    }
    let end = target.iter().position(|byte| *byte <= b' ' || *byte == 0x7f);
    let Some(end) = end else {
        return match sane_target(method, target) {
            Some(true) if head.len() + 4 >= LOOK => Look::Client(Protocol::Http1, None),
            Some(true) | None if head.len() + 4 < LOOK => Look::More,
            _ => Look::No,
        };
    };
    if sane_target(method, &target[..end]) != Some(true) {
        return Look::No;
    }
    line_end(&target[end..], head.len() + 4 >= LOOK)
}

/// ` HTTP/1.1` and the end of the line.
fn line_end(rest: &[u8], cut: bool) -> Look {
    const SHAPE: &[u8] = b" HTTP/1.";
    let common = rest.len().min(SHAPE.len());
    if rest[..common] != SHAPE[..common] {
        return Look::No;
    }
    match rest.get(SHAPE.len()..) {
        Some([minor, b'\r' | b'\n', ..]) if minor.is_ascii_digit() => {
            Look::Client(Protocol::Http1, version(*minor))
        }
        Some([minor]) if minor.is_ascii_digit() && !cut => Look::More,
        Some([minor]) if minor.is_ascii_digit() => Look::Client(Protocol::Http1, version(*minor)),
        Some([]) | None if cut => Look::Client(Protocol::Http1, None),
        Some([]) | None => Look::More,
        Some(_) => Look::No,
    }
}

/// Whether `target`, or what is known of it, is one of RFC 9112 §3.2's forms; `None` where it is
/// too short to say.
fn sane_target(method: &[u8], target: &[u8]) -> Option<bool> {
    let first = target.first()?;
    if method == b"CONNECT" {
        let host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(byte);
        return Some(target.iter().all(host));
    }
    match first {
        b'/' => Some(true),
        b'*' => Some(target.len() == 1),
        b'A'..=b'Z' | b'a'..=b'z' => {
            let scheme = target
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
                .count();
            let rest = &target[scheme..];
            if rest.len() < 3 && b"://".starts_with(rest) && scheme < 16 {
                return None;
            }
            Some(rest.starts_with(b"://"))
        }
        _ => Some(false),
    }
}

const fn version(minor: u8) -> Option<&'static str> {
    match minor {
        b'0' => Some("1.0"),
        b'1' => Some("1.1"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::noise::Noise;

    fn known(protocol: Protocol, version: Option<&'static str>, client: Direction) -> Detection {
        Detection::Known(Detected { protocol, version, client })
    }

    const HTTP1: Protocol = Protocol::Http1;
    const REQUESTS: &[(&[u8], Option<&str>)] = &[
        (b"GET / HTTP/1.1\r\n", Some("1.1")),
        (b"GET / HTTP/1.0\n", Some("1.0")),
        (b"\r\nPOST /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n", Some("1.1")),
        (b"PROPFIND /dav/ HTTP/1.1\r\n", Some("1.1")),
        (b"VERSION-CONTROL /x HTTP/1.1\r\n", Some("1.1")),
        (b"OPTIONS * HTTP/1.1\r\n", Some("1.1")),
        (b"CONNECT example.org:443 HTTP/1.1\r\n", Some("1.1")),
        (b"CONNECT [::1]:443 HTTP/1.1\r\n", Some("1.1")),
        (b"GET http://example.org/x HTTP/1.1\r\n", Some("1.1")),
        (b"GET /\xc3\xa4 HTTP/1.1\r\n", Some("1.1")),
        (b"GET / HTTP/1.7\r\n", None),
    ];
    const OTHERS: &[&[u8]] = &[
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"EHLO example.org\r\n",
        b"GET key\r\n",
        b"GET foo HTTP/1.1\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET /\r\n",
        b"GET /\x00\x01 HTTP/1.1\r\n",
        b"get / HTTP/1.1\r\n",
        b"OPTIONS rtsp://example.org/x RTSP/1.0\r\n",
        b"REGISTER sip:example.org SIP/2.0\r\n",
        b"OPTIONS *x HTTP/1.1\r\n",
        b"CONNECT /x HTTP/1.1\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"\r\n\r\n\r\n\r\n",
        b"HTTP/2.0 200\r\n",
        b"HTTP/1.1 2x0 OK\r\n",
        b"HTTP/1.1 2000 OK\r\n",
        // An SSLv2-compatible hello, and things that are nearly a TLS one.
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        b"\x16\x02\x01\x00\x40\x01\x00\x00\x3c\x03\x03",
        b"\x16\x03\x05\x00\x40\x01\x00\x00\x3c\x03\x03",
        b"\x16\x03\x01\x00\x00\x01\x00\x00\x3c\x03\x03",
        b"\x16\x03\x01\x50\x00\x01\x00\x00\x3c\x03\x03",
        b"\x16\x03\x01\x00\x40\x03\x00\x00\x3c\x03\x03",
        b"\x16\x03\x01\x00\x40\x01\x01\x00\x3c\x03\x03",
        b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x02\x00",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x20\x01\x00\x00\x3c\x03\x03",
    ];

    #[test]
    fn nothing_yet() {
        assert_eq!(detect(b"", b""), Detection::NeedMore);
        assert_eq!(detect(b"\x00", b""), Detection::NeedMore);
        assert_eq!(detect(b"\x00", b"\x00"), Detection::Unknown);
    }

    #[test]
    fn requests_in_either_direction() {
        for (bytes, version) in REQUESTS {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(detect(b"", bytes), known(HTTP1, *version, Direction::Transmit), "{shown}");
            assert_eq!(detect(bytes, b""), known(HTTP1, *version, Direction::Receive), "{shown}");
            let line = bytes[2..].iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            for end in 0..line.expect("a line") + 2 {
                assert_eq!(look(&bytes[..end]), Look::More, "{end} bytes of {shown}");
            }
        }
    }

    #[test]
    fn responses_tell_the_client_too() {
        for (bytes, version) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], Some("1.1")),
            (b"HTTP/1.0 404\r\n", Some("1.0")),
            (b"HTTP/1.1 101 \r\n", Some("1.1")),
        ] {
            assert_eq!(detect(bytes, b""), known(HTTP1, version, Direction::Transmit));
            assert_eq!(detect(b"\x00", bytes), known(HTTP1, version, Direction::Receive));
            for end in 0..13 {
                assert_eq!(look(&bytes[..end]), Look::More);
            }
        }
    }

    #[test]
    fn http2_preface() {
        let two = known(Protocol::Http2, Some("2"), Direction::Transmit);
        assert_eq!(detect(b"", PREFACE), two);
        for end in 0..PREFACE.len() {
            assert_eq!(look(&PREFACE[..end]), Look::More);
        }
        assert_eq!(look(b"PRI * HTTP/2.0\r\n\r\nXX"), Look::No);
    }

    #[test]
    fn everything_else_is_unknown() {
        for bytes in OTHERS {
            assert_eq!(look(bytes), Look::No, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_long_target_is_known_without_its_version() {
        let mut long = b"GET /".to_vec();
        long.resize(LOOK - 5, b'a');
        assert_eq!(look(&long), Look::More);
        long.resize(LOOK + 100, b'a');
        assert_eq!(look(&long), Look::Client(HTTP1, None));
        let mut long = b"CONNECT ".to_vec();
        long.resize(LOOK + 100, b'/');
        assert_eq!(look(&long), Look::No);
        for cut in LOOK - 20..LOOK + 2 {
            let mut line = b"GET /".to_vec();
            line.resize(cut, b'a');
            line.extend_from_slice(b" HTTP/1.1\r\n");
            line.resize(LOOK + 40, b'x');
            assert!(matches!(look(&line), Look::Client(..)), "target to {cut}");
        }
    }

    #[test]
    fn the_client_speaks_for_the_connection() {
        let hello = b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03";
        let answer = b"HTTP/1.0 400 Bad Request\r\n";
        assert_eq!(detect(answer, hello), known(Protocol::Tls, None, Direction::Transmit));
        assert_eq!(detect(hello, answer), known(Protocol::Tls, None, Direction::Receive));
        let server = b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c\x03\x03";
        assert_eq!(detect(server, b""), known(Protocol::Tls, None, Direction::Transmit));
        // A hello cut into records of four bytes and less still begins like one.
        assert_eq!(look(b"\x16\x03\x01\x00\x04\x01\x00\x02"), Look::Client(Protocol::Tls, None));
    }

    #[test]
    fn noise_is_never_trouble() {
        let mut noise = Noise::new(0x7461_7002);
        let mut bytes = Vec::new();
        for n in 0..200_000 {
            bytes.clear();
            bytes.push(noise.byte());
            match n % 3 {
                0 => bytes.extend_from_slice(REQUESTS[n / 3 % REQUESTS.len()].0),
                1 => bytes.extend_from_slice(OTHERS[n / 3 % OTHERS.len()]),
                _ => bytes.extend((0..noise.below(64)).map(|_| noise.byte())),
            }
            noise.stir(&mut bytes);
            fuzz_detect(&bytes);
        }
    }
}
