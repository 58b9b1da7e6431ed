//! PostgreSQL: a startup packet, or a server's first message (PostgreSQL's manual, "Message
//! Formats").
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule =
    Rule { first: &[0..=0, b'R'..=b'R', b'E'..=b'E'], look, confirm: never };

/// `MAX_STARTUP_PACKET_LENGTH`.
const STARTUP_MAX: u32 = 10_000;
/// Length and version, `user` with an empty value, and the end.
const STARTUP_MIN: u32 = 15;
/// A cancel request with the longest key that protocol 3.2 allows.
const CANCEL_MAX: u32 = 12 + 256;
/// `user` is the shortest name that there is.
const NAME_MIN: usize = 4;
const NAME_MAX: usize = 63;

const V3_0: &[u8] = &[0, 3, 0, 0];
const V3_2: &[u8] = &[0, 3, 0, 2];
const CANCEL: &[u8] = &[4, 210, 22, 46];
const SSL: &[u8] = &[4, 210, 22, 47];
const GSS: &[u8] = &[4, 210, 22, 48];

fn look(head: &[u8]) -> Step<Said> {
    match head.first() {
        Some(b'R') => authentication(head),
        Some(b'E') => error(head),
        _ => startup(head),
    }
}

fn startup(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    let length = fields.be(4, 8..=STARTUP_MAX)?;
    let choices: &[&[u8]] = match length {
        8 => &[SSL, GSS],
        16..=CANCEL_MAX => &[V3_0, V3_2, CANCEL],
        STARTUP_MIN.. => &[V3_0, V3_2],
        _ => return Err(Stop::No),
    };
    let version = match choices[fields.one_of(choices)?] {
        V3_0 => "3.0",
        V3_2 => "3.2",
        _ => return Ok(Said::client(Protocol::Postgresql, None)),
    };
    // The first parameter's name. A Kafka request (Metadata, version 0) begins like this, too, but
    // with a number here.
    let name_max = NAME_MAX.min((length - STARTUP_MIN) as usize + NAME_MIN);
    for at in 0..=name_max {
        let ends = at == name_max;
        let fine = |byte: u8| match byte {
            0 => at >= NAME_MIN,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => !ends,
            b'0'..=b'9' | b'.' => at > 0 && !ends,
            _ => false,
        };
        if fields.byte(fine)? == 0 {
            break;
        }
    }
    Ok(Said::client(Protocol::Postgresql, Some(version)))
}

/// `AuthenticationOk` and its kind.
fn authentication(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(&head[1..]);
    let length = fields.be(4, 8..=2048)?;
    let kinds = match length {
        8 => 0..=9,
        12 => 5..=12,
        _ => 8..=12,
    };
    fields.be(4, kinds)?;
    Ok(Said::server(Protocol::Postgresql, None))
}

/// `ErrorResponse`: the severity in the server's language, then the same in English.
fn error(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(&head[1..]);
    fields.be(4, 16..=30_000)?;
    fields.literal(b"S")?;
    for at in 0..=32 {
        if fields.byte(|byte| if byte == 0 { at > 0 } else { at < 32 && is_text(byte) })? == 0 {
            break;
        }
    }
    if fields.byte(|kind| matches!(kind, b'V' | b'C'))? == b'V' {
        fields.one_of(&[b"ERROR\0", b"FATAL\0", b"PANIC\0"])?;
    } else {
        // SQLSTATE, before version 9.6.
        fields.all(5, |byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())?;
        fields.literal(b"\0")?;
    }
    Ok(Said::server(Protocol::Postgresql, None))
}
