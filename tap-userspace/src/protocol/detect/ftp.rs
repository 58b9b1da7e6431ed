//! FTP: a server's greeting that names it, or any with 220 that an FTP client answers (RFC 959
//! §5.4, RFC 2228, RFC 7151).
#![forbid(unsafe_code)]

use super::{
    Certainty, Protocol, Rule, Said,
    fields::*,
    smtp::{Greeting, greeting},
};

pub(super) const RULE: Rule = Rule { first: &[b'2'..=b'2'], look, confirm };

fn look(head: &[u8]) -> Step<Said> {
    let server = Said::server(Protocol::Ftp, None);
    match greeting(head)? {
        Greeting::Ftp => Ok(server),
        Greeting::Smtp => Err(Stop::No),
        Greeting::Open => Ok(server.perhaps()),
    }
}

fn confirm(_: &[u8], other: &[u8]) -> Step<Certainty> {
    const WORDS: [&str; 9] =
        ["AUTH", "USER", "FEAT", "SYST", "HOST", "OPTS", "QUIT", "NOOP", "HELP"];
    let mut command = Fields(other);
    let word = command.word(&WORDS)?;
    if word == 0 {
        // SMTP's are names of SASL mechanisms.
        command.literal(b" ")?;
        command.word(&["TLS", "SSL", "TLS-C", "TLS-P", "GSSAPI"])?;
    }
    command.line()?;
    Ok(if word < 6 { Certainty::Sure } else { Certainty::Perhaps })
}
