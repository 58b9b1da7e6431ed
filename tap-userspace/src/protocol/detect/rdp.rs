//! RDP: X.224's connection request or confirm in a TPKT ([MS-RDPBCGR] §2.2.1.1, §2.2.1.2).
#![forbid(unsafe_code)]

use super::{Certainty, Protocol, Rule, Said, fields::*};

pub(super) const RULE: Rule = Rule { first: &[3..=3], look, confirm };

const REQUEST: u8 = 0xe0;
const CONFIRM: u8 = 0xd0;
/// TPKT and X.224 heads, with nothing after them.
const BARE: u32 = 11;
const NEGOTIATION: u32 = BARE + 8;
/// The user's name or a load balancer's token.
const TOKEN: &[u8] = b"Cookie: mst";
const COOKIE: u32 = BARE + TOKEN.len() as u32;

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    fields.literal(&[3, 0])?;
    let length = fields.be(2, BARE..=259)?;
    if !matches!(length, BARE | NEGOTIATION | COOKIE..) {
        return Err(Stop::No);
    }
    fields.byte(|indicator| u32::from(indicator) == length - 5)?;
    let confirms = length == NEGOTIATION;
    let kind = fields.byte(|kind| kind == REQUEST || (kind == CONFIRM && confirms))?;
    fields.literal(&[0, 0])?;
    fields.take(2)?;
    // The class.
    fields.literal(&[0])?;
    if kind == CONFIRM {
        // RDP_NEG_RSP or RDP_NEG_FAILURE.
        fields.one_of(&[&[2], &[3]])?;
        fields.take(1)?;
        fields.literal(&[8, 0])?;
        return Ok(Said::server(Protocol::Rdp, None));
    }
    let client = Said::client(Protocol::Rdp, None);
    match length {
        // Other protocols use class 0 of X.224 like this.
        BARE => return Ok(client.perhaps()),
        NEGOTIATION => {
            // RDP_NEG_REQ.
            fields.literal(&[1])?;
            fields.byte(|flags| flags & !0x0b == 0)?;
            fields.literal(&[8, 0])?;
            fields.le(4, 0..=0x1f)?;
        }
        _ => fields.literal(TOKEN)?,
    }
    Ok(client)
}

fn confirm(_: &[u8], other: &[u8]) -> Step<Certainty> {
    Fields(other).literal(&[3, 0, 0, BARE as u8, 6, CONFIRM, 0, 0])?;
    Ok(Certainty::Perhaps)
}
