//! SSH: the identification string, which both ends send (RFC 4253 §4.2).
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[b'S'..=b'S'], look, confirm: never };

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    fields.literal(b"SSH-")?;
    // 1.99 is 2.0 from one that would speak 1.x too (§5.1).
    let version = ["2.0", "2.0", "1.5"][fields.one_of(&[b"2.0-", b"1.99-", b"1.5-"])?];
    fields.byte(|byte| matches!(byte, b'!'..=b'~'))?;
    Ok(Said::either(Protocol::Ssh, Some(version)))
}
