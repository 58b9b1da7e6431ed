//! SMB: a message of version 1 or 2 in a session packet, or a NetBIOS session request ([MS-SMB]
//! §2.1, [MS-SMB2] §2.1 and §2.2.1, RFC 1002 §4.3.2).
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule =
    Rule { first: &[0..=0, SESSION_REQUEST..=SESSION_REQUEST], look, confirm: never };

const SESSION_REQUEST: u8 = 0x81;

fn look(head: &[u8]) -> Step<Said> {
    if head.first() == Some(&SESSION_REQUEST) {
        return session_request(head);
    }
    let mut fields = Fields(head);
    fields.be(4, 35..=0x00ff_ffff)?;
    let reply = if fields.one_of(&[b"\xffSMB", b"\xfeSMB"])? == 0 {
        // Command and status.
        fields.take(5)?;
        fields.byte(|_| true)? & 0x80 != 0
    } else {
        // The header's size; credit charge, status, command (0 to 0x12) and credits.
        fields.literal(&[64, 0])?;
        fields.take(6)?;
        fields.le(2, 0..=0x12)?;
        fields.take(2)?;
        fields.byte(|_| true)? & 1 != 0
    };
    Ok(if reply { Said::server(Protocol::Smb, None) } else { Said::client(Protocol::Smb, None) })
}

/// Names of both ends, of 32 letters each, without a scope.
fn session_request(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    fields.literal(&[SESSION_REQUEST, 0, 0, 68])?;
    for _ in 0..2 {
        fields.literal(&[32])?;
        fields.all(32, |byte| matches!(byte, b'A'..=b'P'))?;
        fields.literal(&[0])?;
    }
    Ok(Said::client(Protocol::Smb, None))
}
