//! Redis: a command as an array of bulk strings, a push that begins a subscriber's stream, or the
//! inline `PING` and `INFO` of health checks (redis.io, "Redis serialization protocol
//! specification").
#![forbid(unsafe_code)]

use super::{Certainty, Protocol, Rule, Said, fields::*};

pub(super) const RULE: Rule = Rule {
    first: &[b'*'..=b'*', b'>'..=b'>', b'P'..=b'P', b'p'..=b'p', b'I'..=b'I', b'i'..=b'i'],
    look,
    confirm,
};

/// `multibulk` length that the server takes (`processMultibulkBuffer`).
const ARGUMENTS_MAX: u64 = 1 << 20;
/// The longest command of a module is far below it.
const NAME_MAX: u64 = 64;
/// RESP2 pushes look like commands.
const PUSHES: [&[u8]; 3] = [b"message", b"pmessage", b"smessage"];
const INLINE: [&str; 2] = ["PING", "INFO"];

fn look(head: &[u8]) -> Step<Said> {
    match head.first() {
        Some(b'*' | b'>') => strings(head),
        _ => inline(head).map(|_| Said::client(Protocol::Redis, None).perhaps()),
    }
}

/// `*2\r\n$3\r\nGET\r\n…`
fn strings(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    let kind = fields.byte(|_| true)?;
    fields.decimal(1..=ARGUMENTS_MAX)?;
    fields.literal(b"\r\n$")?;
    let length = fields.decimal(1..=NAME_MAX)?;
    fields.literal(b"\r\n")?;
    let mut rest = fields;
    fields.byte(|byte| byte.is_ascii_alphabetic())?;
    let more = length as usize - 1;
    fields.all(more, |byte| byte.is_ascii_alphanumeric() || b"._-|".contains(&byte))?;
    let name = rest.take(length as usize)?;
    fields.literal(b"\r\n")?;
    Ok(if kind == b'>' || PUSHES.contains(&name) {
        Said::server(Protocol::Redis, None)
    } else {
        Said::client(Protocol::Redis, None)
    })
}

/// `PING`, `INFO` or `INFO section`, as the place in [`INLINE`].
fn inline(head: &[u8]) -> Step<usize> {
    let mut fields = Fields(head);
    let word = fields.word(&INLINE)?;
    if INLINE[word] == "INFO" && fields.0.starts_with(b" ") {
        let end = fields.0[1..].iter().position(|byte| !byte.is_ascii_lowercase());
        fields.take(1 + end.ok_or(Stop::More)?)?;
    }
    fields.line_end()?;
    Ok(word)
}

fn confirm(head: &[u8], other: &[u8]) -> Step<Certainty> {
    let mut answer = Fields(other);
    if answer.byte(|byte| b"+-$".contains(&byte))? == b'-' {
        answer.one_of(&[b"ERR ", b"NOAUTH ", b"LOADING ", b"MISCONF ", b"DENIED ", b"NOPERM "])?;
    } else if INLINE[inline(head)?] == "PING" {
        Fields(other).literal(b"+PONG\r\n")?;
    } else {
        // Each section begins with its name as a comment.
        let mut answer = Fields(other);
        answer.literal(b"$")?;
        answer.decimal(1..=1 << 20)?;
        answer.literal(b"\r\n# ")?;
    }
    Ok(Certainty::Sure)
}
