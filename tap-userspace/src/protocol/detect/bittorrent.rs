//! BitTorrent: the peers' handshake, which is the same from both ends (BEP 3).
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[19..=19], look, confirm: never };

fn look(head: &[u8]) -> Step<Said> {
    Fields(head).literal(b"\x13BitTorrent protocol")?;
    Ok(Said::either(Protocol::Bittorrent, None))
}
