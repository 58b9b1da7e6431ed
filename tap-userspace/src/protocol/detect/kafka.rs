//! Kafka: a request's header (kafka.apache.org, "Protocol", Request Header v1 and v2). Responses
//! have nothing to know them by.
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[0..=6], look, confirm: never };

/// `socket.request.max.bytes`.
const REQUEST_MAX: u32 = 100 << 20;
/// Bytes of the header before the client's name.
const HEADER: u32 = 10;
const NAME_MAX: u32 = 249;
/// Of requests other than the opening one; shorter names are too much like numbers.
const NAME_MIN: u32 = 3;
const API_VERSIONS: usize = 18;

/// The newest version of each request, by its key, as of Kafka 4.1.
#[rustfmt::skip]
const NEWEST: [u8; 93] = [
    13, 18, 11, 13, 7, 4, 8, 3, 10, 10, 6, 9, 4, 5, 5, 6, 5, 1, 4, 7,
    6, 2, 6, 4, 5, 4, 5, 2, 5, 3, 3, 3, 4, 2, 2, 5, 2, 3, 3, 2,
    2, 3, 2, 2, 1, 1, 0, 0, 1, 1, 0, 0, 2, 1, 1, 2, 3, 2, 0, 1,
    2, 0, 4, 1, 0, 0, 2, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 2, 1,
    1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
];

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    let length = fields.be(4, HEADER..=REQUEST_MAX)?;
    let key = fields.be(2, 0..=NEWEST.len() as u32 - 1)? as usize;
    let version = fields.be(2, 0..=u32::from(NEWEST[key]))?;
    // The correlation id is positive.
    fields.be(4, 0..=0x7fff_ffff)?;
    // A request without a name is no more than zeros in many protocols, ZooKeeper's among them;
    // only the one that opens a connection may lack it, if the rest of it is right.
    let rest = length - HEADER;
    let bare = key == API_VERSIONS && if version < 3 { rest == 0 } else { rest >= 4 };
    if bare && fields.0.first() == Some(&0xff) {
        fields.literal(&[0xff, 0xff])?;
    } else {
        let least = match key {
            API_VERSIONS => u32::from(!bare),
            _ => NAME_MIN,
        };
        let name = fields.be(2, least..=NAME_MAX.min(rest))?;
        if name > 0 {
            fields.byte(|byte| byte.is_ascii_alphanumeric() || byte == b'_')?;
            fields.all(name as usize - 1, |byte| matches!(byte, b' '..=b'~'))?;
            return Ok(Said::client(Protocol::Kafka, None));
        }
    }
    if version >= 3 {
        // No tags; the client software's name, one added to its length.
        fields.literal(&[0])?;
        let name = fields.be(1, 3..=64.min(rest))? as usize - 1;
        fields.all(name, |byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))?;
    }
    Ok(Said::client(Protocol::Kafka, None))
}
