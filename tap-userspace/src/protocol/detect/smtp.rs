//! SMTP: `EHLO` or `HELO`, or a greeting that names it (RFC 5321 §4.2, §4.3.1). Other greetings
//! with 220, which FTP's servers send too, wait for the client's first command.
#![forbid(unsafe_code)]

use super::{Certainty, Protocol, Rule, Said, fields::*};

pub(super) const RULE: Rule = Rule {
    first: &[b'2'..=b'2', b'E'..=b'E', b'e'..=b'e', b'H'..=b'H', b'h'..=b'h'],
    look,
    confirm,
};

fn look(head: &[u8]) -> Step<Said> {
    if head.first() != Some(&b'2') {
        hello(head)?;
        return Ok(Said::client(Protocol::Smtp, None));
    }
    let server = Said::server(Protocol::Smtp, None);
    match greeting(head)? {
        Greeting::Smtp => Ok(server),
        Greeting::Ftp => Err(Stop::No),
        Greeting::Open => Ok(server.perhaps()),
    }
}

/// `EHLO example.org`
fn hello(head: &[u8]) -> Step<()> {
    let mut fields = Fields(head);
    fields.word(&["EHLO", "HELO"])?;
    fields.literal(b" ")?;
    fields.byte(|byte| matches!(byte, b'!'..=b'~'))?;
    Ok(())
}

fn confirm(_: &[u8], other: &[u8]) -> Step<Certainty> {
    // A hello has said all by itself, but not that it came after a greeting.
    let mut command = Fields(other);
    const WORDS: [&str; 6] = ["EHLO", "HELO", "QUIT", "NOOP", "HELP", "RSET"];
    let word = command.word(&WORDS)?;
    command.line()?;
    Ok(if word < 2 { Certainty::Sure } else { Certainty::Perhaps })
}

/// What the first line of a greeting with 220 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// It names SMTP.
    Smtp,
    /// It names FTP.
    Ftp,
    /// It could be either.
    Open,
}

/// Reads the first line of a reply with 220.
pub(super) fn greeting(head: &[u8]) -> Step<Greeting> {
    let mut fields = Fields(head);
    fields.one_of(&[b"220 ", b"220-"])?;
    let line = fields.line()?;
    // Not in a host's name, which either may begin with.
    let words = || line.split(|byte| *byte == b' ').filter(|word| !is_host(word));
    let is_smtp = |word: &[u8]| {
        word.split(|byte| !byte.is_ascii_alphanumeric())
            .any(|part| part.eq_ignore_ascii_case(b"SMTP") || part.eq_ignore_ascii_case(b"ESMTP"))
    };
    Ok(if words().any(is_smtp) {
        Greeting::Smtp
    } else if words().any(|word| mentions(word, "FTP")) {
        Greeting::Ftp
    } else {
        Greeting::Open
    })
}

fn is_host(word: &[u8]) -> bool {
    let word = word.trim_ascii();
    let inner = word.strip_suffix(b".").unwrap_or(word);
    inner.contains(&b'.')
        && inner.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte))
}
