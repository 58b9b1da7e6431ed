//! Cassandra: STARTUP or OPTIONS, and what answers the latter (native protocol v3 §2, §4.1 to v5).
#![forbid(unsafe_code)]

use super::{Certainty, Protocol, Rule, Said, fields::*};

pub(super) const RULE: Rule = Rule { first: &[3..=5, 0x83..=0x85], look, confirm };

const ERROR: u8 = 0;
const STARTUP: u8 = 1;
const OPTIONS: u8 = 5;
const SUPPORTED: u8 = 6;
const BODY_MAX: u32 = 1 << 16;

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    let server = head.first().is_some_and(|version| version & 0x80 != 0);
    let (version, kind) = header(&mut fields)?;
    match kind {
        ERROR => return Err(Stop::No),
        // Nothing but numbers, most of them zero: wait for the answer.
        OPTIONS => {
            fields.literal(&[0; 4])?;
            return Ok(Said::client(Protocol::Cassandra, version).perhaps());
        }
        _ => {}
    }
    // A map whose first key is an option's name.
    fields.be(4, 22..=BODY_MAX)?;
    fields.be(2, 1..=64)?;
    let key = fields.be(2, 5..=48)?;
    fields.all(key as usize, |byte| byte.is_ascii_uppercase() || byte == b'_')?;
    Ok(if server {
        Said::server(Protocol::Cassandra, version)
    } else {
        Said::client(Protocol::Cassandra, version)
    })
}

/// A frame's header before its length: the version and the opcode of those that begin a
/// connection.
fn header(fields: &mut Fields<'_>) -> Step<(Option<&'static str>, u8)> {
    let version = fields.byte(|version| matches!(version & 0x7f, 3..=5))?;
    let server = version & 0x80 != 0;
    // A beta version; a server's warning.
    fields.byte(|flags| matches!(flags, 0 | 0x10) || (server && flags == 8))?;
    fields.be(2, 0..=0x7fff)?;
    let kind = fields.byte(|kind| match server {
        true => matches!(kind, ERROR | SUPPORTED),
        false => matches!(kind, STARTUP | OPTIONS),
    })?;
    let name = match version & 0x7f {
        3 => "3",
        4 => "4",
        _ => "5",
    };
    Ok((Some(name), kind))
}

fn confirm(_: &[u8], other: &[u8]) -> Step<Certainty> {
    let mut fields = Fields(other);
    fields.byte(|version| version & 0x80 != 0).map(|_| ())?;
    let mut fields = Fields(other);
    header(&mut fields)?;
    fields.be(4, 4..=BODY_MAX)?;
    Ok(Certainty::Sure)
}
