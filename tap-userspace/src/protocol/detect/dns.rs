//! DNS over TCP: a message's length, its header and its one question (RFC 1035 §4.2.2, §4.1).
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[0..=0x1f], look, confirm: never };

/// The root's question.
const MESSAGE_MIN: u32 = HEADER + 5;
/// More than any first message but a zone's transfer, and less than what text looks like.
const MESSAGE_MAX: u32 = 0x1fff;
const HEADER: u32 = 12;
const NAME_MAX: u32 = 255;

const QUERY: u8 = 0;
const NOTIFY: u8 = 4;
const UPDATE: u8 = 5;

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    let length = fields.be(2, MESSAGE_MIN..=MESSAGE_MAX)?;
    fields.take(2)?;
    let operation = |flags: u8| (flags >> 3) & 15;
    let flags = fields.byte(|flags| {
        let query = flags & 0x80 == 0;
        // A query is never truncated.
        matches!(operation(flags), QUERY | NOTIFY | UPDATE) && !(query && flags & 2 != 0)
    })?;
    let (query, plain) = (flags & 0x80 == 0, operation(flags) == QUERY);
    // RA and RCODE are the answer's; the bit after RA is zero.
    fields.byte(|flags| flags & 0x40 == 0 && !(query && flags & 0x8f != 0))?;
    fields.be(2, 1..=1)?;
    let (answers, authorities) = match (query, plain) {
        (true, true) => (0, 1),
        (true, false) => (255, 255),
        (false, _) => (4096, 4096),
    };
    fields.be(2, 0..=answers)?;
    fields.be(2, 0..=authorities)?;
    fields.be(2, 0..=if query { 3 } else { 255 })?;
    // The name, then type and class, all within the message.
    let mut name = 1;
    loop {
        let fits = |label: u8| {
            let long = name + u32::from(label) + 1;
            label == 0 || (label < 64 && long <= NAME_MAX && HEADER + long + 4 <= length)
        };
        let label = fields.byte(fits)?;
        if label == 0 {
            break;
        }
        fields.all(usize::from(label), |byte| matches!(byte, b'!'..=b'~'))?;
        name += u32::from(label) + 1;
    }
    fields.be(2, 1..=0x8001)?;
    fields.one_of(&[&[0, 1], &[0, 3], &[0, 4], &[0, 254], &[0, 255]])?;
    Ok(if query { Said::client(Protocol::Dns, None) } else { Said::server(Protocol::Dns, None) })
}
