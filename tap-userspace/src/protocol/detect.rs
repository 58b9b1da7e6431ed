//! One bounded look at the heads of both directions: which protocol, and who speaks as its client.

use super::Protocol;

/// What the look told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// A protocol that tap knows.
    Known {
        /// The protocol.
        protocol: Protocol,
        /// The direction, as in the records, in which the client speaks.
        client: Option<usize>,
    },
    /// Too little to tell.
    NeedMore,
    /// None that tap knows.
    Unknown,
}

/// A first word of this many bytes is no method any more.
const METHOD_MAX: usize = 16;

/// HTTP/1 methods that begin a connection: RFC 9110 §9, RFC 5789, RFC 4918 and its kin.
const METHODS: [&[u8]; 22] = [
    b"GET",
    b"POST",
    b"PUT",
    b"HEAD",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"SEARCH",
    b"REPORT",
    b"MKCALENDAR",
    b"QUERY",
    b"NOTIFY",
    b"SUBSCRIBE",
];

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks at the heads of both directions, by the index of the records.
pub fn detect(receive: &[u8], transmit: &[u8]) -> Detection {
    let looks = [look(receive), look(transmit)];
    for (way, look) in looks.iter().enumerate() {
        if let Look::Is(protocol, from_client) = look {
            let client = if *from_client { way } else { 1 - way };
            return Detection::Known { protocol: *protocol, client: Some(client) };
        }
    }
    if looks.iter().any(|look| matches!(look, Look::NeedMore)) {
        Detection::NeedMore
    } else {
        Detection::Unknown
    }
}

/// One direction's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// This protocol; whether its client speaks here.
    Is(Protocol, bool),
    NeedMore,
    Unknown,
}

fn look(head: &[u8]) -> Look {
    if head.is_empty() {
        return Look::NeedMore;
    }
    [tls, http2, http1_response, http1_request]
        .iter()
        .map(|look| look(head))
        .find(|look| *look != Look::Unknown)
        .unwrap_or(Look::Unknown)
}

/// A handshake record (RFC 8446 §5.1) that begins with a ClientHello or ServerHello, or an alert
/// that answers one. A hello in SSLv2's form is none.
fn tls(head: &[u8]) -> Look {
    match *head {
        [22, 3, 0..=4, _, _, 1, ..] => Look::Is(Protocol::Tls, true),
        [22, 3, 0..=4, _, _, 2, ..] => Look::Is(Protocol::Tls, false),
        [22] | [22, 3] | [22, 3, 0..=4] | [22, 3, 0..=4, _] | [22, 3, 0..=4, _, _] => {
            Look::NeedMore
        }
        _ => Look::Unknown,
    }
}

fn http2(head: &[u8]) -> Look {
    prefix(head, PREFACE, Look::Is(Protocol::Http2, true))
}

fn http1_response(head: &[u8]) -> Look {
    match head {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', digits @ ..] => {
            if digits.iter().take(3).all(u8::is_ascii_digit) {
                if digits.len() < 3 { Look::NeedMore } else { Look::Is(Protocol::Http1, false) }
            } else {
                Look::Unknown
            }
        }
        _ if head.len() < 9 => prefix(head, b"HTTP/1.1 ", Look::NeedMore),
        _ => Look::Unknown,
    }
}

/// A known method, one space, and a target that begins like one (RFC 9112 §3.2).
fn http1_request(head: &[u8]) -> Look {
    let Some(space) = head.iter().take(METHOD_MAX).position(|&byte| byte == b' ') else {
        let begins = METHODS.iter().any(|method| method.starts_with(head));
        return if begins { Look::NeedMore } else { Look::Unknown };
    };
    if !METHODS.contains(&&head[..space]) {
        return Look::Unknown;
    }
    match head.get(space + 1) {
        None => Look::NeedMore,
        Some(byte) if byte.is_ascii_alphanumeric() || b"/*[".contains(byte) => {
            Look::Is(Protocol::Http1, true)
        }
        Some(_) => Look::Unknown,
    }
}

/// `whole` if the head begins with `wanted`, more if it may yet.
fn prefix(head: &[u8], wanted: &[u8], whole: Look) -> Look {
    if head.starts_with(wanted) {
        whole
    } else if wanted.starts_with(head) {
        Look::NeedMore
    } else {
        Look::Unknown
    }
}

#[doc(hidden)]
pub fn fuzz_detect(bytes: &[u8]) {
    let middle = bytes.len() / 2;
    let _ = detect(&bytes[..middle], &bytes[middle..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Detection = Detection::Known { protocol: Protocol::Http1, client: Some(1) };

    #[test]
    fn requests_and_responses() {
        for request in
            ["GET / HTTP/1.1\r\n", "POST http://x/ HTTP/1.0", "PROPFIND /a", "CONNECT h:1"]
        {
            assert_eq!(detect(b"", request.as_bytes()), CLIENT, "{request}");
        }
        assert_eq!(detect(b"HTTP/1.1 200 OK\r\n", b""), CLIENT);
        assert_eq!(detect(b"HTTP/1.0 404", b"??"), CLIENT);
    }

    #[test]
    fn every_prefix_needs_more() {
        for whole in [&b"GET /"[..], b"HTTP/1.1 200", PREFACE, &[22, 3, 1, 0, 5, 1]] {
            for len in 0..whole.len() {
                assert_eq!(detect(&whole[..len], b""), Detection::NeedMore, "{whole:?} {len}");
            }
            assert!(matches!(detect(whole, b""), Detection::Known { .. }));
        }
    }

    #[test]
    fn garbage_is_unknown() {
        for garbage in [
            &b"\x00\x01"[..],
            b"GETX /",
            b"GET \x00",
            b"SSH-2.0-x",
            b"\x80\x2e\x01\x00\x02",
            b"HTTP/1.1 2x0",
            b"\x16\x03\x09\x00\x00\x01",
            b"get / http",
        ] {
            assert_eq!(detect(garbage, b"\x00"), Detection::Unknown, "{garbage:?}");
        }
    }

    #[test]
    fn roles_follow_the_hello() {
        let (client, server) = ([22, 3, 1, 0, 5, 1], [22, 3, 3, 0, 5, 2]);
        let told = |client| Detection::Known { protocol: Protocol::Tls, client: Some(client) };
        assert_eq!(detect(&client, b""), told(0));
        assert_eq!(detect(&server, b""), told(1));
    }
}
