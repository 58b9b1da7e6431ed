//! IMAP: a server's greeting that names it, or any that an IMAP client answers (RFC 9051 §7.1).
#![forbid(unsafe_code)]

use super::{Certainty, Protocol, Rule, Said, fields::*};

pub(super) const RULE: Rule = Rule { first: &[b'*'..=b'*'], look, confirm };

const TAG_MAX: usize = 32;
#[rustfmt::skip]
const COMMANDS: [&str; 10] = [
    "CAPABILITY", "LOGIN", "AUTHENTICATE", "STARTTLS", "NOOP", "LOGOUT", "ID", "ENABLE", "SELECT",
    "NAMESPACE",
];

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    fields.literal(b"* ")?;
    fields.word(&["OK", "PREAUTH", "BYE"])?;
    fields.literal(b" ")?;
    let said = Said::server(Protocol::Imap, None);
    Ok(if mentions(fields.line()?, "IMAP") { said } else { said.perhaps() })
}

/// `a1 CAPABILITY`
fn confirm(_: &[u8], other: &[u8]) -> Step<Certainty> {
    let mut fields = Fields(other);
    for at in 0..=TAG_MAX {
        let tag =
            |byte: u8| at < TAG_MAX && (byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if fields.byte(|byte| tag(byte) || (at > 0 && byte == b' '))? == b' ' {
            break;
        }
    }
    fields.word(&COMMANDS)?;
    fields.line()?;
    Ok(Certainty::Sure)
}
