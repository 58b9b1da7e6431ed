//! POP3: a server's greeting that names it or has a timestamp for APOP, or any that a POP3 client
//! answers (RFC 1939 §4, §7).
#![forbid(unsafe_code)]

use super::{Certainty, Protocol, Rule, Said, fields::*};

pub(super) const RULE: Rule = Rule { first: &[b'+'..=b'+'], look, confirm };

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    fields.literal(b"+OK")?;
    let text = match fields.0.first() {
        Some(b' ') => fields.line()?,
        _ => fields.line_end().map(|()| &b""[..])?,
    };
    let said = Said::server(Protocol::Pop3, None);
    Ok(if mentions(text, "POP3") || has_timestamp(text) { said } else { said.perhaps() })
}

/// `<1896.697170952@dbc.mtview.ca.us>` at the end.
fn has_timestamp(text: &[u8]) -> bool {
    let Some(inner) = text.trim_ascii_end().strip_suffix(b">") else { return false };
    let begin = inner.iter().rposition(|byte| *byte == b'<');
    begin.is_some_and(|begin| {
        let id = &inner[begin + 1..];
        id.contains(&b'@') && !id.contains(&b' ')
    })
}

fn confirm(_: &[u8], other: &[u8]) -> Step<Certainty> {
    const WORDS: [&str; 6] = ["AUTH", "QUIT", "CAPA", "USER", "APOP", "STLS"];
    let mut command = Fields(other);
    let word = command.word(&WORDS)?;
    command.line()?;
    // Redis, whose `+OK` is the same, takes these two inline.
    Ok(if word < 2 { Certainty::Perhaps } else { Certainty::Sure })
}
