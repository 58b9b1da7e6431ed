//! TLS: a record that begins with a ClientHello or ServerHello (RFC 8446 §5.1, §4).
//!
//! 0x80 and above would begin an SSLv2-compatible hello (RFC 5246 appendix E.2): no TLS library of
//! this decade accepts one, and its fields are others.
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[HANDSHAKE..=HANDSHAKE], look, confirm: never };

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// TLSPlaintext.length is at most 2^14.
const RECORD_MAX: u32 = 1 << 14;

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    fields.literal(&[HANDSHAKE, 3])?;
    fields.byte(|minor| minor <= 4)?;
    let record = fields.be(2, 1..=RECORD_MAX)? as usize;
    let kind = fields.byte(|kind| matches!(kind, CLIENT_HELLO | SERVER_HELLO))?;
    // As far as this record holds them: the length, below 2^16, and legacy_version 3.x.
    let hello: [fn(u8) -> bool; 5] =
        [|high| high == 0, |_| true, |_| true, |major| major == 3, |minor| minor <= 4];
    for fine in hello.into_iter().take(record - 1) {
        fields.byte(fine)?;
    }
    Ok(if kind == CLIENT_HELLO {
        Said::client(Protocol::Tls, None)
    } else {
        Said::server(Protocol::Tls, None)
    })
}
