//! LDAP: a bind, search or extended request, or the result of one (RFC 4511 §4.1.1, §4.2, §4.5,
//! §4.12).
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[SEQUENCE..=SEQUENCE], look, confirm: never };

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const BIND: u8 = 0x60;
const SEARCH: u8 = 0x63;
const EXTENDED: u8 = 0x77;
/// OpenLDAP's `sockbuf_max_incoming_auth`.
const MESSAGE_MAX: u32 = 4 << 20;
/// So that what follows the name is within the look.
const NAME_MAX: u32 = 400;

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(&head[1..]);
    let message = fields.ber_length(12..=MESSAGE_MAX)?;
    fields.literal(&[INTEGER])?;
    let id = fields.byte(|length| matches!(length, 1..=4))?;
    fields.byte(|high| high < 0x80)?;
    fields.take(usize::from(id) - 1)?;
    let results = [0x61, 0x65, 0x78];
    let operation =
        fields.byte(|tag| matches!(tag, BIND | SEARCH | EXTENDED) || results.contains(&tag))?;
    fields.ber_length(7..=message - 4)?;
    let mut version = Some("3");
    match operation {
        BIND => {
            fields.literal(&[INTEGER, 1])?;
            version = Some(if fields.byte(|it| matches!(it, 2 | 3))? == 2 { "2" } else { "3" });
            fields.literal(&[OCTETS])?;
        }
        SEARCH => {
            fields.literal(&[OCTETS])?;
            let name = fields.ber_length(0..=NAME_MAX)?;
            fields.take(name as usize)?;
            // Scope and derefAliases.
            for _ in 0..2 {
                fields.literal(&[ENUMERATED, 1])?;
                fields.byte(|value| value <= 3)?;
            }
        }
        EXTENDED => {
            fields.literal(&[0x80])?;
            let name = fields.byte(|length| matches!(length, 3..=64))?;
            fields.all(usize::from(name), |byte| byte.is_ascii_digit() || byte == b'.')?;
        }
        _ => {
            fields.literal(&[ENUMERATED, 1])?;
            fields.byte(|code| code <= 123)?;
            fields.literal(&[OCTETS])?;
            return Ok(Said::server(Protocol::Ldap, None));
        }
    }
    Ok(Said::client(Protocol::Ldap, version))
}
