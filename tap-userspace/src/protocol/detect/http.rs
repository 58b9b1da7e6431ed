//! HTTP/1 and HTTP/2 (RFC 9112 §3 and §4, RFC 9113 §3.4).
//!
//! Binary garbage must not become HTTP, nor one of the many line protocols that look like it
//! (RTSP, SIP): a request counts when its whole first line is one, or, where the line is longer
//! than the look, when method and target are.
#![forbid(unsafe_code)]

use super::{LOOK, Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule =
    Rule { first: &[b'A'..=b'Z', b'\r'..=b'\r', b'\n'..=b'\n'], look, confirm: never };

/// A server's first frames, for a connection whose preface was lost.
pub(super) const SETTINGS_RULE: Rule = Rule { first: &[0..=0], look: settings, confirm: never };

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length of `UPDATEREDIRECTREF`.
const METHOD_MAX: usize = 17;
/// The longest registered scheme that a proxy sees is far below it.
const SCHEME_MAX: usize = 16;

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

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    match fields.literal(PREFACE) {
        Err(Stop::No) => {}
        preface => return preface.map(|()| Said::client(Protocol::Http2, Some("2"))),
    }
    // A server should skip an empty line or two before a request (RFC 9112 §2.2).
    let blank = head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if blank > 4 {
        return Err(Stop::No);
    }
    let head = &head[blank..];
    match head.first() {
        None => Err(Stop::More),
        Some(b'H') if !head.starts_with(b"HE") && head.len() > 1 => response(head),
        Some(_) => request(head),
    }
}

/// `HTTP/1.1 200 …`; the reason, and even the space before it, may be missing.
fn response(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    fields.literal(b"HTTP/1.")?;
    let minor = fields.byte(|byte| byte.is_ascii_digit())?;
    fields.literal(b" ")?;
    fields.byte(|byte| matches!(byte, b'1'..=b'9'))?;
    fields.all(2, |byte| byte.is_ascii_digit())?;
    fields.byte(|byte| matches!(byte, b' ' | b'\r' | b'\n'))?;
    Ok(Said::server(Protocol::Http1, version(minor)))
}

/// `GET /path HTTP/1.1`.
fn request(head: &[u8]) -> Step<Said> {
    // Whether the line goes beyond the look.
    let cut = head.len() + 4 >= LOOK;
    let Some(space) = head.iter().take(METHOD_MAX + 1).position(|byte| *byte == b' ') else {
        let begun = METHODS.iter().any(|method| method.starts_with(head));
        return Err(if begun { Stop::More } else { Stop::No });
    };
    let (method, target) = (&head[..space], &head[space + 1..]);
    if !METHODS.contains(&method) {
        return Err(Stop::No);
    }
    let end = target.iter().position(|byte| *byte <= b' ' || *byte == 0x7f);
    let sane = sane_target(method, &target[..end.unwrap_or(target.len())]);
    let line_end = match (end, sane) {
        (Some(end), Ok(())) => line_end(&target[end..], cut),
        (Some(_), Err(_)) => Err(Stop::No),
        (None, sane) => sane.and(Err(Stop::More)),
    };
    match line_end {
        // What is there of the line, and its end is beyond the look.
        Err(Stop::More) if cut && sane == Ok(()) => Ok(Said::client(Protocol::Http1, None)),
        line_end => line_end.map(|minor| Said::client(Protocol::Http1, version(minor))),
    }
}

/// ` HTTP/1.1` and the line's end, → the minor version.
fn line_end(rest: &[u8], cut: bool) -> Step<u8> {
    let mut fields = Fields(rest);
    fields.literal(b" HTTP/1.")?;
    let minor = fields.byte(|byte| byte.is_ascii_digit())?;
    match fields.byte(|byte| matches!(byte, b'\r' | b'\n')) {
        Err(Stop::More) if cut => Ok(minor),
        end => end.map(|_| minor),
    }
}

/// Whether `target`, or what there is of it, is one of RFC 9112 §3.2's forms.
fn sane_target(method: &[u8], target: &[u8]) -> Step<()> {
    let mut fields = Fields(target);
    if method == b"CONNECT" {
        let host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte);
        fields.byte(host)?;
        return fields.all(fields.0.len(), host).map(|_| ());
    }
    match fields.byte(|byte| matches!(byte, b'/' | b'*') || byte.is_ascii_alphabetic())? {
        b'/' => Ok(()),
        b'*' if fields.0.is_empty() => Ok(()),
        b'*' => Err(Stop::No),
        _ => {
            let rest = fields.0;
            let scheme = rest
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
                .count();
            if scheme >= SCHEME_MAX {
                return Err(Stop::No);
            }
            Fields(&rest[scheme..]).literal(b"://")
        }
    }
}

const fn version(minor: u8) -> Option<&'static str> {
    match minor {
        b'0' => Some("1.0"),
        b'1' => Some("1.1"),
        _ => None,
    }
}

/// A SETTINGS frame of stream 0 whose first identifier is registered or reserved as grease. One
/// without settings is nothing but zeros and a four: another of a server's first frames must
/// follow.
fn settings(head: &[u8]) -> Step<Said> {
    /// Most settings of a frame; servers send fewer than ten.
    const SETTINGS_MAX: u8 = 32;
    let mut fields = Fields(head);
    fields.literal(&[0, 0])?;
    let length = fields.byte(|length| length % 6 == 0 && length <= 6 * SETTINGS_MAX)?;
    fields.literal(&[4, 0, 0, 0, 0, 0])?;
    if length == 0 {
        fields.one_of(&[
            // SETTINGS with the acknowledgement, WINDOW_UPDATE, PING.
            &[0, 0, 0, 4, 1, 0, 0, 0, 0],
            &[0, 0, 4, 8, 0, 0, 0, 0, 0],
            &[0, 0, 8, 6, 0, 0, 0, 0, 0],
        ])?;
    } else {
        let high = fields.byte(|high| high & 15 == 10 || high == 0)?;
        let known = |low: u8| matches!(low, 1..=6 | 8 | 9 | 16);
        fields.byte(|low| if high == 0 { known(low) } else { low & 15 == 10 })?;
    }
    Ok(Said::server(Protocol::Http2, Some("2")))
}
