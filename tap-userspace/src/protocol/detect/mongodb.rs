//! MongoDB: the header of a message of the wire protocol and the first fields of its body
//! (mongodb.com, "MongoDB Wire Protocol").
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[0..=255], look, confirm: never };

/// `maxMessageSizeBytes`.
const MESSAGE_MAX: u32 = 48_000_000;
/// A header with an `OP_MSG` of one empty document.
const MESSAGE_MIN: u32 = 26;
/// Of an `OP_REPLY`, before its documents.
const REPLY_HEAD: u32 = 36;
const NAME_MAX: usize = 128;

const REPLY: &[u8] = &1_u32.to_le_bytes();
const QUERY: &[u8] = &2004_u32.to_le_bytes();
const COMPRESSED: &[u8] = &2012_u32.to_le_bytes();
const MSG: &[u8] = &2013_u32.to_le_bytes();

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    let length = fields.le(4, MESSAGE_MIN..=MESSAGE_MAX)?;
    fields.take(4)?;
    let request = fields.take(4)? == [0; 4];
    let kinds: &[&[u8]] = match (request, length > REPLY_HEAD + 5) {
        (true, _) => &[QUERY, COMPRESSED, MSG],
        (false, true) => &[REPLY, COMPRESSED, MSG],
        (false, false) => &[COMPRESSED, MSG],
    };
    match kinds[fields.one_of(kinds)?] {
        REPLY => {
            fields.le(4, 0..=15)?;
            // The cursor; its position, and how many documents.
            fields.take(8)?;
            fields.literal(&[0; 4])?;
            fields.le(4, 1..=1 << 16)?;
            fields.le(4, 5..=length - REPLY_HEAD)?;
        }
        QUERY => {
            fields.le(4, 0..=255)?;
            namespace(&mut fields)?;
        }
        COMPRESSED => {
            fields.one_of(&[REPLY, QUERY, MSG])?;
            fields.le(4, 0..=MESSAGE_MAX)?;
            fields.byte(|compressor| compressor <= 3)?;
        }
        _ => message(&mut fields, length)?,
    }
    Ok(if request {
        Said::client(Protocol::Mongodb, None)
    } else {
        Said::server(Protocol::Mongodb, None)
    })
}

/// `OP_MSG`: flags and the head of the first section.
fn message(fields: &mut Fields<'_>, length: u32) -> Step<()> {
    fields.byte(|flags| flags & !3 == 0)?;
    fields.literal(&[0])?;
    fields.byte(|flags| flags & !1 == 0)?;
    fields.literal(&[0])?;
    fields.byte(|kind| kind <= 1)?;
    fields.le(4, 5..=length - 21)?;
    Ok(())
}

/// `admin.$cmd`
fn namespace(fields: &mut Fields<'_>) -> Step<()> {
    let mut dot = false;
    for at in 0..=NAME_MAX {
        let fine = |byte: u8| match byte {
            0 => dot,
            b'.' => at > 0,
            _ => byte > b' ' && byte != 0x7f && (dot || at < NAME_MAX - 2),
        };
        match fields.byte(|byte| (at < NAME_MAX || byte == 0) && fine(byte))? {
            0 => return Ok(()),
            byte => dot |= byte == b'.',
        }
    }
    Err(Stop::No)
}
