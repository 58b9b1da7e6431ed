//! MySQL and MariaDB: the server's greeting of protocol 10 or its refusal, or the client's answer
//! (MySQL internals manual, "Protocol::HandshakeV10", "HandshakeResponse41").
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[0..=255], look, confirm: never };

/// The shortest answer, which asks for TLS.
const SSL_REQUEST: u32 = 32;
/// A greeting or a refusal, so that it is within the look.
const GREETING_MAX: u32 = 480;
const VERSION_MAX: usize = 64;

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    let length = fields.le(3, 12..=2048)?;
    let sequence = fields.byte(|sequence| match sequence {
        0 => length <= GREETING_MAX,
        1 => length >= SSL_REQUEST,
        _ => false,
    })?;
    if sequence == 0 { greeting(fields, length) } else { response(fields, length) }
}

fn greeting(mut fields: Fields<'_>, length: u32) -> Step<Said> {
    let kind = fields.byte(|kind| match kind {
        10 => length >= 32,
        kind => kind == 0xff,
    })?;
    if kind == 0xff {
        // "Host … is not allowed", "Too many connections" and the like.
        fields.le(2, 1000..=4999)?;
        fields.all(length as usize - 3, is_text)?;
        return Ok(Said::server(Protocol::Mysql, None));
    }
    // `8.0.36`, `5.5.5-10.11.6-MariaDB`.
    fields.byte(|byte| matches!(byte, b'1'..=b'9'))?;
    if fields.byte(|byte| byte.is_ascii_digit() || byte == b'.')? != b'.' {
        fields.literal(b".")?;
    }
    fields.byte(|byte| byte.is_ascii_digit())?;
    for at in 0..=VERSION_MAX {
        if fields.byte(|byte| byte == 0 || (at < VERSION_MAX && is_text(byte)))? == 0 {
            break;
        }
    }
    // Thread and salt, then a filler.
    fields.take(12)?;
    fields.literal(&[0])?;
    Ok(Said::server(Protocol::Mysql, None))
}

/// The client's answer, for a connection whose greeting was lost.
fn response(mut fields: Fields<'_>, length: u32) -> Step<Said> {
    /// Second byte of the capabilities.
    const PROTOCOL_41: u8 = 0x02;
    const SSL: u8 = 0x08;
    let wanted = PROTOCOL_41 | if length == SSL_REQUEST { SSL } else { 0 };
    fields.take(1)?;
    fields.byte(|capabilities| capabilities & wanted == wanted)?;
    // The rest of them, the longest packet and the character set.
    fields.take(7)?;
    // MariaDB uses the last 4 of the 23 reserved bytes.
    fields.all(19, |byte| byte == 0)?;
    Ok(Said::client(Protocol::Mysql, None))
}
